"""The second opinion: who is asked about what, in both orders, measured first; and what an absent judge costs."""

import http.server
import json
import threading

import pytest

from callwright.chat.formats import encode_calls
from callwright.data.records import Example
from callwright.evals import judges
from callwright.evals.judge import agreed, calibration, cases, judge, question, verdicts
from callwright.evals.scoring.score import score_item
from callwright.runtime.errors import CallwrightError

TOOL = {
    "type": "function",
    "function": {
        "name": "remind",
        "description": "Set a reminder.",
        "parameters": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "description": "What to remember."},
                "place": {"type": "string"},
                "minutes": {"type": "integer"},
            },
            "required": ["text"],
        },
    },
}


def example(identifier, *calls, possible=None):
    messages = [{"role": "user", "content": f"Remind me, {identifier}."}]
    calls = [{"name": "remind", "arguments": arguments} for arguments in calls]
    return Example(identifier, messages, [TOOL], calls, "test", possible=possible)


def answered(item, *given, condition="tuned"):
    text = encode_calls([{"name": "remind", "arguments": arguments} for arguments in given])
    row = {"id": item.id, "suite": "s", "condition": condition, "finish_reason": "stop", "text": text}
    return item, row, score_item(item, row)


def asked(*triple):
    return [(pair.argument, pair.expected, pair.given) for pair in cases(*triple)]


def test_only_differing_text_values_are_judged():
    item = example("a", {"text": "buy milk", "minutes": 5})
    assert asked(*answered(item, {"text": "purchase milk", "minutes": 5})) == [("text", "buy milk", "purchase milk")]
    assert asked(*answered(item, {"text": "buy milk", "minutes": 5})) == []  # right
    assert asked(*answered(item, {"text": "purchase milk", "minutes": 6})) == []  # a number is wrong too
    assert asked(*answered(item, {"text": "purchase milk"})) == []  # an argument is missing
    assert asked(*answered(item, {"text": "purchase milk", "minutes": 5, "place": "x"})) == []
    assert asked(*answered(item, {"text": "buy milk", "minutes": "5"})) == []  # breaks the schema


def test_several_calls_are_judged_against_their_own_partners():
    item = example("a", {"text": "one"}, {"text": "two"})
    assert asked(*answered(item, {"text": "two"}, {"text": "first"})) == [("text", "one", "first")]


def test_lists_of_right_values_are_stood_for_by_the_first():
    item = example("a", {"text": "buy milk"}, possible=[{"text": ["buy milk", "milk"], "place": ["", "home"]}])
    assert asked(*answered(item, {"text": "milk"})) == []
    assert asked(*answered(item, {"text": "get milk"})) == [("text", "buy milk", "get milk")]


def test_both_orders_are_asked_and_must_agree():
    pair = cases(*answered(example("a", {"text": "buy milk"}), {"text": "purchase milk"}))[0]
    plain, swapped = (question(pair, order)[1]["content"] for order in (False, True))
    assert plain.index("buy milk") < plain.index("purchase milk")
    assert swapped.index("buy milk") > swapped.index("purchase milk")
    assert "Set a reminder." in plain
    assert "What to remember." in plain
    assert "Remind me, a." in plain
    for said, verdict in (([True, True], True), ([False, False], False), ([True, False], None), ([None, True], None)):
        answers = iter(said)
        assert verdicts([pair], lambda _, answers=answers: next(answers)) == [verdict]


def test_calibration_pairs_are_surely_the_same_or_surely_different():
    items = [example(f"i{n}", {"text": f"thing {n}", "place": "home"}) for n in range(8)]
    same, different = calibration(items, 10)
    assert len(same) == 10
    assert all(pair.expected == pair.given for pair in same)
    # `place` has one value only, so it cannot be made wrong
    assert len(different) == 8
    assert all(pair.expected != pair.given and pair.argument == "text" for pair in different)
    assert calibration(items, 10) == (same, different)


def values(messages):
    a, b = messages[1]["content"].rsplit("\n", 2)[1:]
    return a.removeprefix("Value A: "), b.removeprefix("Value B: ")


def by_last_word(messages):
    a, b = values(messages)
    return a.split()[-1] == b.split()[-1]


def test_a_good_judge_is_trusted_and_counts_beside_the_scorer():
    items = [example(f"i{n}", {"text": f"buy thing{n}"}) for n in range(10)]
    right = [answered(item, item.calls[0]["arguments"]) for item in items[:6]]
    near = [answered(item, {"text": f"get {item.calls[0]['arguments']['text'].split()[-1]}"}) for item in items[6:9]]
    wrong = [answered(items[9], {"text": "buy nothing"})]
    found = judge({"s": {"tuned": right + near + wrong}}, by_last_word, pairs=10)
    assert found["trusted"]
    assert found["calibration"] == {"same": {"n": 10, "right": 10}, "different": {"n": 10, "right": 10}}
    row = found["suites"]["s"]["tuned"]
    assert (row["n"], row["ast"], row["asked"], row["same"], row["different"]) == (10, 6, 4, 3, 1)
    assert row["with_judge"] == 0.9
    # the scorer: 4 right, 4 wrong; the judge calls 3 of the wrong ones the same
    assert found["agreement"]["n"] == 8
    assert found["agreement"]["share"] == 5 / 8
    assert found["agreement"]["kappa"] == pytest.approx((5 / 8 - 0.5) / 0.5)
    assert {(row["id"], row["verdict"]) for row in found["items"]} == {
        ("i6", "same"), ("i7", "same"), ("i8", "same"), ("i9", "different"),
    }  # fmt: skip


def test_a_judge_that_always_agrees_is_not_trusted():
    items = [example(f"i{n}", {"text": f"buy thing{n}"}) for n in range(10)]
    found = judge({"s": {"tuned": [answered(item, {"text": "x"}) for item in items]}}, lambda _: True, pairs=10)
    assert not found["trusted"]
    assert found["calibration"]["different"]["right"] == 0


def test_nothing_to_judge_is_no_error():
    found = judge({"s": {"base": [answered(example("a"), condition="base")]}}, lambda _: True)
    assert found["suites"]["s"]["base"]["asked"] == 0
    assert not found["trusted"]


def test_right_answers_give_the_pairs_that_the_scorer_accepts():
    item = example("a", {"text": "Buy milk!", "minutes": 5})
    triple = answered(item, {"text": "Buy milk!", "minutes": 5})
    assert [(pair.argument, pair.given) for pair in agreed(*triple)] == [("text", "Buy milk!")]


class Server(http.server.BaseHTTPRequestHandler):
    """Speaks enough of OpenAI's protocol; refuses `response_format`, as stock servers may."""

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((body, self.headers.get("Authorization")))
        if "response_format" in body:
            self.answer(400, {"error": {"message": "response_format is not supported"}})
            return
        same = by_last_word(body["messages"])
        message = {"role": "assistant", "content": f"Surely. ```json\n{json.dumps({'same': same})}\n```"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.answer(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.seen = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running, f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()
        thread.join()


def test_a_server_is_asked_at_temperature_0_and_its_answers_are_remembered(address, tmp_path, monkeypatch):
    running, url = address
    monkeypatch.setenv("JUDGE_KEY", "secret-of-the-judge")
    pair = cases(*answered(example("a", {"text": "buy milk"}), {"text": "get milk"}))[0]
    settings = {"folder": None, "url": url, "model": "m", "key_variable": "JUDGE_KEY"}
    assert verdicts([pair], judges.chosen(settings, tmp_path / "judge.jsonl")) == [True]
    assert {body["temperature"] for body, _ in running.seen} == {0}
    assert {key for _, key in running.seen} == {"Bearer secret-of-the-judge"}
    assert len(running.seen) == 3  # once refused with a form, then two orders without
    assert b"secret" not in (tmp_path / "judge.jsonl").read_bytes()
    with open(tmp_path / "judge.jsonl", "ab") as stream:
        stream.write(b'\n{"key": "cut')
    assert verdicts([pair], judges.chosen(settings, tmp_path / "judge.jsonl")) == [True]
    assert len(running.seen) == 3


@pytest.mark.slow
def test_an_absent_server_is_one_clear_line():
    ask = judges.server("http://127.0.0.1:9/v1", "m")
    with pytest.raises(CallwrightError, match="the judge at http://127.0.0.1:9/v1"):
        ask([{"role": "user", "content": "?"}])


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"same": true}', True),
        ('x {"a": 1} {"same": false}', False),
        ('{"same": "yes"}', None),
        ("", None),
        ("{[", None),
    ],
)
def test_verdicts_are_read_out_of_whatever_is_written(text, verdict):
    assert judges.read_verdict(text) is verdict


def test_a_local_model_takes_the_likelier_of_the_two_verdicts(model_folder):
    import mlx.core as mx

    ask = judges.local(model_folder)
    pair = cases(*answered(example("a", {"text": "buy milk"}), {"text": "get milk"}))[0]
    assert ask(question(pair, False)) in (True, False)
    # the score is the sum over the answer's tokens, as a token by token twin says
    from callwright.models.load import load

    model, tokenizer = load(model_folder)
    prompt = "The capital of France is"
    start, whole = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, prompt + " Paris."))
    assert whole[: len(start)] == start
    total = 0.0
    for end in range(len(start), len(whole)):
        logits = model(mx.array([whole[:end]]))[0, -1]
        total += (logits[whole[end]] - mx.logsumexp(logits)).item()
    assert judges.log_likelihood(model, tokenizer, prompt, " Paris.") == pytest.approx(total, abs=1e-3)
    with pytest.raises(CallwrightError, match="is not there"):
        judges.local(model_folder / "nowhere")
