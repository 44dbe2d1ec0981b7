"""Calls completed by what a request says in its own words, as something else than code reads it."""

import pytest

from callwright.data.completed_calls import Said, completed_calls

EVENTS = {
    "properties": {
        "name": {"type": "string"},
        "event": {"type": "string", "enum": ["book_club", "story_time", "writing_workshop"]},
        "seats": {"type": "integer"},
    }
}


@pytest.mark.parametrize(
    ("request_", "held", "said", "required", "expected"),
    [
        # another value is clearly said in other words; it fills a gap, too
        ("A teacher for my novel. Li", "story_time", (0.05, 0.05, 0.8, 0.1), True, "writing_workshop"),
        ("A teacher for my novel. Li", None, (0.05, 0.05, 0.8, 0.1), True, "writing_workshop"),
        ("A teacher for my novel. Li", None, (0.05, 0.05, 0.8, 0.1), False, "writing_workshop"),
        # less clearly, but much more so than what is there; that is not enough for one which may be left out
        ("A teacher for my novel. Li", "story_time", (0.1, 0.15, 0.5, 0.25), True, "writing_workshop"),
        ("A teacher for my novel. Li", "story_time", (0.1, 0.15, 0.5, 0.25), False, "story_time"),
        ("A teacher for my novel. Li", "story_time", (0.1, 0.2, 0.4, 0.3), True, "story_time"),
        ("A teacher for my novel. Li", None, (0.1, 0.15, 0.5, 0.25), True, None),
        # nothing is said: what may be left out goes
        ("Li wants to join", "story_time", (0.1, 0.1, 0.3, 0.5), False, None),
        ("Li wants to join", "story_time", (0.1, 0.1, 0.3, 0.5), True, "story_time"),
        ("Li wants to join", None, (0.0, 0.0, 0.1, 0.9), True, None),
        # nobody can tell
        ("A teacher for my novel. Li", "story_time", None, True, "story_time"),
        # what is said word by word stays, and is not given here either
        ("Story time for Li", "story_time", (0.9, 0.0, 0.1, 0.0), True, "story_time"),
        ("For Li, but not the book club", "story_time", (0.9, 0.0, 0.1, 0.0), True, "story_time"),
    ],
)
def test_a_value_that_is_said_in_other_words_is_taken_where_it_is_likely(request_, held, said, required, expected):
    arguments = {"name": "Li", **({"event": held} if held else {})}
    said = said and Said(dict(zip(EVENTS["properties"]["event"]["enum"], said[:3], strict=True)), said[3])
    asked = []

    def likely(tool, name):
        asked.append((tool, name))
        return said if name == "event" else None

    messages = [{"role": "user", "content": request_}]
    schema = {**EVENTS, "required": ["name", "event"] if required else ["name"]}
    (call,) = completed_calls([{"name": "sign_up", "arguments": arguments}], {"sign_up": schema}, messages, likely)
    assert call["arguments"].get("event") == expected
    assert {tool for tool, _ in asked} == {"sign_up"}
    several = [{"name": "sign_up", "arguments": arguments}] * 2
    assert completed_calls(several, {"sign_up": schema}, messages, likely) == several


RENEW = {
    "properties": {
        "title": {"type": "string"},
        "author": {"type": "string"},
        "days": {"type": "integer"},
        "size": {"type": "integer", "maximum": 9},
        "day": {"type": "string", "description": "YYYY-MM-DD"},
    },
    "required": ["title"],
}
ASKED = "Can I keep The Body Keeps the Score by Kolk for 9 days, until next Friday?"


@pytest.mark.parametrize(
    ("arguments", "said", "expected"),
    [
        # words are taken where they are clearer than what the model wrote, and it counts too
        ({"title": "The Body"}, {"title": ({"The Body Keeps the Score": 0.9, "The Body": 0.02}, 0.01)},
         {"title": "The Body Keeps the Score"}),
        ({"title": "The Body"}, {"title": ({"The Body Keeps the Score": 0.6, "The Body": 0.2}, 0.01)},
         {"title": "The Body"}),
        # a gap is filled, if it is clear enough; a number too
        ({"title": "The Body"}, {"author": ({"Kolk": 0.95}, 0.03)}, {"title": "The Body", "author": "Kolk"}),
        ({"title": "The Body"}, {"author": ({"Kolk": 0.6}, 0.3)}, {"title": "The Body"}),
        # what no words say is taken away, be it required or not
        ({"title": "Kolk", "author": "Kolk"}, {"author": ({"Kolk": 0.02}, 0.9)}, {"title": "Kolk"}),
        ({"title": "days"}, {"title": ({"days": 0.02}, 0.95)}, {}),
        ({"title": "days"}, {"title": ({"days": 0.3}, 0.65)}, {"title": "days"}),
        # what is the same but for its article and capitals stays as the model has it
        ({"title": "body keeps the score"}, {"title": ({"The Body Keeps the Score": 0.9}, 0.01)},
         {"title": "body keeps the score"}),
        # a text that was said once is not given to two
        ({"title": "Kolk"}, {"author": ({"Kolk": 0.95}, 0.03)}, {"title": "Kolk"}),
        # and so is nothing that is said in a way which is no value, as next Friday is no date
        ({"title": "x", "day": "2026-12-04"}, {"day": ({}, 0.3)}, {"title": "x", "day": "2026-12-04"}),
                # what the schema forbids is not taken, and what is no text or number is left alone
        ({"title": "x", "size": 9}, {"size": ({40: 0.9, 5: 0.005}, 0.01)}, {"title": "x", "size": 9}),
        # a number that stands there goes where it is all but certain that it is none, and may be left out
        ({"title": "x", "size": 9}, {"size": ({}, 0.97)}, {"title": "x"}),
        ({"title": "x", "size": 9}, {"size": ({}, 0.9)}, {"title": "x", "size": 9}),
        ({"title": "x", "day": "2026-12-04"}, {"day": ({}, 0.99)}, {"title": "x", "day": "2026-12-04"}),
        ({"title": ["The", "Body"]}, {"title": ({"The Body": 0.9}, 0.01)}, {"title": ["The", "Body"]}),
        # nobody can tell
        ({"title": "The Body"}, {}, {"title": "The Body"}),
        ({"title": "The Body"}, {"title": ({}, 0.0)}, {"title": "The Body"}),
    ],
)  # fmt: skip
def test_a_text_is_the_words_that_most_likely_say_it(arguments, said, expected):
    def likely(tool, name):
        return Said(*said[name]) if name in said else None

    messages = [{"role": "user", "content": ASKED}]
    (call,) = completed_calls([{"name": "renew", "arguments": arguments}], {"renew": RENEW}, messages, likely)
    call["arguments"].pop("days", None)  # which code reads off
    assert call["arguments"] == expected


EMERGENCY = {
    "properties": {"address": {"type": "string"}, "phone": {"type": "string"}, "at": {"description": "HH:MM"}},
    "required": ["address"],
}


@pytest.mark.parametrize(
    ("asked", "arguments", "said", "expected"),
    [
        # two values in each other's place change over, where it is clear
        ("Gas at Rose Lane 5! Ring 0176 555", {"address": "0176 555", "phone": "Rose Lane 5"},
         {"address": ({"Rose Lane 5": 0.9}, 0.01), "phone": ({"0176 555": 0.9}, 0.01)},
         {"address": "Rose Lane 5", "phone": "0176 555"}),
        ("Gas at Rose Lane 5! Ring 0176 555", {"address": "0176 555", "phone": "Rose Lane 5"},
         {"address": ({"Rose Lane 5": 0.5, "0176 555": 0.3}, 0.1), "phone": ({"0176 555": 0.5, "Rose Lane 5": 0.4}, 0)},
         {"address": "0176 555", "phone": "Rose Lane 5"}),
        # what was said twice may be both; what was said once goes to the one that it is more likely of
        ("Gas at Rose Lane 5, my name is Rose Lane 5", {},
         {"address": ({"Rose Lane 5": 0.9}, 0.01), "phone": ({"Rose Lane 5": 0.9}, 0.01)},
         {"address": "Rose Lane 5", "phone": "Rose Lane 5"}),
        ("Gas at Rose Lane 5", {}, {"address": ({"Rose Lane 5": 0.99}, 0.01), "phone": ({"Rose Lane 5": 0.96}, 0.01)},
         {"address": "Rose Lane 5"}),
        # a time that may be either is of the half of the day that the call has
        ("At half past one", {"at": "14:30"}, {"at": ({"13:30": 0.6, "01:30": 0.3}, 0.01)}, {"at": "13:30"}),
        ("At half past one", {"at": "02:30"}, {"at": ({"13:30": 0.6, "01:30": 0.3}, 0.01)}, {"at": "01:30"}),
        ("At half past one", {}, {"at": ({"13:30": 0.6, "01:30": 0.3}, 0.01)}, {}),
        ("Alarm at 7 am, coffee at 7 am: 7", {"address": "07:00", "at": "06:00"}, {"at": ({"07:00": 0.99}, 0.001)},
         {"address": "07:00", "at": "07:00"}),
    ],
)  # fmt: skip
def test_words_are_shared_out_among_the_arguments(asked, arguments, said, expected):
    def likely(tool, name):
        return Said(*said[name]) if name in said else None

    messages = [{"role": "user", "content": asked}]
    (call,) = completed_calls([{"name": "help", "arguments": arguments}], {"help": EMERGENCY}, messages, likely)
    assert call["arguments"] == expected


@pytest.mark.parametrize(
    ("asked", "held", "said", "expected"),
    [
        # a time that was said twice may be both; of one that was said once no argument has the other half of the day
        ("Wake me at 7, coffee at 7", "08:00", {"07:00": 0.95, "19:00": 0.5}, "07:00"),
        ("Wake me at 7, then coffee", "08:00", {"07:00": 0.95, "19:00": 0.5}, "08:00"),
        ("Wake me at 7 am, wine at 7 pm", "08:00", {"19:00": 0.95}, "19:00"),
        ("Wake me for coffee", "08:00", {"07:00": 0.95}, "08:00"),
    ],
)
def test_a_time_counts_as_often_as_it_is_said_in_whatever_form(asked, held, said, expected):
    schema = {"properties": {"wake": CLOCK, "serve": CLOCK}, "required": ["wake", "serve"]}
    (call,) = completed_calls(
        [{"name": "plan", "arguments": {"wake": "07:00", "serve": held}}],
        {"plan": schema},
        [{"role": "user", "content": asked}],
        lambda tool, name: Said({"07:00": 0.95} if name == "wake" else said, 0.01),
    )
    assert call["arguments"] == {"wake": "07:00", "serve": expected}


def test_words_are_shared_out_among_many_arguments_without_trying_all_ways():
    names, words = [f"p{number}" for number in range(40)], ["one", "two", "three", "four", "five", "six"]
    schema = {"properties": {name: {"type": "string"} for name in names}}
    messages = [{"role": "user", "content": " ".join(words)}]
    (call,) = completed_calls(
        [{"name": "t", "arguments": {}}], {"t": schema}, messages,
        lambda tool, name: Said({word: 0.16 for word in words}, 0.001),
    )  # fmt: skip
    assert sorted(call["arguments"].values()) == sorted(words)


@pytest.mark.parametrize(
    ("held", "said", "required", "expected"),
    [
        (["FERRIES"], (0.1, 0.1, 0.8), False, None),  # nobody said it
        (["FERRIES"], (0.1, 0.1, 0.8), True, ["FERRIES"]),
        (["TOLLS"], (0.1, 0.1, 0.8), False, ["TOLLS"]),  # word by word
        (["FERRIES"], (0.1, 0.8, 0.1), False, ["UNPAVED"]),  # another one
        (["FERRIES", "UNPAVED"], (0.1, 0.8, 0.1), False, ["FERRIES", "UNPAVED"]),  # of several nobody knows which
        (["FERRIES", "UNPAVED"], (0.3, 0.25, 0.45), False, ["FERRIES", "UNPAVED"]),
        (["FERRIES", "UNPAVED"], (0.1, 0.1, 0.8), False, None),
        ([], (0.1, 0.1, 0.8), False, []),
        (None, (0.8, 0.1, 0.1), False, ["FERRIES"]),
        ("FERRIES", (0.1, 0.8, 0.1), True, "FERRIES"),  # breaks the schema
    ],
)
def test_of_a_list_of_values_the_only_one_is_weighed(held, said, required, expected):
    values = ["FERRIES", "UNPAVED", "TOLLS"]
    schema = {
        "properties": {"avoid": {"type": "array", "items": {"enum": values}}},
        "required": ["avoid"] if required else [],
    }
    arguments = {} if held is None else {"avoid": held}
    messages = [{"role": "user", "content": "Home, no boats, and no tolls"}]
    found = completed_calls(
        [{"name": "go", "arguments": arguments}], {"go": schema}, messages,
        lambda tool, name: Said(dict(zip(values, (*said[:2], 0.0), strict=True)), said[2]),
    )  # fmt: skip
    assert found[0]["arguments"].get("avoid") == expected


def test_each_of_several_calls_is_read_for_unless_its_tool_is_called_again():
    def likely(tool, name):
        return Said({f"for {tool}": 0.99}, 0.0) if name == "title" else None

    def titles(*names):
        calls = [{"name": name, "arguments": {"title": "The"}} for name in names]
        messages = [{"role": "user", "content": ASKED}]
        found = completed_calls(calls, {"renew": RENEW, "reserve": RENEW}, messages, likely)
        assert all("days" not in call["arguments"] for call in found if len(calls) > 1), "whose they are is not known"
        return [call["arguments"]["title"] for call in found]

    assert titles("renew") == ["for renew"]
    assert titles("renew", "reserve") == ["for renew", "for reserve"]
    assert titles("renew", "renew") == ["The", "The"]
    assert titles("renew", "reserve", "reserve") == ["for renew", "for reserve", "The"]
    assert titles("renew", "other") == ["for renew", "The"]


@pytest.mark.parametrize(
    ("description", "value", "expected"),
    [("Name without the #", "#design", "design"), ("User, without a leading @", "@ann", "ann"), ("A tag", "#x", "#x"),
     ("Amount without the €", "50 €", "50"), ("Price without the $10 discount", "$40", "$40"),
     ("Name without the #", "C#", "C"), ("Name without the #", "#", "#"), ("Name without the #", 3, 3)],
)  # fmt: skip
def test_a_sign_that_is_not_wanted_goes(description, value, expected):
    schemas = {"say": {"type": "object", "properties": {"to": {"description": description}, "odd": True}}}
    call = {"name": "say", "arguments": {"to": value}}
    assert completed_calls([call], schemas, [{"role": "user", "content": "Go"}])[0]["arguments"] == {"to": expected}


ANY, CLOCK = {"type": "integer"}, {"type": "string", "description": "HH:MM"}
DATE, FORM = {"type": "string", "format": "date"}, {"type": "string", "description": "Date in YYYY-MM-DD format"}
ROOM = {"type": "string", "enum": ["kitchen", "office", "hall"]}


@pytest.mark.parametrize(
    ("asked", "part", "held", "said", "expected"),
    [
        # what was worked out stays
        ("Set a timer for 2 hours", ANY, 120, ({2: 0.97}, 0.01), 120),
        ("Half an hour", ANY, 30, ({}, 0.05), 30),
        ("Set the freezer to minus 18 degrees", ANY, -18, ({18: 0.97}, 0.01), -18),
        ("Wake me an hour before 9 am", CLOCK, "08:00", ({"09:00": 0.97}, 0.0), "08:00"),
        ("the day after May 20, 2026", DATE, "2026-05-21", ({"2026-05-20": 0.97}, 0.0), "2026-05-21"),
        ("Book a table tonight at 7:30", CLOCK, "19:30", ({"07:30": 0.97}, 0.0), "19:30"),
        ("We would like to eat at 7:30 at Luigi's", CLOCK, "19:30", None, "19:30"),
        ("At 7:30 am please", CLOCK, "19:30", None, "07:30"),
        ("100 dollars in euros", {"type": "string"}, "USD", ({"100 dollars in euros": 0.9}, 0.0), "USD"),
        ("Wake me an hour before 9 am", {**CLOCK, "format": "time"}, "08:00:00", ({"09:00": 0.97}, 0.0), "08:00:00"),
        ("At half past seven", {"format": "time"}, "19:30:00", ({"19:30": 0.8, "07:30": 0.4}, 0.0), "19:30:00"),
        ("At half past seven", CLOCK, "19:30:00", ({"19:30": 0.8, "07:30": 0.4}, 0.0), "19:30"),
        ("Wake me an hour before 9 am", CLOCK, "8:00", ({"09:00": 0.97}, 0.0), "08:00"),
        ("At half past nine", CLOCK, "9:30", ({"09:30": 0.6, "21:30": 0.3}, 0.01), "09:30"),
        ("Roll a die", {"type": "integer", "default": 1}, 1, ({}, 0.99), 1),
        ("Book a table on May 4, 2026", FORM, "2026-05-04", ({"2026-05-04": 0.9}, 0.0), "2026-05-04"),
        # what was not goes, or is mended
        ("Set a timer for 2 hours", ANY, 50, ({2: 0.97}, 0.01), 2),
        ("80 a month is plenty. 70015532", ANY, 80, ({70015532: 0.97, 80: 0.01}, 0.01), 70015532),
        ("Show me jobs in C#", {"type": "string"}, "C", ({"C#": 0.95}, 0.01), "C#"),
        ("Ask @ann", {"type": "string"}, "ann", ({"@ann": 0.95}, 0.01), "ann"),
        ("Wake me at 4:50 tomorrow", CLOCK, "tomorrow", ({"04:50": 0.97}, 0.0), "04:50"),
        ("Eleven o'clock it is", CLOCK, "11:30", ({"11:00": 0.8, "23:00": 0.4}, 0.1), "11:00"),
        ("A lesson of 2 hours, she's 158 cm tall", ANY, 158, ({2: 0.98}, 0.01), 2),
        ("some day in July", DATE, "2023-07-01", ({}, 0.9), None),
        # a value in passing is not meant where the encoder knows better
        ("I'm cooking in the kitchen, switch off the lamp in my study", ROOM, "office",
         ({"office": 0.6, "kitchen": 0.3}, 0.1), "office"),
        ("I'm in the kitchen, light please", ROOM, "office", ({"office": 0.1, "kitchen": 0.8}, 0.1), "kitchen"),
        # nothing breaks over what is none
        ("more light", ROOM, ["kitchen"], ({"hall": 0.9}, 0.0), ["kitchen"]),
        ("count", ANY, 10**400, ({}, 0.0), 10**400),
        ("Track order 12345678901234567", ANY, 12345678901234567, None, 12345678901234567),
    ],
)  # fmt: skip
def test_a_right_value_is_not_talked_away(asked, part, held, said, expected):
    schema = {"type": "object", "properties": {"x": part}, "required": ["x"]}
    likely = None if said is None else lambda tool, name: Said(*said)
    calls = [{"name": "do", "arguments": {"x": held}}]
    (call,) = completed_calls(calls, {"do": schema}, [{"role": "user", "content": asked}], likely)
    assert call["arguments"].get("x") == expected
