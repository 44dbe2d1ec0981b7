"""What a request says is filled in where it can be meant for one argument alone, and nothing else is touched."""

import pytest

from callwright.data.completed_calls import Said, completed_calls
from callwright.data.said_values import completed
from callwright.data.sources import read_records

BRANCH = {"type": "string", "enum": ["central", "harbor", "story_time"]}
ROOM = {
    "type": "object",
    "properties": {
        "card": {"type": "string"},
        "time": {"type": "string", "description": "HH:MM"},
        "until": {"type": "string", "description": "Day of return, YYYY-MM-DD"},
        "people": {"type": "integer", "description": "How many will use the room"},
        "branch": BRANCH,
    },
    "required": ["card", "time", "people"],
}


def of(name, text, **arguments):
    return completed(arguments, ROOM, text).get(name)


@pytest.mark.parametrize(
    ("said", "time"),
    [
        ("from 2 pm", "14:00"), ("at 9:30 a.m.", "09:30"), ("at 12 am", "00:00"), ("at 12:15 pm", "12:15"),
        ("4 in the afternoon", "16:00"), ("eight in the evening", "20:00"), ("at 14:30", "14:30"), ("noon", "12:00"),
        ("half past nine in the morning", "09:30"), ("quarter to 5 pm", "16:45"), ("at 8 o'clock at night", "20:00"),
        ("half six in the evening", None),
        ("at 4", None), ("half past nine", None), ("for $9.30", None), ("flat 3pm2", None), ("at 25:10", None),
        ("9 am or 10 am", None), ("from ten to twelve in the morning", None),
    ],
)  # fmt: skip
def test_times_of_day_are_read(said, time):
    assert of("time", f"A room {said}, please") == time
    assert of("time", f"A room {said}, please", time="18:05") == (time or "18:05")


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("May 20, 2026", "2026-05-20"), ("3 June 2026", "2026-06-03"), ("the 3rd of June 2026", "2026-06-03"),
        ("2026-01-31", "2026-01-31"), ("Feb 30, 2026", None), ("May 20", None), ("March 2026", None),
    ],
)  # fmt: skip
def test_dates_with_their_year_are_read(said, day):
    assert of("until", f"Keep it until {said}") == day
    assert of("people", f"Keep it until {said}") is None


@pytest.mark.parametrize(
    ("said", "people"),
    [
        ("for the four of us", 4), ("for 6", 6), ("for twenty people", 20), ("1,200 people", 1200), ("one more", None),
        ("at 2 pm", None), ("for $15", None), ("fifteen dollars", None), ("card C20481M", None), ("2.5 of us", None),
        ("twenty-five", 25), ("thirty two", 32), ("for a hundred and twenty", 120), ("for two dozen", 24),
        ("for half a dozen", 6), ("for three hundred", 300), ("for a thousand two hundred", 1200),
        ("on the hundred and first floor, one hundred and twenty-fifth street", None), ("on the twenty-fifth", None),
        ("(a thousand thanks)", None), ("for a hundred and twenty-five", 125),
        ("for two thousand five hundred and ten", 2510), ("for three hundred and fifty thousand", 350_000),
        ("for a hundred thousand", 100_000), ("for a two-hundred strong crowd", 200), ("for half a hundred", None),
        ("for a hundred and 20", None), ("for two million", None), ("between two hundred and three hundred", None),
        ("4 or 5 of us", None), ("on May 4", None), ("the 4th", None),
        ("call 555-0188", None),
    ],
)  # fmt: skip
def test_numbers_are_read_that_are_no_time_date_money_or_code(said, people):
    assert of("people", f"A room {said}, please") == people


def test_of_what_is_said_the_money_is_meant_and_no_thousands_are_lost():
    pay = {"properties": {"amount": {"type": "number", "description": "In thousand dollars"}}, "required": ["amount"]}
    assert completed({}, pay, "After two floods, take fifteen dollars") == {"amount": 15}
    assert completed({}, pay, "Take 280 thousand") == {}


@pytest.mark.parametrize("text", ["Under no circumstances", "Not done yet", "It isn't done"])
def test_what_is_denied_is_not_said(text):
    verdict = {"properties": {"state": {"enum": ["NO", "done"]}}, "required": ["state"]}
    assert completed({}, verdict, text) == {}


def one(of):
    """A schema that requires its one parameter, `x`."""
    return {"properties": {"x": of}, "required": ["x"]}


TIME, DATE = {"type": "string", "description": "HH:MM"}, {"type": "string", "description": "YYYY-MM-DD"}
AMOUNT = {"type": "number", "description": "Amount in dollars"}


@pytest.mark.parametrize(
    ("kind", "text", "held"),
    [
        (TIME, "Book a call from 2 to 3 pm with Priya", "14:00"),
        (TIME, "Are you open 9 to 5 pm?", "09:00"),
        (TIME, "Pick me up at half past five, my plane leaves at 8 pm", "17:30"),
        (TIME, "Meeting from 2 until 3 pm", "14:00"),
        (DATE, "July 3 to July 9, 2026", "2026-07-03"),
        (DATE, "Book me in for 20 May; I was born March 3, 1990", "2026-05-20"),
        (DATE, "Book me in for Monday; I was born March 3, 1990", "2026-05-18"),
        ({"enum": ["en", "de", "fr", "it"]}, "Translate it into German", "de"),
        ({"enum": ["S", "M", "L"]}, "I'm after a large T-shirt", "L"),
        ({"enum": ["M", "F"]}, "I'm looking for a women's running shoe", "F"),
        ({"enum": ["US", "GB"]}, "Tell us the news from London", "GB"),
        ({"enum": ["heat", "cool"]}, "Switch the AC from cool to heating", "heat"),
        ({"enum": ["economy", "business"]}, "Upgrade me from economy to biz", "business"),
        ({"enum": ["billing", "other"]}, "I was charged twice the other day", "billing"),
        ({"enum": ["low", "high"]}, "The battery of sensor 3 is low, please fix this urgently", "high"),
        (AMOUNT, "Transfer three hundred and fifty dollars to Bob", 350),
        (AMOUNT, "Send Bob his half of the 80 dollar bill", 40),
        (AMOUNT, "Send Bob 12 dollars 50", 12.5),
        (AMOUNT, "Send Bob three quarters of a thousand", 750),
        ({"type": "number"}, "Convert 1 1/2 cups of flour", 1.5),
        ({"type": "number", "description": "percent"}, "It should be at five per cent, not twenty", 5),
        ({"type": "integer", "default": 1}, "Order the 55 inch Samsung TV", 1),
        ({"type": "integer", "description": "How many people"}, "A table tomorrow at seven", 2),
    ],
)
def test_what_a_person_meant_otherwise_is_kept(kind, text, held):
    assert completed({"x": held}, one(kind), text) == {"x": held}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ({"type": "integer", "description": "How many people"}, "A table tomorrow at seven"),
        ({"type": "integer", "description": "Length in minutes"}, "Massage for $60 please"),
        ({"type": "integer", "description": "Length in minutes"}, "For a hundred and twenty minutes and 30 seconds"),
        ({"enum": ["first", "second"]}, "To Rome on the first of June 2026"),
        ({"enum": ["US", "GB"]}, "Any headlines for us?"),
    ],
)
def test_nothing_is_filled_in_by_half_of_what_was_said(kind, text):
    assert completed({}, one(kind), text) == {}


def test_what_tools_returned_or_the_system_says_is_kept():
    transfer = {"transfer": {"properties": {"source": {"type": "string"}, "to": {"type": "string"}}}}
    call = {"name": "transfer", "arguments": {"source": "ACC-2041", "to": "ACC-2042"}}
    said = [
        {"role": "system", "content": "Signed-in customer: account ACC-2041."},
        {"role": "user", "content": "Transfer $50 to ACC-2042"},
    ]
    assert completed_calls([call], transfer, said) == [call]
    book = {"book": one(TIME)}
    call = {"name": "book", "arguments": {"x": "16:30"}}
    said = [
        {"role": "user", "content": "When is there room?"},
        {"role": "assistant", "content": "", "tool_calls": [{}]},
        {"role": "tool", "content": '{"slots": ["15:00", "16:30"]}'},
        {"role": "user", "content": "The second slot please, my flight lands at 2 pm"},
    ]
    assert completed_calls([call], book, said) == [call]


def test_a_long_text_is_not_looked_for_word_by_word():
    text = "word " * 800
    assert completed({"x": "wort " * 300}, one({"type": "string"}), text) == {"x": "wort " * 300}


def test_money_goes_where_money_is_meant():
    pay = {"properties": {"amount": {"type": "number", "description": "In dollars"}}}
    for said, amount in (("twelve dollars", 12), ("$4.20", 4.2), ("1,500 euros", 1500)):
        assert completed({}, pay, f"Take {said} for it") == {"amount": amount}


def test_a_value_of_an_enumeration_is_read_word_by_word():
    assert of("branch", "Is it in at the Harbor?") == "harbor"
    assert of("branch", "Is it in at the harbor?", branch="central") == "harbor"
    assert of("branch", "sign us up for story times") == "story_time"
    assert of("branch", "harbor or central?", branch="central") == "central"
    assert of("branch", "sign us up for story-time") == "story_time"
    assert of("branch", "a story about time") is None
    assert completed({"format": "ebook"}, {"properties": {"format": {"enum": ["book", "ebook"]}}}, "Any e-books?") == {
        "format": "ebook"
    }


def test_what_another_argument_holds_is_not_said_twice():
    title = {"properties": {"title": {"type": "string"}, "branch": BRANCH, "copies": {"type": "integer"}}}
    asked = "Is The Harbor of 7 Lights in?"
    assert completed({"title": "The Harbor of 7 Lights"}, title, asked) == {"title": "The Harbor of 7 Lights"}
    two = {"properties": {name: {"type": "integer"} for name in ("adults", "children")}}
    assert completed({"adults": 2}, two, "2 adults and 3 children") == {"adults": 2, "children": 3}
    assert completed({"adults": 2, "children": 4}, two, "2 adults and 3 children") == {"adults": 2, "children": 3}
    assert completed({}, two, "2 adults and 3 children") == {}
    assert completed({}, two, "3 children") == {"children": 3}
    assert completed({}, two, "3 of us") == {}


def test_a_number_that_may_be_left_out_is_filled_in_where_its_parameter_counts_the_same():
    guests = {"properties": {"guests": {"type": "integer"}, "places": {"type": "integer"}}}
    assert completed({}, guests, "a table for six guests") == {"guests": 6}
    seats = {"properties": {"seats": {"type": "integer", "description": "How many people come"}}}
    assert completed({}, seats, "a table for two people") == {"seats": 2}
    assert completed({}, seats, "a table for the four of us") == {"seats": 4}
    assert completed({}, seats, "between two towns") == {}
    assert completed({"seats": 3}, seats, "between two towns") == {"seats": 2}


def test_a_number_of_hours_is_none_of_minutes():
    minutes = {"properties": {"length": {"type": "integer", "description": "In minutes"}}}
    assert completed({}, minutes, "for 2 hours") == {}
    assert completed({"length": 90}, minutes, "for an hour and a half") == {"length": 90}
    assert completed({}, minutes, "a 20-minute walk") == {"length": 20}


def test_a_value_of_the_wrong_type_may_be_replaced():
    for wrong in ("4", None, True, [4], {"count": 4}):
        assert of("people", "for 4 of us", people=wrong) == 4
    assert of("people", "for some of us", people=None) is None


def test_a_percentage_that_an_argument_holds_is_no_number_beside_it():
    rates = {"properties": {name: {"type": "number"} for name in ("rate", "extra")}, "required": ["extra"]}
    assert completed({"rate": 0.07}, rates, "at 7 % a year") == {"rate": 0.07}
    assert completed({"rate": 0.08}, rates, "at 8 % a year and 50 more") == {"rate": 0.08, "extra": 50}


def test_what_was_said_in_another_way_stays():
    assert of("people", "A dozen of us, table 4", people=12) == 12
    assert of("time", "at 4, for 2", time="16:00") == "16:00"


def test_only_one_call_for_what_a_user_just_said_is_completed():
    call, schemas = {"name": "room", "arguments": {"card": "C1"}}, {"room": ROOM}

    def made(messages, calls=(call,)):
        return [found["arguments"] for found in completed_calls(list(calls), schemas, messages)]

    asked, answer = {"role": "user", "content": "A room for 4, card C1"}, {"role": "assistant", "content": "Where?"}
    assert made([asked]) == [{"card": "C1", "people": 4}]
    assert made([asked, answer, {"role": "user", "content": "At the harbor"}]) == [
        {"card": "C1", "people": 4, "branch": "harbor"}
    ]
    done = [{"role": "assistant", "content": "", "tool_calls": [{}]}, {"role": "tool", "content": "3 rooms"}]
    assert made([asked, *done]) == [{"card": "C1"}]
    assert made([asked, *done, {"role": "user", "content": "At 2 pm"}]) == [{"card": "C1", "time": "14:00"}]
    assert made([asked], [call, call]) == [{"card": "C1"}] * 2
    assert made([asked], [{"name": "other", "arguments": {}}]) == [{}]
    assert made([]) == [{"card": "C1"}]


@pytest.mark.parametrize("schema", [{}, {"properties": None}, {"properties": {"a": True}}, {"properties": []}])
def test_a_schema_that_says_nothing_changes_nothing(schema):
    assert completed({"a": 1}, schema, "for 4 at 2 pm") == {"a": 1}


@pytest.mark.parametrize("suite", ["library", "flats", "dental", "garden_shop"])
def test_hardly_any_expected_call_is_changed(suite, root):
    examples = [example for _, example in read_records(root / "config" / "suites" / f"{suite}.yaml")]
    changed, asked = [], 0
    for example in examples:
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
        asked += len(example.calls) == 1
        if completed_calls(example.calls, schemas, example.messages) != example.calls:
            changed.append(example.id)
    assert asked >= 30
    assert len(changed) <= 1  # "me and my two little ones" are three


def test_a_text_that_is_nearly_said_becomes_what_was_said():
    loan = {"properties": {"card": {"type": "string"}, "title": {"type": "string"}, "code": {"type": "integer"}}}
    asked = "Why is Perfect Days missing? C90147S, joel sandoval."

    def made(**arguments):
        return completed(arguments, loan, asked)

    assert made(title="Perfekt Day", card="N90147S") == {"title": "Perfect Days", "card": "C90147S"}
    assert made(title="Joel Sandovial") == {"title": "joel sandoval"}
    assert made(title="perfect days") == {"title": "perfect days"}
    assert made(title="Wolf Hall", card="C20481M") == {"title": "Wolf Hall", "card": "C90147S"}
    assert made(title="C90147S", card="C20481M") == {"title": "C90147S", "card": "C20481M"}
    assert completed({"title": "x"}, loan, "") == {"title": "x"}


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("taskkill /F /IM code.exe", "kill vs code using taskkill for code.exe"),  # other words, not mistyped ones
        ("del C:/notes.lnk", 'remove it with del "C:/notes.lnk"'),  # a word more, and half of a quotation
        ("buy oat milk", "remember to buy goat cheese"),
    ],
)
def test_a_text_of_other_words_stays_as_it_was_written(written, asked):
    schema = {"properties": {"command": {"type": "string"}}}
    assert completed({"command": written}, schema, asked) == {"command": written}


def test_a_space_too_many_is_a_slip():
    schema = {"properties": {"title": {"type": "string"}}}
    assert completed({"title": "sun flowers"}, schema, "water the Sunflower") == {"title": "Sunflower"}


def test_a_request_of_a_megabyte_takes_no_time_and_makes_no_number_that_is_none():
    messages = [{"role": "user", "content": "a room for " + "9" * 400 + " and nobody else, " * 50_000}]
    call = {"name": "room", "arguments": {"card": "nobody alse"}}
    (made,) = completed_calls([call], {"room": ROOM}, messages)
    assert made["arguments"] == {"card": "nobody else"}
    assert completed({}, ROOM, "a room for " + "9" * 400) == {}


def choice(*values):
    return {"type": "string", "enum": list(values)}


CLOCK, DAY, WHOLE = (
    {"type": "string", "description": "HH:MM"},
    {"type": "string", "format": "date"},
    {"type": "integer"},
)


@pytest.mark.parametrize(
    ("name", "part", "right", "asked"),
    [
        ("state", choice("on", "off"), "on", "I'm off to bed, light up the bedroom"),
        ("state", choice("on", "off"), "off", "Kill the light in the hall, I'm on my way out"),
        ("size", choice("small", "large"), "small", "but not a large one, the tiniest"),
        ("mode", choice("heat", "cool"), "heat", "way too cool in here, warm it up"),
        ("unit", choice("minute", "second"), "minute", "wait a second, set it for 5 min"),
        ("day", choice("Monday", "Tuesday"), "Tuesday", "the day after Monday"),
        ("status", choice("open", "closed"), "closed", "Open the list of tickets that are done"),
        ("time", CLOCK, "19:30", "Table for four tonight at 7:30"),
        ("time", CLOCK, "18:30", "at 6:30, in the evening"),
        ("time", CLOCK, "08:30", "half an hour before my 9 am meeting"),
        ("time", CLOCK, "15:00", "an hour later than 2 pm"),
        ("date", DAY, "2026-05-13", "a week before 20 May 2026"),
        ("date", DAY, "2026-12-07", "next Monday; I was born March 3, 1990"),
        ("minutes", WHOLE, 150, "timer for two hours and thirty minutes"),
        ("minutes", WHOLE, 65, "an hour and 5 minutes"),
        ("duration_seconds", WHOLE, 330, "5 minutes 30 seconds"),
        ("people", WHOLE, 5, "my wife, me and our 3 kids"),
        ("people", WHOLE, 3, "me and two friends"),
        ("level", WHOLE, 0, "mute the speaker in room 12"),
        ("time", CLOCK, "16:00", "70 to 5 pm"),
        ("time", CLOCK, "16:00", "ten to 0 o'clock at night"),
    ],
)
def test_words_that_may_mean_something_else_change_nothing(name, part, right, asked):
    assert completed({name: right}, {"properties": {name: part}, "required": [name]}, asked) == {name: right}


@pytest.mark.parametrize(
    ("name", "part", "wrong", "asked", "right"),
    [
        ("time", CLOCK, "14:00", "at 2 at night", "02:00"),
        ("time", CLOCK, "12:00", "12 at night", "00:00"),
        ("time", CLOCK, "11:00", "at 11 at night", "23:00"),
        ("time", CLOCK, "12:30", "half past twelve at night", "00:30"),
        ("time", CLOCK, "07:20", "at twenty past seven in the evening", "19:20"),
        ("time", CLOCK, "17:00", "ten to 5 pm", "16:50"),
        ("floor", WHOLE, 0, "the lamp on floor 3", 3),
        ("people", WHOLE, 3, "a table for six people", 6),
        ("size", choice("small", "large"), "small", "a large one please", "large"),
    ],
)
def test_what_is_said_plainly_is_taken(name, part, wrong, asked, right):
    assert completed({name: wrong}, {"properties": {name: part}, "required": [name]}, asked) == {name: right}


def test_a_value_that_another_choice_holds_is_not_taken_twice():
    pair = {"properties": {"from": choice("EUR", "USD"), "to": choice("EUR", "USD")}}
    held = {"from": "EUR", "to": "USD"}
    assert completed(held, pair, "Change my EUR into dollars") == held


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("A room at 17:40, which is more realistic than 17:00", {"time": "17:40"}),
        ("A room at eleven in the morning, no, half past eleven", {"time": "11:30"}),
        ("A room at six in the evening, no, make it half past six", {"time": "18:30"}),
        ("For thirty, no, thirty-one", {"people": 31}),
        ("It holds fifty-two thousand", {"people": 52000}),
        ("For twenty-one and a half", {"people": 21.5}),
        ("Two dozen people", {"people": 24}),
        ("It can't be the central one at all", {"branch": "harbor"}),
    ],
)
def test_what_is_taken_back_or_goes_on_changes_nothing(text, held):
    assert completed(held, ROOM, text) == held


@pytest.mark.parametrize(
    ("request_", "held", "expected"),
    [
        ("C93302E wants a place to work", "C00000A", "C93302E"),
        ("c93302e, a place to work.", "C00000A", "c93302e"),
        ("C93302E and C10000D want a place", "C00000A", "C00000A"),  # which of them?
        ("Room A12 for me", "B99", "B99"),  # too short for a code
        ("Call 555-0100", "C00000A", "C00000A"),  # of another form
        ("Not C93302E, the other one", "C00000A", "C00000A"),
        ("Account ending 4711", "8822", "8822"),
    ],
)
def test_the_only_code_of_the_form_of_one_that_nobody_said_is_meant(request_, held, expected):
    schema = {"properties": {"card": {"type": "string"}}, "required": ["card"]}
    assert completed({"card": held}, schema, request_) == {"card": expected}


def test_a_value_of_an_earlier_turn_or_call_stays_and_two_arguments_do_not_get_the_same():
    rooms = {"enum": ["north_depot", "south_depot", "main_store"]}
    schema = {"properties": {"source": rooms, "target": rooms}, "required": True}
    said = Said({"north_depot": 0.9, "south_depot": 0.05, "main_store": 0.0}, 0.05)

    def made(messages, **arguments):
        calls = [{"name": "move", "arguments": arguments}]
        return completed_calls(calls, {"move": schema}, messages, lambda tool, name: said)[0]["arguments"]

    asked, both = {"role": "user", "content": "Take it from the northern one"}, ("north_depot", "main_store")
    assert made([asked], source="north_depot", target="main_store") == dict(
        zip(schema["properties"], both, strict=True)
    )
    assert made([asked], source="south_depot") == {"source": "north_depot"}
    earlier = [{"role": "user", "content": "All from the south depot"}, {"role": "assistant", "content": "To which?"}]
    assert made([*earlier, asked], source="south_depot") == {"source": "south_depot", "target": "north_depot"}
    call = {"type": "function", "function": {"name": "move", "arguments": '{"source": "south_depot"}'}}
    before = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "done"}]
    assert made([*before, asked], source="south_depot")["source"] == "south_depot"
