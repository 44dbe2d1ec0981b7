"""What `callwright serve --playground` finds by itself: the run, its tools, its base, what can be called."""

import argparse
import contextlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

from callwright.runtime.errors import CallwrightError

COLUMNS, LINES = 96, 28  # of the training's view


def attach(service: Any, options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """Put a playground on the service; processes of functions end with `stack`."""
    from callwright.serve.model import open_served
    from callwright.serve.playground import Options, Playground

    run_folder = Path(options.run_folder) if options.run_folder else run_of(options.adapter or options.model)
    if options.run_folder and not run_folder.is_dir():
        raise CallwrightError(f"--run {run_folder}: there is no such folder")
    functions, tools = open_tools(options.tools, stack)
    if not options.tools and run_folder is not None:
        tools = tools_of_run(run_folder)
    run_call, world = functions, "your functions" if functions else None
    if run_call is None and tools and (call := in_built_in_world(tools)):
        run_call, world = call, "a small built-in world, which forgets it at the end"
    base = base_folder(options, run_folder)
    if base is not None:
        base = open_served(
            base, None, service.model.name, not options.no_grammar, options.temperature, style=options.format
        )
    corrections = Path(options.corrections or corrections_of_run(run_folder) or "corrections.jsonl")
    found = Options(tools, corrections, run_folder, run_call, world, run_folder and watcher(run_folder))
    service.playground = Playground(service, found, base)


def run_of(folder: str) -> Path | None:
    """The run that a model folder or adapter belongs to: the parent that holds a training's summary."""
    return next(
        (parent for parent in Path(folder).resolve().parents if (parent / "training" / "training.json").is_file()), None
    )


def settings_of_run(run_folder: Path) -> dict[str, Any]:
    """The run's configuration, as its summary has it; nothing where there is none."""
    try:
        return json.loads((run_folder / "summary.json").read_text(encoding="utf-8")).get("config", {})
    except (OSError, ValueError):
        return {}


def corrections_of_run(run_folder: Path | None) -> str | None:
    """The file of corrections that the run learns from."""
    from callwright.data.corrections import settings_of

    return settings_of(settings_of_run(run_folder))["path"] if run_folder else None


def base_folder(options: argparse.Namespace, run_folder: Path | None) -> Path | None:
    """The model before training: --base, the model under the adapter, or the one that the run's configuration names."""
    if options.base:
        return None if options.base == "none" else Path(options.base)
    if options.adapter:
        return Path(options.model)
    name = settings_of_run(run_folder).get("model", {}).get("name") if run_folder else None
    folder = run_folder.parent / "models" / name / "mlx" if name else None
    return folder if folder and folder.is_dir() else None


def open_tools(files: list[str], stack: contextlib.ExitStack) -> tuple[Any, list[dict[str, Any]]]:
    """What makes calls of the files' Python functions, or None; and all files' tools."""
    from callwright.agent.functions import Functions
    from callwright.agent.toolbox import AgentTool, Toolbox
    from callwright.data.tool_sources.sources import tools_from
    from callwright.data.toolset.toolset import is_toolset, load_toolset

    callable_tools: list[AgentTool] = []
    tools: list[dict[str, Any]] = []
    for path in map(Path, files):
        if path.suffix == ".py":
            found = stack.enter_context(Functions(path, 30.0)).tools
            callable_tools += found
            tools += [tool.definition for tool in found]
        elif path.is_file() and is_toolset(path):
            toolset = load_toolset(path)
            tools += [tool.definition for tool in toolset.tools]
            for source in python_sources(path):
                callable_tools += stack.enter_context(Functions(source, 30.0)).tools
        else:
            tools += tools_from(path)
    tools = list({tool["function"]["name"]: tool for tool in tools}.values())
    if not callable_tools:
        return None, tools
    toolbox, turn = Toolbox(callable_tools), threading.Lock()

    def run(call: dict[str, Any]) -> tuple[str, bool]:
        with turn:
            if problem := toolbox.problem(call):
                return f"not made: {problem}", True
            result = toolbox.run(call)
            return result.text, result.failed

    return run, tools


def python_sources(toolset: Path) -> list[Path]:
    """The Python files that a toolset takes tools from."""
    from callwright.data.toolset.yaml_lines import tool_files

    return [Path(name) for name in tool_files(toolset) if name.endswith(".py")]


def tools_of_run(run_folder: Path) -> list[dict[str, Any]]:
    """The tools of the run's training examples, in the order of the longest list of them."""
    from callwright.runtime.files import read_jsonl

    path = run_folder / "data" / "train.jsonl"
    if not path.is_file():
        return []
    lists = sorted((row["tools"] for row in read_jsonl(path)), key=len, reverse=True)
    return list({tool["function"]["name"]: tool for tools in lists for tool in tools}.values())


def in_built_in_world(tools: list[dict[str, Any]]) -> Any:
    """What makes calls in the world of `evals.executed`, where it knows the tools; None where it knows none."""
    from callwright.evals.executed.world import world

    known = [tool for tool in tools if world.knows(tool)]
    if not known:
        return None
    state = [world.start()]

    def run(call: dict[str, Any]) -> tuple[str, bool]:
        outcome = world.execute(state[0], [call], known)
        state[0] = outcome.state
        (entry,) = outcome.log
        if "error" in entry:
            return entry["error"], True
        return json.dumps(entry["result"], ensure_ascii=False), False

    return run


def watcher(run_folder: Path) -> Any:
    """A function that gives the run as `callwright watch` shows it, and whether it is under way."""
    from callwright.report import live

    def look() -> tuple[str, bool]:
        view = live.look(run_folder)
        return live.frame(view, min(COLUMNS, shutil.get_terminal_size().columns), LINES), view.status != live.FINISHED

    return look
