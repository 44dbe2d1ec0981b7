"""A tiny random model that is served for real, and says what a request asks it to say."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
from fixtures_gemma import make_gemma

from callwright.chat.tokens import encode
from callwright.models.convert import convert
from callwright.models.load import load
from callwright.serve.app import Service
from callwright.serve.limits import Limits
from callwright.serve.model import ServedModel
from callwright.serve.server import listen, make_server

SAY = "SAY:"


def tool(name: str, required: list[str] = (), **properties) -> dict:
    """An OpenAI tool."""
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TIME = tool("now", zone={"type": "string", "enum": ["utc", "local"]})
WEATHER = tool("weather", ["city"], city={"type": "string"}, days={"type": "integer"})


def make_folder(folder: Path) -> Path:
    """A tiny random Gemma 3 as a model folder that is ready to serve."""
    convert(make_gemma(folder / "source", layers=2, width=32), {}, folder / "model")
    return folder / "model"


class Obedient(ServedModel):
    """The real thing, but for one logits processor more: it prefers what stands after `SAY:` in the last message.

    It comes after the grammar, so what that forbids is not said.
    """

    def script(self, request):
        """The tokens to say, None for whatever comes."""
        _, marker, wanted = request.messages[-1]["content"].partition(SAY)
        return [*encode(self.tokenizer, wanted), *sorted(self.stop_ids)[:1] * 2] if marker else None

    def processor(self, request):
        grammar = super().processor(request)
        script = self.script(request)
        if script is None:
            return grammar
        start = []

        def process(tokens: mx.array, logits: mx.array) -> mx.array:
            if grammar is not None:
                logits = grammar(tokens, logits)
            start.append(tokens.size)
            place = tokens.size - start[0]
            if place < len(script):
                logits = mx.where(mx.arange(logits.shape[-1]) == script[place], logits + 1e4, logits)
            return logits

        return process


@contextlib.contextmanager
def served(model: ServedModel, limits: Limits, attach=None, **options) -> Iterator[tuple[str, Service]]:
    """The address of a running server for `model`, in a thread of this process, and its state.

    `attach` gets the service before it is started.
    """
    service = Service(model, limits, **options)
    if attach is not None:
        attach(service)
    listening = listen("127.0.0.1", 0)
    server = make_server(service, limits, grace=2)
    ready = threading.Event()
    server.ready = ready.set
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(60)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert not service.engine.alive


def open_obedient(folder: Path, **options) -> Obedient:
    """The model of `make_folder`."""
    model, tokenizer = load(folder)
    return Obedient(model, tokenizer, "tiny", **options)


def wait_until(true, seconds: float = 30.0) -> bool:
    """Wait for something that another thread does; False when it does not happen."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
