"""The check of a served model: a real run with a tiny model, what it says of servers that do wrong, and their end."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from fixtures_serve import TIME, WEATHER, make_folder, wait_until

from callwright.chat.formats import encode_calls
from callwright.chat.openai_messages import openai_messages
from callwright.chat.tokens import prompt_ids
from callwright.data.records import Example
from callwright.models.load import load, load_tokenizer
from callwright.runtime import threads
from callwright.runtime.errors import CallwrightError
from callwright.serve.check import child
from callwright.serve.check.ask import Asked
from callwright.serve.check.compare import FAILED, NOT_SHOWN, OK, SHOWN, as_text, check_server
from callwright.serve.check.verify import verify, write_float32

TOOLS = [TIME, WEATHER]


def example(number, text, calls=(), answer=None):
    return Example(f"item-{number}", [{"role": "user", "content": text}], TOOLS, list(calls), "test", (), answer)


NOW = {"name": "now", "arguments": {"zone": "utc"}}
PARIS = {"name": "weather", "arguments": {"city": "Paris"}}
EXAMPLES = [
    example(0, "What time is it?", [NOW]),
    example(1, "Time and weather in Paris?", [NOW, PARIS]),
    example(2, "Hi", answer="Hello."),
    example(3, "Bye", answer="Farewell."),
]


def row(example):
    text = encode_calls(example.calls) if example.calls else example.answer
    return {"id": example.id, "suite": "", "condition": "", "finish_reason": "stop", "text": text}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("checked"))


class Server:
    """Stands for a server and its client: answers as `EXAMPLES` expect, but for what a test changes."""

    def __init__(self, tokenizer, change=lambda asked, messages, options: asked, at_once=lambda answers: answers):
        self.tokenizer, self.change, self.at_once = tokenizer, change, at_once

    def ask(self, messages, tools, **options):
        wanted = next((e for e in EXAMPLES if openai_messages(e.messages) == messages), None)
        calls, content = (list(wanted.calls), wanted.answer or "") if wanted else ([], "Done.")
        asked = Asked(content, calls, "tool_calls" if calls else "stop", None, output_tokens=40)
        if options.get("max_tokens", 100) < 40 and calls:
            asked = Asked("", calls[:-1], "length", "cut", output_tokens=36)
        asked.prompt_tokens = len(prompt_ids(self.tokenizer, messages, tools))
        return self.change(asked, messages, options)

    def ask_all(self, examples, clients):
        answers = [self.ask(openai_messages(e.messages), e.tools) for e in examples]
        return (self.at_once(answers) if clients > 1 else answers), 1.0


def verdicts(folder, **options):
    tokenizer = load_tokenizer(folder)
    found = check_server(Server(tokenizer, **options), tokenizer, EXAMPLES, [row(e) for e in EXAMPLES], [1, 4])
    return found, {finding["check"]: finding["verdict"] for finding in found["findings"]}


def test_a_server_that_does_right(folder):
    found, verdict = verdicts(folder)
    assert found["ok"]
    assert set(verdict.values()) == {OK}
    assert verdict.keys() >= {"answered", "score", "prompts", "one call", "parallel calls", "no call", "streaming"}
    assert verdict.keys() >= {"results", "cut call", "4 clients"}
    assert (found["ast"], found["offline_ast"], found["same_text_as_offline"]) == (1.0, 1.0, 4)
    assert list(found["load"]) == ["1", "4"]


def vanished(asked, messages, options):
    asked.refusal = None
    return asked


def dropped(asked, messages, options):
    asked.calls = asked.calls[:1]
    return asked


def deaf(asked, messages, options):
    return Asked(failure="timeout") if len(messages) > 1 else asked


def counting(asked, messages, options):
    asked.prompt_tokens += 1
    return asked


def other_stream(asked, messages, options):
    if options.get("stream"):
        asked.calls = []
    return asked


@pytest.mark.parametrize(
    ("options", "check", "verdict"),
    [
        ({"change": vanished}, "cut call", SHOWN),
        ({"change": dropped}, "score", FAILED),
        ({"change": dropped}, "parallel calls", FAILED),
        ({"change": deaf}, "results", FAILED),
        ({"change": counting}, "prompts", FAILED),
        ({"change": other_stream}, "streaming", FAILED),
        ({"at_once": lambda answers: answers[::-1]}, "4 clients", FAILED),
        ({"at_once": lambda answers: [*answers[:3], Asked(failure="lost")]}, "4 clients", FAILED),
        ({"at_once": lambda answers: [*answers[:3], Asked("Farewell!", [], prompt_tokens=answers[3].prompt_tokens)]},
         "4 clients", OK),
    ],
)  # fmt: skip
def test_what_a_server_does_wrong_is_found(folder, options, check, verdict):
    found, verdict_of = verdicts(folder, **options)
    assert verdict_of[check] == verdict
    assert found["ok"] == (verdict != FAILED)


def test_messages_as_openai_wants_them_have_the_same_prompt(folder):
    tokenizer = load_tokenizer(folder)
    said = {"role": "assistant", "content": None, "tool_calls": [
        {"function": NOW}, {"type": "function", "function": {**PARIS, "arguments": '{"city": "Paris"}'}},
    ]}  # fmt: skip
    results = [{"role": "tool", "content": "a"}, {"role": "tool", "content": "b"}]
    messages = [*EXAMPLES[0].messages, said, *results]
    sent = openai_messages(messages)
    ids = [call["id"] for call in sent[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in sent[2:]] == ids
    assert all(isinstance(call["function"]["arguments"], str) for call in sent[1]["tool_calls"])
    assert prompt_ids(tokenizer, sent, TOOLS) == prompt_ids(tokenizer, messages, TOOLS)


def test_both_servers_for_real(folder, tmp_path):
    """A tiny random model, quantized: it makes no call, but its words must come through both servers unchanged."""
    settings = {"items": 3, "clients": [1, 3], "max_output_tokens": 8, "batch_size": 2}
    found = verify(folder, EXAMPLES, settings, tmp_path / "work")
    for server in found["servers"].values():
        verdict = {finding["check"]: finding["verdict"] for finding in server["findings"]}
        assert verdict["answered"] == verdict["score"] == verdict["prompts"] == verdict["streaming"] == OK, server
        assert verdict["3 clients"] == OK
        assert verdict["one call"] == NOT_SHOWN
        # Bytes that are no UTF-8, which a random model writes, look different in pieces; a trained one writes none.
        assert server["same_text_as_offline"] >= 2
        assert server["load"]["3"]["lost"] == 0
    assert found["ok"]
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["callwright.log", "stock.log"]
    text = as_text({**found, "run": "r", "suite": "test_seen"})
    assert "## mlx_lm.server" in text
    assert "## callwright serve" in text
    json.dumps(found)


def test_a_copy_in_float32_is_the_same_model(folder, tmp_path):
    import mlx.core as mx

    write_float32(folder, tmp_path)
    ids = mx.array([[5, 6, 7, 8]])
    with threads.blas_threads(1):
        model, _ = load(folder)
        copy, tokenizer = load(tmp_path)
        assert mx.allclose(model(ids), copy(ids), atol=1e-5)
    assert tokenizer.tool_parser is not None


def sleeper(tmp_path, body="", name="sleeper"):
    """A module that says it is well, has a child of its own and does not end at SIGTERM."""
    (tmp_path / f"{name}.py").write_text(f"""
import http.server, os, signal, subprocess, sys
{body}
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
""")
    return SimpleNamespace(__name__=name)


def gone(tmp_path):
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    alive = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
    return not alive


@pytest.fixture
def stubborn(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "launch", sleeper(tmp_path))
    monkeypatch.setattr(child, "PATIENCE", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_a_server_is_ended_with_all_its_children_whatever_happens(stubborn, ending):
    def run():
        with child.running("stock", [], stubborn / "log"):
            assert not gone(stubborn)
            if ending:
                raise ending

    if ending:
        with pytest.raises(ending):
            run()
    else:
        run()
    assert wait_until(lambda: gone(stubborn))


def test_a_server_that_does_not_come_up(stubborn, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "launch", sleeper(tmp_path, "sys.exit('no memory')", "dying"))
    with pytest.raises(CallwrightError, match="status 1 .* no memory"), child.running("stock", [], stubborn / "log"):
        pass
    monkeypatch.setattr(child, "launch", sleeper(tmp_path, "import time; time.sleep(600)", "silent"))
    start = psutil.Process().children()
    with (
        pytest.raises(CallwrightError, match="did not answer within 1 s"),
        child.running("stock", [], stubborn / "log", 1),
    ):
        pass
    assert psutil.Process().children() == start


def test_a_server_ends_when_whoever_checks_is_killed(folder, tmp_path, root):
    """Not by anything that the killed process does, but because the server follows it."""
    program = f"""
import sys, time
sys.path.insert(0, {str(root / "workflow" / "scripts")!r})
from callwright.serve.check.child import running
with running("callwright", [{str(folder)!r}], {str(tmp_path / "log")!r}) as address:
    print(address, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as checker:
        assert checker.stdout.readline().startswith("http://127.0.0.1:")
        (server,) = psutil.Process(checker.pid).children()
        os.kill(checker.pid, signal.SIGKILL)
        checker.wait()
    assert wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_the_command_serves_and_ends_in_order(folder, tmp_path, root):
    key = tmp_path / "key"
    key.write_text("k\n")
    command = [sys.executable, "-m", "callwright.cli", "serve", str(folder), "--port", "0", "--name", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(root / "workflow" / "scripts")}
    with subprocess.Popen(
        [*command, "--api-key-file", str(key)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving tiny at http://127.0.0.1:")
            import openai

            with openai.OpenAI(base_url=line.split()[-1], api_key="k", max_retries=0) as client:
                assert client.models.list().data[0].id == "tiny"
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert time.monotonic() - begun < 30
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
