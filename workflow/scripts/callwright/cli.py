"""The `callwright` command: a table of contents. Each command is a module of its own in `callwright.commands`."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from callwright.runtime.errors import CallwrightError

COMMANDS = {
    "new": "begin with your own tools: a commented toolset and a run's settings, ready to train",
    "lint": "what makes tools hard to call for a small model, and what to write instead",
    "paraphrase": "better words for a toolset, proposed by a language model or taken from logs",
    "curate": "records of any files become checked examples; each one left out is counted under a rule",
    "inspect": "records as the model sees them, the trained tokens marked",
    "watch": "a run as it goes: what is under way, how long still, the training curve",
    "evaluate": "your requests, answered as they would be served: how many are right, and which are not",
    "score": "other people's answers, or your own, through the funnel; no model is needed",
    "audit": "can the answers be trusted? leaks, cut answers, contamination; no model is needed",
    "serve": "a model for OpenAI clients, with tool calls that are never malformed",
    "agent": "the model uses tools: your Python functions, and those of MCP servers",
}
EPILOG = """examples:
  callwright curate my-records.jsonl --out curated
  callwright inspect results/default/data/train.jsonl
  callwright score --examples test.jsonl --generations answers.jsonl
  callwright COMMAND --help

The workflow itself is Snakemake's: `make run`, or `snakemake --cores 1` in the repository.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed or found something wrong, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character shows its number instead
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parser(arguments).parse_args(arguments)
        status = options.run(options)
        sys.stdout.flush()
        return status
    except CallwrightError as error:
        print(f"callwright: {error}", file=sys.stderr)
    except BrokenPipeError:  # `callwright inspect … | head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"callwright: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the whole command; only the module of the command that is asked for is imported."""
    whole = argparse.ArgumentParser(
        prog="callwright",
        description="Teaches a small local language model to call your tools, and proves that it learned.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"callwright {installed()}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for name, about in COMMANDS.items():
        if name not in arguments[:1]:
            commands.add_parser(name, help=about)
            continue
        module = importlib.import_module(f"callwright.commands.{name}")
        command = commands.add_parser(
            name,
            help=about,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(command)
        command.set_defaults(run=module.run, usage_error=command.error)
    return whole


def installed() -> str:
    """The installed version; a checkout that was never installed has none."""
    try:
        return version("callwright")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
