"""The loop of call, execute and answer, and the command around it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import mlx.core as mx
import pytest
from fixtures_gemma import make_gemma

from callwright import cli
from callwright.agent.loop import DECLINED, REPEATED, STOPPED, Agent, assistant, tool_message
from callwright.agent.models import LocalModel, RemoteModel, Reply
from callwright.agent.toolbox import AgentTool, CallFailed, Toolbox
from callwright.chat.parse import Parsed
from callwright.chat.template import plain_message
from callwright.commands import agent as command
from callwright.data.records import check_messages
from callwright.models.convert import convert
from callwright.runtime.errors import CallwrightError

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Script:
    """A model that says what it was told to say, and keeps what it was shown."""

    def __init__(self, *replies):
        self.replies, self.shown, self.may_call = list(replies), [], []

    def answer(self, messages, tools, may_call=True):
        self.shown.append(json.loads(json.dumps(messages)))
        self.may_call.append(may_call)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Silent:
    """Keeps what would be seen."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, kind):
        return lambda what: self.seen.append((kind, what))


def square(arguments):
    if arguments["n"] < 0:
        raise CallFailed("too small")
    return str(arguments["n"] ** 2)


def box():
    function = {"name": "square", "description": "Square a number.", "parameters": NUMBER}
    return Toolbox([AgentTool({"type": "function", "function": function}, square, "test")])


def call(n, name="square"):
    return {"name": name, "arguments": {"n": n}}


def asked(*replies, decisions="y", **options):
    decide = iter(decisions * 99 if len(decisions) == 1 else decisions)
    model, view = Script(*replies), Silent()
    agent = Agent(model, box(), lambda _: next(decide), view, **options)
    return agent, model, view


def results(model, turn=-1):
    return [message["content"] for message in model.shown[turn] if message["role"] == "tool"]


def test_calls_are_made_and_their_results_shown_to_the_model():
    agent, model, view = asked(Reply("Let me see.", [call(3), call(4)]), Reply("9 and 16."))
    ending = agent.ask("Squares of 3 and 4?")
    assert (ending.why, ending.text, len(ending.made)) == ("answered", "9 and 16.", 2)
    assert results(model) == ["9", "16"]
    assert model.may_call == [True, False]  # one round of calls, then words
    for messages in model.shown:
        check_messages(messages)
    made = model.shown[1][1]["tool_calls"]
    assert [one["id"] for one in made] == [m["tool_call_id"] for m in model.shown[1] if m["role"] == "tool"]
    assert plain_message(model.shown[1][1])["tool_calls"][0]["function"]["arguments"] == {"n": 3}
    assert [kind for kind, _ in view.seen] == ["says", "call", "result", "call", "result", "says"]


def test_without_words_it_ends_with_the_results():
    agent, model, view = asked(Reply("", [call(3)]), Reply("Which one?"), speak=False)
    assert agent.ask("Square of 3?").why == "answered"
    assert view.seen[-1][1].text == "9"
    assert len(model.shown) == 1
    assert agent.ask("Hello").text == "Which one?"


def test_what_may_not_be_made_is_not_made():
    wrong = [call("3"), call(1, "cube"), call(-2)]
    agent, model, _ = asked(Reply("", wrong), Reply("Sorry."))
    ending = agent.ask("…")
    texts = results(model)
    assert "not of type 'integer'" in texts[0]
    assert "there is no tool 'cube'" in texts[1]
    assert texts[2] == "error: too small"
    assert [one["arguments"]["n"] for one, _ in ending.made] == [-2]


def test_the_user_decides():
    agent, model, _ = asked(Reply("", [call(1), call(2)]), Reply("Well."), decisions="ny")
    ending = agent.ask("…")
    assert [one["arguments"]["n"] for one, _ in ending.made] == [2]
    assert results(model) == [DECLINED, "4"]
    agent, model, _ = asked(Reply("", [call(1), call(2), call(3)]), decisions="yq")
    ending = agent.ask("…")
    assert ending.why == "stopped"
    assert [one["arguments"]["n"] for one, _ in ending.made] == [1]
    assert [m["content"] for m in agent.messages if m["role"] == "tool"] == ["1", STOPPED, STOPPED]
    check_messages(agent.messages)


def test_rounds_end():
    agent, _, view = asked(*[Reply("", [call(n)]) for n in range(4)], rounds=3)
    ending = agent.ask("…")
    assert ending.why == "rounds"
    assert len(ending.made) == 3
    assert "--rounds" in view.seen[-1][1]
    agent, model, _ = asked(Reply("", [call(2), call(2)]), Reply("", [call(2)]), rounds=9)
    ending = agent.ask("…")
    assert (ending.why, len(ending.made)) == ("repeated", 1)
    assert results(model) == ["4", REPEATED]


def test_answers_that_cannot_be_read():
    for reply in (Reply(problems=["broken"]), Reply(), Reply("I wi", cut=True)):
        agent, _, view = asked(reply)
        assert agent.ask("…").why == "unreadable"
        assert any(kind == "note" for kind, _ in view.seen)


def test_a_question_back_is_remembered_and_a_finished_request_is_not():
    agent, model, _ = asked(Reply("Which number?"), Reply("", [call(5)]), Reply("25."), Reply("Yes?"))
    agent.ask("A square, please.")
    agent.ask("Of 5.")
    assert [m["content"] for m in model.shown[1]] == ["A square, please.", "Which number?", "Of 5."]
    agent.ask("Hello")
    assert [m["content"] for m in model.shown[3]] == ["Hello"]
    agent, model, _ = asked(Reply("", [call(5)]), Reply("25."), Reply("Yes?"), keep=True)
    agent.ask("Square 5")
    agent.ask("Hello")
    assert len(model.shown[2]) == 5


def test_an_error_leaves_the_conversation_as_it_was():
    agent, _, _ = asked(Reply("Which?"), CallwrightError("too long"), Reply("Fine."))
    agent.ask("One")
    with pytest.raises(CallwrightError):
        agent.ask("Two")
    agent.ask("Three")
    assert [m["content"] for m in agent.messages] == ["One", "Which?", "Three", "Fine."]


def test_a_model_of_this_machine_answers_under_the_grammar(tmp_path):
    """A random model writes nonsense; what it may write is a call that can be made, or words."""
    convert(make_gemma(tmp_path / "source", layers=2, width=32), {}, tmp_path / "model")
    tools, messages = box().definitions, [{"role": "user", "content": "What is the square of 3?"}]
    model = LocalModel(tmp_path / "model", None, 24)
    words = model.answer(messages, tools, may_call=False)
    assert words.cut or words.text
    assert (words.calls, words.problems) == ([], [])
    reply = model.answer(messages, tools)
    assert reply.cut or reply.text or reply.calls
    assert all(box().problem(one) is None for one in reply.calls)
    asked = [*messages, assistant("", [call(3)], 1), tool_message(call(3), "call_1_0", "9")]
    assert isinstance(model.answer(asked, tools, may_call=False), Reply)
    model.max_tokens = 10**6
    with pytest.raises(CallwrightError, match="the model's context leaves"):
        model.answer(messages, tools)
    with pytest.raises(CallwrightError, match="is not there"):
        LocalModel(tmp_path / "nothing", None, 24)


def test_calls_are_held_against_what_was_said(tmp_path, monkeypatch):
    """As the server does it, where the run's decision says so."""
    convert(make_gemma(tmp_path / "source", layers=2, width=32), {}, tmp_path / "model")
    model = LocalModel(tmp_path / "model", None, 24)
    parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tools = [{"type": "function", "function": {"name": "square", "parameters": parameters}}]
    parsed = Parsed([{"name": "square", "arguments": {"n": 17}}])
    monkeypatch.setattr(type(model.form), "read", lambda *_: parsed)

    def answered(text, **decided):
        model.decided = {"threshold": 0.0, "temperature": 1.0, **decided}
        reply = model.answer([{"role": "user", "content": text}], tools)
        return reply.text, [one["arguments"]["n"] for one in reply.calls]

    assert answered("square it") == ("", [17])
    own = {"square": {"n": "Of what?"}}
    assert answered("square it", grounding="ask", questions=own) == ("Of what?", [])
    assert answered("square it", grounding="ask") == ("I need one more detail. Which n should I use?", [])
    assert answered("the square of 3", grounding="ask") == ("", [3])


ANSWERS = [
    {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}]},
    {"content": "That makes five."},
]


@pytest.fixture
def server():
    """A server of OpenAI's protocol that gives ANSWERS in turn; `.bodies` is what it was asked."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.reply({"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "me"}]})

        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            message = {"role": "assistant", "content": None, **ANSWERS[(len(bodies) - 1) % len(ANSWERS)]}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.reply({"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [choice]})

        def reply(self, value):
            text = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{httpd.server_port}/v1", bodies=bodies)
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_server_is_asked_through_the_openai_client(server):
    model = RemoteModel(server.url, None, 50)
    assert model.name == "tiny"
    tools = box().definitions
    reply = model.answer([{"role": "user", "content": "2 + 3?"}], tools)
    assert reply.calls == [{"name": "add", "arguments": {"a": 2, "b": 3}}]
    assert model.answer([{"role": "user", "content": "?"}], tools, may_call=False).text == "That makes five."
    assert [body["tool_choice"] for body in server.bodies] == ["auto", "none"]
    assert server.bodies[0]["tools"] == tools
    with pytest.raises(CallwrightError, match="127.0.0.1:9"):
        RemoteModel("http://127.0.0.1:9/v1", None, 50)


@pytest.fixture
def adding(tmp_path):
    path = tmp_path / "adding.py"
    path.write_text('def add(a: int, b: int) -> int:\n    """Add two numbers."""\n    return a + b\n')
    return str(path)


def test_the_command(server, adding, capsys):
    arguments = ["agent", "--tools", adding, "--server", server.url, "--yes", "What is 2 + 3?"]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == "-> add(a=2, b=3)\n   = 5\nThat makes five.\n"
    assert "tiny at http://127.0.0.1" in err
    assert server.bodies[1]["messages"][-1]["content"] == "5"


def test_without_a_terminal_calls_are_refused_at_once(adding, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert cli.main(["agent", "--tools", adding, "--server", "http://127.0.0.1:9/v1", "Hi"]) == 1
    assert "add --yes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Hi"], "there are no tools"),
        (["--tools", "x.py", "--server", "u", "--adapter", "a", "Hi"], "--adapter is for a model of this machine"),
        (["--tools", "x.py", "--timeout", "0", "Hi"], "--timeout"),
        (["--tools", "x.py", " "], "the request is empty"),
    ],
)
def test_wrong_usage(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["agent", "--yes", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_which_model_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = SimpleNamespace(model=None, adapter=None)
    with pytest.raises(CallwrightError, match="no tuned model is here"):
        command.which_model(options)

    def trained(run, width, age):
        path = tmp_path / "results" / run / "adapter" / "adapters.safetensors"
        path.parent.mkdir(parents=True)
        mx.save_safetensors(str(path), {"model.layers.1.self_attn.q_proj.lora_a": mx.zeros((width, 2))})
        os.utime(path, (age, age))

    trained("default", 8, 1e9)
    for model, width in (("small", 8), ("large", 16)):
        folder = tmp_path / "results" / "models" / model / "mlx"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"hidden_size": width, "num_hidden_layers": 2}))
    folder, adapter = command.which_model(options)
    assert (str(folder), str(adapter)) == ("results/models/small/mlx", "results/default/adapter")
    trained("mine", 16, 1e9 + 5)
    folder, adapter = command.which_model(options)
    assert (str(folder), str(adapter)) == ("results/models/large/mlx", "results/mine/adapter")
    named = SimpleNamespace(model=None, adapter="results/default/adapter")
    assert str(command.which_model(named)[0]) == "results/models/small/mlx"
    trained("odd", 32, 1e9 + 6)
    with pytest.raises(CallwrightError, match="there are 2 models"):
        command.which_model(options)
    for age, run in enumerate(["new", "old"]):
        path = tmp_path / "results" / run / "package" / "model" / "config.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (2e9 - age, 2e9 - age))
    folder, adapter = command.which_model(options)
    assert (str(folder), adapter) == ("results/new/package/model", None)
    given = SimpleNamespace(model="m", adapter="a")
    assert list(map(str, command.which_model(given))) == ["m", "a"]


def test_what_is_shown_cannot_rewrite_the_terminal(capsys):
    command.Console().call({"name": "go", "arguments": {"to": "\x1b[2Jü"}})
    command.Console().says("\x1b[31mred\nline")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "ü" in out
    assert out.count("\n") == 3


def start(arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(cli.__file__).rpartition("/callwright/")[0]}
    return subprocess.Popen(
        [sys.executable, "-m", "callwright.cli", "agent", *arguments], env=environment, **options
    )  # fmt: skip


def read_until(descriptor, text, seconds=60):
    found, until = "", time.monotonic() + seconds
    while text not in found and time.monotonic() < until:
        if select.select([descriptor], [], [], 0.5)[0]:
            found += os.read(descriptor, 1).decode(errors="replace")  # no more than is asked for
    assert text in found
    return found


def test_at_a_terminal_calls_are_confirmed_and_requests_follow_each_other(server, adding):
    terminal, other = pty.openpty()
    process = start(["--tools", adding, "--server", server.url], stdin=other, stdout=other, stderr=other)
    os.close(other)
    try:
        read_until(terminal, "> ")
        os.write(terminal, b"What is 2 + 3?\n")
        assert "add(a=2, b=3)" in read_until(terminal, "[y/n/w/q] ")
        os.write(terminal, b"maybe\n")
        read_until(terminal, "[y/n/w/q] ")
        os.write(terminal, b"y\n")
        assert "= 5" in read_until(terminal, "five.")
        read_until(terminal, "> ")
        os.write(terminal, b"Again!\n")
        read_until(terminal, "[y/n/w/q] ")
        os.write(terminal, b"q\n")
        read_until(terminal, "> ")
        os.write(terminal, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc to see processes")
def test_a_signal_ends_functions_too(server, tmp_path):
    path = tmp_path / "slow.py"
    mark = tmp_path / "pid"
    path.write_text(
        "import os, time\ndef add(a: int, b: int) -> int:\n    'Add.'\n"
        f"    open({str(mark)!r}, 'w').write(str(os.getpid()))\n    time.sleep(600)\n"
    )
    process = start(
        ["--tools", str(path), "--server", server.url, "--yes", "go"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        for _ in range(1200):
            if mark.exists() and mark.read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        assert not os.path.exists(f"/proc/{mark.read_text()}")
    finally:
        process.kill()
        process.communicate()
