"""Proposed phrasings: kept only where they fit, everything else counted; against a stub server and from logs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from callwright.cli import main
from callwright.data.toolset import paraphrase
from callwright.data.toolset.toolset import load_toolset
from callwright.data.toolset.writer import Wordings

CAFE = """
domains:
  cafe:
    order:              # a comment that stays
      description: Order something to drink.
      parameters:
        drink: {type: string, description: Its name}
        size: {type: string, enum: [small, large]}
      optional: [size]
      values: {drink: [tea, coffee, cocoa, chai]}
      phrasings:
        - "A {drink}, please."
        - "I want a {size} {drink}"
        - "One {drink} for me"
        - "Get me a {drink}"
        - "Could I have a {drink}?"
        - "Bring a {drink} to my desk"
        - "{drink} time!"
      ask: {drink: I need one more detail. Which drink?}
      missing:
        - "Something {size} to drink, please."   # the last
small_talk:
  - Do you sell gift cards?
"""


@pytest.fixture
def cafe(tmp_path):
    path = tmp_path / "cafe.yaml"
    path.write_text(CAFE)
    return path


@pytest.mark.parametrize(
    ("kind", "line", "reason"),
    [
        ("phrasings", "Would you make me a {drink}?", None),
        ("phrasings", "Make it a {size} {drink} today", None),
        ("phrasings", "Here are 10 requests:", "no_request"),
        ("phrasings", "import os", "no_request"),
        ("phrasings", "{drink}", "no_request"),
        ("phrasings", "Give me a {beverage}", "unknown_slot"),
        ("phrasings", "Give me a {drink.1}", "unknown_slot"),
        ("phrasings", "Give me a <drink>", "unknown_slot"),
        ("phrasings", "Give me something nice", "missing_slot"),
        ("phrasings", "Give me 2 of {drink}", "own_value"),
        ("phrasings", 'Give me "tea" or {drink}', "own_value"),
        ("phrasings", "a {drink} PLEASE", "duplicate"),
        ("phrasings", "so " * 80 + "{drink}", "too_long"),
        ("missing", "I would like to drink something {size}", None),
        ("missing", "I would like a {drink}", "nothing_missing"),
        ("near_misses", "Do you have tea towels?", None),
        ("near_misses", "Do you have {drink}?", "has_slot"),
        ("near_misses", "do you sell gift cards", "duplicate"),
    ],
)
def test_what_is_kept_and_why_the_rest_is_not(cafe, kind, line, reason):
    found = paraphrase.Filter(load_toolset(cafe))
    (tool,) = found.toolset.tools
    assert found.take(tool, kind, line) == reason
    assert found.proposals.count(kind) == (reason is None)
    assert found.proposals.rejected[kind].total() == (reason is not None)
    assert found.take(tool, kind, line) == (reason or "duplicate")


def test_values_in_the_place_of_slots_become_slots(cafe):
    found = paraphrase.Filter(load_toolset(cafe))
    (tool,) = found.toolset.tools
    assert found.take(tool, "phrasings", "How do I order a small Cocoa at the counter?") is None
    assert found.proposals.kept["order"]["phrasings"] == ["How do I order a {size} {drink} at the counter?"]
    assert found.take(tool, "phrasings", "How do I order a large tea at the counter?") == "duplicate"
    assert found.take(tool, "phrasings", "Is there a teapot?") == "missing_slot"


def test_a_wording_of_the_tests_is_not_proposed_for_training(cafe):
    toolset = load_toolset(cafe)
    (tool,) = toolset.tools
    held_back = Wordings(toolset, paraphrase.SEED).for_tests
    test = next(p for p in tool.phrasings if p.id in held_back)
    near = test.text.rstrip(".?!") + " ok"
    found = paraphrase.Filter(toolset)
    assert found.reason(tool, "phrasings", near) in ("test_wording", None)
    assert any(True for _ in found.tests.near(paraphrase.shape(test.text)))


def test_lines_are_taken_out_of_an_answer():
    said = 'Sure!\n1. A {drink}?\n- "Bring {drink}",\n  * `Get {drink}`\n\n3) Make {drink}'
    assert list(paraphrase.lines_of(said)) == ["Sure!", "A {drink}?", "Bring {drink}", "Get {drink}", "Make {drink}"]


def test_only_the_description_is_sent_unless_examples_are_wanted(cafe):
    (tool,) = load_toolset(cafe).tools
    for kind in paraphrase.KINDS:
        text = paraphrase.prompt(tool, kind, 5)
        assert not any(p.text in text for p in (*tool.phrasings, *tool.missing))
        assert "{drink}" in text
    assert tool.phrasings[0].text in paraphrase.prompt(tool, "phrasings", 5, examples=3)


class Stub:
    """An OpenAI-compatible server whose answers are given; `asked` are the prompts."""

    def __init__(self, answers, status=200):
        self.asked, stub = [], self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.reply({"object": "list", "data": [{"id": "stub", "object": "model"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                stub.asked.append(body["messages"][-1]["content"])
                said = answers(stub.asked[-1], len(stub.asked))
                message = {"role": "assistant", "content": said}
                self.reply({"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]},
                           status if said is not None else 400)  # fmt: skip

            def reply(self, value, status=200):
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stub():
    made = []

    def start(answers):
        made.append(Stub(answers))
        return made[-1]

    yield start
    for each in made:
        each.close()


def good(prompt, _):
    if "left out" in prompt:
        return "I'd like a drink, a {size} one\nGive me a {drink}"
    return (
        "Do you have tea towels?"
        if "cannot do" in prompt
        else "Here you go:\n- Make me a {drink} now\n- I'll have 3 teas"
    )


def test_proposals_are_reviewed_and_then_accepted_with_all_comments_kept(cafe, stub, capsys):
    server = stub(good)
    assert main(["paraphrase", str(cafe), "--url", server.url]) == 0
    out = capsys.readouterr().out
    assert "phrasings: 1 of 3 kept (left out: no_request 1, own_value 1)" in out
    assert "missing: 1 of 2 kept (left out: nothing_missing 1)" in out
    review = cafe.with_name("cafe-proposals.yaml")
    assert main(["paraphrase", str(cafe), "--accept", str(review)]) == 0
    text = cafe.read_text()
    assert "# a comment that stays" in text
    assert "# the last" in text
    toolset = load_toolset(cafe)
    assert toolset.tools[0].phrasings[-1].text == "Make me a {drink} now"
    assert toolset.tools[0].missing[-1].text == "I'd like a drink, a {size} one"
    assert toolset.small_talk[-1][0].text == "Do you have tea towels?"
    again = paraphrase.Filter(toolset)
    assert again.reason(toolset.tools[0], "phrasings", "Make me a {drink} now") == "duplicate"


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(cafe, stub, capsys):
    breaks = stub(lambda prompt, number: good(prompt, number) if number == 1 else None)
    assert main(["paraphrase", str(cafe), "--url", breaks.url]) == 1
    assert "; what was answered is kept: run it again to go on" in capsys.readouterr().err
    whole = stub(good)
    assert main(["paraphrase", str(cafe), "--url", whole.url]) == 0
    assert len(whole.asked) == 2  # the first was answered before
    assert main(["paraphrase", str(cafe), "--url", whole.url]) == 0
    assert len(whole.asked) == 2
    assert main(["paraphrase", str(cafe), "--url", whole.url, "--examples"]) == 0
    assert len(whole.asked) == 4  # near misses are asked for without examples


@pytest.mark.slow
def test_a_server_that_babbles_or_is_not_there(cafe, stub, capsys):
    babbles = stub(lambda *_: "\u0000" * 5 + "###\n" + "blah " * 200 + "\n{}{}\n")
    assert main(["paraphrase", str(cafe), "--url", babbles.url]) == 0
    assert "phrasings: 0 of" in capsys.readouterr().out
    assert load_toolset(cafe)
    assert main(["paraphrase", str(cafe), "--url", "http://127.0.0.1:9/v1", "--out", str(cafe) + ".x"]) == 1
    assert "the server http://127.0.0.1:9/v1" in capsys.readouterr().err


def test_logs_become_phrasings_and_declined_ones_near_misses(cafe, tmp_path, capsys):
    tools = [{"type": "function", "function": {"name": "order", "description": "", "parameters": {
        "type": "object", "properties": {"drink": {"type": "string"}, "size": {"type": "string"}}}}}]  # fmt: skip
    asked = [("Would anybody bring me the COCOA?", [{"name": "order", "arguments": {"drink": "cocoa"}}], None),
             ("What is on television?", [], "I can't."),
             ("The usual", [{"name": "order", "arguments": {"drink": "tea"}}], None)]  # fmt: skip
    rows = [{"id": str(n), "messages": [{"role": "user", "content": text}], "tools": tools, "calls": calls,
             **({"answer": answer} if answer else {})} for n, (text, calls, answer) in enumerate(asked)]  # fmt: skip
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert main(["paraphrase", str(cafe), "--logs", str(log)]) == 0
    text = cafe.with_name("cafe-proposals.yaml").read_text()
    assert "Would anybody bring me the {drink}?" in text
    assert "What is on television?" in text
    assert "The usual" not in text
    assert "missing_slot 1" in capsys.readouterr().out


CAFE_OF_TWO = """
domains:
  cafe:
    order:
      description: Order something to drink.
      parameters: {drink: {type: string}}
      values: {drink: [tea, coffee, cocoa, chai]}
      phrasings:
        - "A {drink}, please."   # the last of order
    book:
      description: Book a table at a time.
      parameters: {time: {type: string}}
      values: {time: [noon, two, three, four]}
      phrasings:
        - "A table at {time}"
        - say: "Noon again"
          arguments: {time: noon}

      ask: {time: When?}
      missing:
        - "A table, please."
small_talk:
  - - Do you sell gift cards?
    - I can't do that.
"""


def test_what_is_no_toolset_no_address_or_no_log_is_told_and_earlier_proposals_stay(cafe, tmp_path, capsys):
    review, log = tmp_path / "cafe-proposals.yaml", tmp_path / "log.jsonl"
    review.write_text("order: {phrasings: [mine]}\n")
    (tmp_path / "cafe.py").write_text("def f(): ...\n")
    log.write_text("")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": \n{"id": \n')
    for options, said in [
        ([tmp_path / "cafe.py", "--logs", log], f"cafe.py is no toolset (YAML): `callwright new {tmp_path}/cafe.py`"),
        ([cafe, "--url", "notaurl"], "'notaurl' is no address of a server"),
        ([cafe, "--logs", log], "log.jsonl holds no records"),
        ([cafe, "--logs", broken], "broken.jsonl: none of its 2 records can be read as an example: "),
    ]:
        assert main(["paraphrase", *map(str, options)]) == 1
        assert said in (error := capsys.readouterr().err)
        assert error.count("\n") == 1
        assert review.read_text() == "order: {phrasings: [mine]}\n"


def test_proposals_for_several_tools_land_in_their_own_lists_in_their_order(tmp_path):
    cafe, review = tmp_path / "cafe.yaml", tmp_path / "review.yaml"
    cafe.write_text(CAFE_OF_TWO)
    review.write_text("""
order:
  near_misses: [Do you have tea towels?, Who roasts the coffee?]
  phrasings: ["One {drink} to go", "More {drink}!"]
book:
  missing: [Keep a table for us]
  phrasings: ["Table for {time}"]
  near_misses: [Can I book the band?]
""")
    assert main(["paraphrase", str(cafe), "--accept", str(review)]) == 0
    order, book = (toolset := load_toolset(cafe)).tools
    assert [p.text for p in order.phrasings] == ["A {drink}, please.", "One {drink} to go", "More {drink}!"]
    assert [p.text for p in book.phrasings] == ["A table at {time}", "Noon again", "Table for {time}"]
    assert [p.text for p in book.missing] == ["A table, please.", "Keep a table for us"]
    assert [p.text for p, _ in toolset.small_talk[-3:]] == [
        "Do you have tea towels?", "Who roasts the coffee?", "Can I book the band?",
    ]  # fmt: skip
    assert "# the last of order" in cafe.read_text()


@pytest.mark.parametrize(
    ("review", "said"),
    [
        ("order: {twice: [a]}", "line 1: order.twice: this key is not known; known are missing, near_misses"),
        ("brew: {phrasings: [a]}", "line 1: brew: the toolset has no such tool; it has order"),
        ("- order", "review.yaml, line 1: found ['order'], expected a mapping"),
        ("order: [a]", "line 1: order: found ['a'], expected a mapping"),
        ("order: {phrasings: a}", "line 1: order.phrasings: found 'a', expected a list"),
        ("order: {phrasings: [12]}", "line 1: order.phrasings.0: found 12, expected text"),
        ('order: {phrasings: ["More [{drink}"]}', "nothing was added, since the toolset would be broken"),
        ('order: {phrasings: ["More {dring}"]}', "line 1: order.phrasings.0: the slot {dring} is no parameter"),
    ],
)
def test_proposals_that_cannot_be_used_leave_the_toolset_as_it_was(tmp_path, cafe, capsys, review, said):
    path = tmp_path / "review.yaml"
    path.write_text(review + "\n")
    assert main(["paraphrase", str(cafe), "--accept", str(path)]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert cafe.read_text() == CAFE


def test_lists_that_were_thinned_out_to_nothing_add_nothing(tmp_path, cafe, capsys):
    review = tmp_path / "review.yaml"
    for text in ("", "order:\n", "order:\n  phrasings:\n"):
        review.write_text("# Proposals\n" + text)
        assert main(["paraphrase", str(cafe), "--accept", str(review)]) == 0
        assert "added nothing" in capsys.readouterr().out
    assert cafe.read_text() == CAFE


def test_a_toolset_without_the_list_is_refused(tmp_path, capsys):
    cafe, review = tmp_path / "cafe.yaml", tmp_path / "review.yaml"
    cafe.write_text(CAFE.replace("small_talk:\n  - Do you sell gift cards?\n", ""))
    review.write_text("order: {near_misses: [Do you have tea towels?]}\n")
    assert main(["paraphrase", str(cafe), "--accept", str(review)]) == 1
    assert "has no list small_talk to add to" in capsys.readouterr().err
