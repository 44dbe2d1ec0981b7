"""The one client of servers that speak OpenAI's protocol: its key, its patience, and one clear line for a failure."""

import contextlib
import http.server
import json
import re
import threading

import pytest

from callwright.runtime.chat_server import ChatServer, RefusedRequest, open_client
from callwright.runtime.errors import CallwrightError
from callwright.runtime.provenance import LIBRARY

MODELS = {"object": "list", "data": [{"id": "first", "object": "model"}, {"id": "second", "object": "model"}]}
MESSAGE = {"role": "assistant", "content": "Hello."}
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": MESSAGE}],
}
ASKED = [{"role": "user", "content": "Hi"}]
JSON, HTML = "application/json", "text/html"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what the server has in `replies`, (status, type, text), the last one again and again."""

    def do_POST(self):  # noqa: N802
        length = int(self.headers.get("Content-Length") or 0)
        self.server.seen.append((self.headers.get("Authorization"), self.rfile.read(length)))
        replies = self.server.replies
        status, kind, text = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked waits no longer
            self.wfile.write(text.encode())

    do_GET = do_POST  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def running():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen, server.replies = [], [(200, JSON, json.dumps(ANSWER))]
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("value", "sent"), [(None, "none"), ("", "none"), (" \n", "none"), ("secret", "secret"), (" secret\n", "secret")]
)
def test_the_key_is_that_of_the_environment_without_blanks(running, monkeypatch, value, sent):
    monkeypatch.setenv("OPENAI_API_KEY", "of-another-server")
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    found = ChatServer(running.url, 5, key_variable="MY_KEY").complete("m", messages=ASKED, temperature=0)
    assert found.choices[0].message.content == "Hello."
    key, body = running.seen[0]
    assert key == f"Bearer {sent}"
    assert json.loads(body) == {"model": "m", "messages": ASKED, "temperature": 0}
    assert open_client(running.url, 5, key="given", key_variable="MY_KEY").api_key == "given"
    assert open_client(running.url, 5).api_key == "of-another-server"


def test_a_busy_server_is_asked_again_as_often_as_wanted(running):
    running.replies = [(503, JSON, "{}"), (429, JSON, "{}"), (200, JSON, json.dumps(ANSWER))]
    assert ChatServer(running.url, 5, retries=2).complete("m", messages=ASKED)
    assert len(running.seen) == 3
    running.replies = [(503, JSON, "{}")]
    with pytest.raises(CallwrightError, match="gives no answer"):
        ChatServer(running.url, 5, retries=0).complete("m", messages=ASKED)
    assert len(running.seen) == 4


def said(message):
    return json.dumps({"error": {"message": message}})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((401, JSON, said("bad\nkey")), ["refuses the key in MY_KEY", "bad"]),
        ((403, JSON, said("not yours")), ["refuses the key in MY_KEY", "not yours"]),
        ((404, JSON, said("gone")), ["knows no model 'm', or is no such server", "gone"]),
        ((400, JSON, said("too long")), ["refuses the request", "too long"]),
        ((500, JSON, said("oops")), ["gives no answer", "oops"]),
        ((200, HTML, "<html>\nWelcome"), ["something else than an answer", "/v1"]),
        ((200, JSON, "{no json"), ["something else than an answer", "/v1"]),
        ((200, JSON, "[]"), ["something else than an answer", "/v1"]),
        ((200, JSON, "3"), ["something else than an answer", "/v1"]),
        ((200, JSON, "{}"), ["something else than an answer", "/v1"]),
        ((200, JSON, json.dumps({**ANSWER, "choices": []})), ["something else than an answer", "/v1"]),
    ],
)
def test_each_failure_is_one_clear_line(running, reply, words):
    running.replies = [reply]
    server = ChatServer(running.url, 5, 0, "MY_KEY", who="the judge", kept="; all is kept")
    with pytest.raises(CallwrightError) as error:
        server.complete("m", messages=ASKED)
    text = str(error.value)
    assert text.startswith("the judge ")
    assert text.endswith("; all is kept")
    assert "\n" not in text
    for word in words:
        assert word in text
    assert isinstance(error.value, RefusedRequest) == (reply[0] == 400)


def test_a_request_that_is_refused_says_so_in_the_servers_own_words(running):
    for status in (400, 413, 422):
        running.replies = [(status, JSON, said("context of 8 tokens"))]
        with pytest.raises(RefusedRequest) as error:
            ChatServer(running.url, 5, 0).complete("m", messages=ASKED)
        assert "context of 8 tokens" in error.value.said
        assert str(error.value).startswith(f"the server {running.url} refuses the request")


def test_a_server_that_is_not_there_or_too_slow(running):
    with pytest.raises(CallwrightError, match=r"the server http://127.0.0.1:9/v1 does not answer .*is it running"):
        ChatServer("http://127.0.0.1:9/v1", 5, 0).complete("m", messages=ASKED)
    for url in ("127.0.0.1:9/v1", "notaurl", "ftp://127.0.0.1/v1", "http:///v1"):
        with pytest.raises(CallwrightError, match=rf"^'{url}' is no address of a server.*: expected one like http://"):
            ChatServer(url, 5, 0)
    with pytest.raises(CallwrightError, match=r"'http://\[::1' is no address of a server .*http://127.0.0.1:8080/v1"):
        ChatServer("http://[::1", 5)
    held = threading.Event()
    running.replies = Held(held)
    with pytest.raises(CallwrightError, match="gives no answer in time"):
        ChatServer(running.url, 0.2, 0).complete("m", messages=ASKED)
    held.set()


class Held(list):
    """Replies that do not come before an event."""

    def __init__(self, event):
        super().__init__([(200, JSON, json.dumps(ANSWER))])
        self.event = event

    def __len__(self):
        self.event.wait(20)
        return 1


def test_the_first_model(running):
    running.replies = [(200, JSON, json.dumps(MODELS))]
    assert ChatServer(running.url, 5).first_model() == "first"
    running.replies = [(200, JSON, json.dumps({**MODELS, "data": []}))]
    with pytest.raises(CallwrightError, match="lists no model: name one"):
        ChatServer(running.url, 5).first_model()
    running.replies = [(200, HTML, "<html>")]
    with pytest.raises(CallwrightError, match="something else than an answer"):
        ChatServer(running.url, 5).first_model()
    running.replies = [(200, JSON, json.dumps({**MODELS, "data": [{"object": "model"}]}))]
    with pytest.raises(CallwrightError, match="lists a model without a name"):
        ChatServer(running.url, 5).first_model()
    running.replies = [(404, JSON, said("no page"))]
    with pytest.raises(CallwrightError, match=r"is no such server \(.*no page"):
        ChatServer(running.url, 5).first_model()


def test_nobody_else_opens_a_client():
    opens = re.compile(r"\bopenai\.(Async)?OpenAI\(|from openai import")
    found = {path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py") if opens.search(path.read_text())}
    assert found == {"runtime/chat_server.py", "commands/serve.py"}, "commands/serve.py shows it in its help"
