"""Let a model use tools: your Python functions, and those of MCP servers.

The model calls, each call is checked against the tool's schema, shown and, unless --yes is given, confirmed (y:
make it, n: tell the model that you declined, w: say what would have been right, q: stop here), made, and its result
shown and handed to the model. Without a REQUEST, requests are read one after the other; Ctrl-D ends. `wrong:
tool(name="value")`, `wrong: ask: …` and `wrong: decline` correct the last answer: corrections are training examples
of the next run (config key `corrections`).

Without --model, --adapter and --server the model answers that was packaged or trained last (results/*/package/model,
results/*/adapter); which one is said. A small model that was tuned on single requests
calls tools, but says nothing sensible about their results: these are shown, and it is only asked with --speak.

Python functions run in a process of their own with your rights, MCP servers as programs of yours: name only files and
commands that you trust. A call that takes longer than --timeout is ended, its process with it.
"""

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from callwright.commands import shared
from callwright.runtime.errors import CallwrightError

EXAMPLES = """examples:
  callwright agent --tools mytools.py "Remind me to call the bank at 3 pm"
  callwright agent --tools mytools.py --model results/models/smollm2-135m-instruct/mlx --adapter results/default/adapter
  callwright agent --mcp "python -m mcp_server_time" --yes "What time is it in Tokyo?"
  callwright agent --tools a.py --mcp "npx -y some-server" --server http://127.0.0.1:8080/v1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("request", metavar="REQUEST", nargs="?", help="what you want; default: ask again and again")
    tools = parser.add_argument_group("tools")
    tools.add_argument(
        "--tools", metavar="FILE", action="append", default=[], help="a Python file of functions; several"
    )
    tools.add_argument(
        "--mcp", metavar="COMMAND", action="append", default=[], help="starts an MCP server (stdio); several allowed"
    )
    tools.add_argument("--yes", action="store_true", help="make calls without asking")
    tools.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="of one call (default 30)")
    tools.add_argument("--rounds", type=count, metavar="N", help="of calls and results (default 1, with --server 5)")
    tools.add_argument("--corrections", metavar="FILE", default="corrections.jsonl", help="where corrections are kept "
                       "(default: %(default)s)")  # fmt: skip
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="FOLDER", help="model folder; with --server, the model's name there")
    model.add_argument("--adapter", metavar="FOLDER", help="LoRA weights to put on it")
    model.add_argument("--server", metavar="URL", help="an OpenAI-compatible server (its key in OPENAI_API_KEY)")
    model.add_argument("--max-tokens", type=count, default=256, metavar="N", help="of one answer (default 256)")
    model.add_argument("--no-tool-encoder", action="store_true", help="let the model alone decide and name the tools")
    model.add_argument("--no-grammar", action="store_true", help="let the model write calls that cannot be read")
    model.add_argument("--speak", action="store_true", help="ask for words about the results (with --server always)")
    model.add_argument("--keep-history", action="store_true", help="show the model all earlier requests and results")


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def seconds(text: str) -> float:
    """A time above 0, not longer than a day."""
    number = float(text)
    if not 0 < number <= 86_400:
        raise ValueError(text)
    return number


def run(options: argparse.Namespace) -> int:
    """Open tools and model, answer, and close all, whatever happens."""
    shared.quiet_logs()
    check(options)
    from callwright.agent.corrections import Corrector
    from callwright.agent.loop import Agent
    from callwright.data.corrections import CorrectionStore

    with signals_end_it(), open_tools(options) as toolbox:
        for text in toolbox.notes:
            shared.note(text)
        rounds = options.rounds or (5 if options.server else 1)
        speak = options.speak or bool(options.server)
        corrector = Corrector(
            CorrectionStore(options.corrections), toolbox.definitions, options.model or options.adapter or ""
        )
        approve = (lambda _: "y") if options.yes else lambda _: confirm(lambda text: taught(corrector, agent, text))
        agent = Agent(open_model(options), toolbox, approve, Console(), rounds, options.keep_history, speak)
        if options.request is not None:
            return status(agent.ask(options.request))
        shared.note(f"{len(toolbox.tools)} tools: {shared.some(list(toolbox.tools))}. Ctrl-D ends; `wrong: …` corrects")

        def ask(request: str) -> None:
            word, colon, rest = request.partition(":")
            if colon and word.strip().casefold() == "wrong":
                taught(corrector, agent, rest)
            else:
                agent.ask(request)

        return converse(ask)


def check(options: argparse.Namespace) -> None:
    """Raise CallwrightError for what cannot work, before anything is started."""
    if not options.tools and not options.mcp:
        options.usage_error("there are no tools: name a file with --tools or a server with --mcp")
    if options.server and options.adapter:
        options.usage_error("--adapter is for a model of this machine, not for --server")
    if options.request is not None and not options.request.strip():
        options.usage_error("the request is empty")
    if not options.yes and not sys.stdin.isatty():
        raise CallwrightError(
            "each call is confirmed at a terminal, and standard input is none: add --yes to make calls without asking"
        )


@contextlib.contextmanager
def signals_end_it() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process as an error does, so that servers and functions are ended too."""
    before = {
        number: signal.signal(number, lambda n, _: sys.exit(128 + n)) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def open_tools(options: argparse.Namespace) -> Iterator[Any]:
    """The toolbox of all sources, which end with it."""
    from callwright.agent.functions import Functions
    from callwright.agent.toolbox import Toolbox

    with contextlib.ExitStack() as stack:
        found: list[Any] = []
        left_out: list[str] = []
        for path in options.tools:
            functions = stack.enter_context(Functions(path, options.timeout))
            found, left_out = found + functions.tools, left_out + functions.problems
        if options.mcp:
            from callwright.agent.mcp_client import McpServers

            servers = stack.enter_context(McpServers(options.mcp, options.timeout))
            found, left_out = found + servers.tools, left_out + servers.problems
        yield Toolbox(found, left_out)


def open_model(options: argparse.Namespace) -> Any:
    """The model that the options name, or the default one."""
    from callwright.agent.models import LocalModel, RemoteModel

    if options.server:
        model = RemoteModel(options.server, options.model, options.max_tokens)
        shared.note(f"model: {model.name} at {options.server}")
        return model
    from callwright.runtime import device

    folder, adapter = which_model(options)
    shared.note(f"loading the model: {folder}" + (f" with {adapter}" if adapter else ""))
    device.configure(0, "auto")
    begun = time.monotonic()
    model = LocalModel(folder, adapter, options.max_tokens, not options.no_grammar, not options.no_tool_encoder)
    shared.note(f"loaded in {time.monotonic() - begun:.0f} s; the first answer reads all tools and takes longest")
    return model


def which_model(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """The model folder and the adapter, if any: those that are named, else what was packaged or trained last."""
    if options.adapter:
        return shared.find_model(options.model, options.adapter, Path(options.adapter)), Path(options.adapter)
    if options.model:
        return Path(options.model), None
    made = [
        *Path("results").glob("*/package/model/config.json"),
        *Path("results").glob("*/adapter/adapters.safetensors"),
    ]
    if not made:
        raise CallwrightError(
            "no tuned model is here (results/*/package/model, results/*/adapter): run the workflow first, or ask one "
            "that was not tuned for your tools: `--adapter adapters/smollm2-135m`, with the model that "
            "`snakemake --cores 1 --until convert_model` makes"
        )
    last = max(made, key=lambda path: path.stat().st_mtime).parent
    if last.name == "model":
        return last, None
    return shared.find_model(None, adapter=last), last


def confirm(correct: Callable[[str], bool]) -> str:
    """The user's decision about the call that was just shown: y, n or q; the end of the input is q.

    `w` is a no, after which `correct` gets what would have been right, until it takes it or nothing is written.
    """
    while True:
        try:
            answer = input("   make this call? [y/n/w/q] ").strip()
            word, colon, rest = answer.partition(":")
            if word.strip().casefold() in ("w", "wrong"):
                rest = rest.strip() or input("   what would have been right? ").strip()
                while rest and not correct(rest):
                    rest = input("   what would have been right? ").strip()
                return "n"
        except EOFError:
            print()
            return "q"
        if answer.casefold() in ("y", "yes", "n", "no", "q", "quit"):
            return answer[0].casefold()


def taught(corrector: Any, agent: Any, written: str) -> bool:
    """Keep a correction of the last answer, and say so; False when it is not understood."""
    from callwright.agent.corrections import NotUnderstood

    try:
        made = corrector.add(agent.messages, written)
    except NotUnderstood as error:
        print(f"   {error}")
        return False
    kept = "kept back as a test" if made.held_back else "the next training learns it"
    print(f"   noted in {corrector.store.path}: {kept}")
    return True


def converse(ask: Callable[[str], Any]) -> int:
    """Read requests until the input ends; an error or Ctrl-C ends a request, not the conversation."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (gives `input` its line editing)
    while True:
        try:
            request = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            continue
        if not request.strip():
            continue
        try:
            ask(request)
        except CallwrightError as error:
            print(f"callwright: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("\n   stopped")


def status(ending: Any) -> int:
    """0 when the model came to an end by itself and no call of it failed."""
    return int(ending.why in ("unreadable", "rounds") or any(result.failed for _, result in ending.made))


class Console:
    """Shows what happens, with control characters made harmless: the model and the tools decide about the text."""

    def call(self, call: dict[str, Any]) -> None:
        """A call, with all of its arguments."""
        arguments = call["arguments"]
        if isinstance(arguments, dict):
            shown = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
        else:
            shown = json.dumps(arguments, ensure_ascii=False)
        self._print("-> ", f"{call['name']}({shown})")

    def result(self, result: Any) -> None:
        """A result."""
        self._print("   failed: " if result.failed else "   = ", result.text)

    def says(self, text: str) -> None:
        """The model's words."""
        self._print("", text)

    def note(self, text: str) -> None:
        """The agent's own words."""
        self._print("   ", f"({text})")

    def _print(self, lead: str, text: str) -> None:
        from callwright.chat.view import visible

        print(lead + visible(text).replace("\n", "\n" + " " * len(lead)), flush=True)
