"""Begin with your own tools: a commented toolset and a run's configuration, both ready to train.

SOURCE is a Python file of functions, an OpenAPI document, the answer to an MCP server's tools/list, a JSON file of
tools; or give the command of an MCP server with --mcp. The two files are written to --out: NAME.yaml, in which values
and phrasings are filled in and marked by where they came from, and NAME-run.yaml beside it. Files that are there
already are not replaced.
"""

import argparse
import json
import logging
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from callwright.commands import shared
from callwright.data.toolset.bases import BASES, train_command
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

EXAMPLES = """examples:
  callwright new mytools.py
  callwright new shop-openapi.yaml --name shop --out toolsets
  callwright new --mcp "python -m mcp_server_time" --name clock
  callwright new mytools.py --base qwen2.5-coder
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("sources", metavar="SOURCE", nargs="*", help="files of tools")
    parser.add_argument("--mcp", metavar="COMMAND", action="append", default=[], help="starts an MCP server (stdio)")
    parser.add_argument("--name", help="of the toolset and the run (default: after the first source)")
    parser.add_argument("--out", metavar="DIR", default=".", help="folder that is written to (default: this one)")
    parser.add_argument(
        "--base",
        choices=BASES,
        default="smollm2",
        help="the model to train: smollm2 (135M, quick), or qwen2.5-coder (0.5B, begins with an adapter that calls "
        "tools already) (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(options: argparse.Namespace) -> int:
    """Read the tools, write the two files, and say what is worth mending."""
    from callwright.data.tool_sources.sources import tools_from
    from callwright.data.toolset import starter
    from callwright.data.toolset.lint import lint
    from callwright.data.toolset.toolset import load_toolset
    from callwright.data.toolset.toolset_lint import lint_toolset
    from callwright.runtime.config import SHARED
    from callwright.runtime.files import atomic_write

    shared.quiet_logs()
    if not options.sources and not options.mcp:
        options.usage_error("name a file of tools, or the command of an MCP server with --mcp")
    base, out = BASES[options.base], Path(options.out)
    if out.exists() and not out.is_dir():
        raise CallwrightError(f"--out {out} is a file, expected a folder")
    first = Path(options.sources[0]).stem if options.sources else "mcp"
    asked = unicodedata.normalize("NFKD", first if options.name is None else options.name)  # Übung: Ubung
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", "".join(c for c in asked if not unicodedata.combining(c))).strip("-.")
    if options.name is not None and not plain:
        options.usage_error(f"--name {options.name!r}: expected some of the letters A to Z or digits")
    name = plain or "mine"
    if options.name is None and any(
        Path(source).resolve() == (out / f"{name}.yaml").resolve() for source in options.sources
    ):
        name += "-tools"  # its own file lies there
    toolset, config = out / f"{name}.yaml", out / f"{name}-run.yaml"
    listed = out / f"{name}-tools.json"
    if name in SHARED or name == "default":
        whose = "the default run's" if name == "default" else "all runs' own"
        raise CallwrightError(f"a run cannot be called {name}, since results/{name} is {whose}: give another --name")
    for path in [toolset, config, *([listed] if options.mcp else [])]:
        if path.exists() and not options.force:
            raise CallwrightError(f"{path} is there already: give another --name or --out, or --force to replace it")
    domains: dict[str, list[dict[str, Any]]] = {}
    files = []
    for source in options.sources:
        if Path(source).stem in domains:
            raise CallwrightError(f"two sources are called {Path(source).stem}: give one of them another name")
        domains[Path(source).stem] = tools_from(source, annotations=True)
        files.append(os.path.relpath(source, out))
    if options.mcp:
        domains[listed.stem] = tools_of_servers(options.mcp)
        files.append(listed.name)
        with atomic_write(listed) as stream:
            stream.write(json.dumps(domains[listed.stem], indent=2, ensure_ascii=False).encode() + b"\n")
    domains, left_out = starter.without_recursive(domains)
    tools = [tool for found in domains.values() for tool in found]
    if not tools:
        raise CallwrightError(f"no tool is left: {'; '.join(left_out)}")
    for line in left_out:
        log.warning("left out: %s", line)
    files = [file for file, found in zip(files, domains.values(), strict=True) if found]
    domains = {domain: found for domain, found in domains.items() if found}
    for tool in tools:
        check_names(tool["function"])
    before = {path: path.read_bytes() if path.exists() else None for path in (toolset, config)}
    for path, text in (
        (toolset, starter.toolset_text(name, files, domains)),
        (config, starter.run_text(name, str(toolset), str(out / f"{name}-corrections.jsonl"), len(tools), base)),
    ):
        with atomic_write(path) as stream:
            stream.write(text.encode())
    try:
        logging.getLogger("callwright").setLevel(logging.ERROR)  # what is left out of the sources was said above
        read = load_toolset(toolset)
    except CallwrightError:  # a second try is not to find half of a first one, nor is anything lost by --force
        for path, content in before.items():
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
        raise
    print(
        f"{toolset}: {shared.counted(len(tools), 'tool')}, {shared.some([tool['function']['name'] for tool in tools])}"
    )
    print(f"{config}: the run's settings")
    hints = [*lint(tools), *lint_toolset(read)]
    stand_ins = toolset.read_text(encoding="utf-8").count("# " + starter.WHERE["stand-in"])
    if stand_ins:
        count = shared.counted(stand_ins, "parameter")
        print(f"stand-in values for {count}: write real ones in {toolset} (marked STAND-INS)")
    if hints:
        count = shared.counted(len(hints), "hint")
        print(f"{count} on tools that are hard to call for a small model: callwright lint {toolset}")
    print(f"train with: {train_command(str(config), base)}")
    return 0


def check_names(function: dict[str, Any]) -> None:
    """Raises CallwrightError for a tool that no server would take, or a required parameter that can be no slot."""
    from callwright.data.records import NAMES, TOOL_NAME

    if not TOOL_NAME.fullmatch(function["name"]):
        raise CallwrightError(f"the tool {function['name']!r:.140}: {NAMES}")
    for name in function["parameters"].get("required") or []:
        if not re.fullmatch(r"\w+", name):
            raise CallwrightError(
                f"the tool {function['name']!r}: its parameter {name!r:.80} cannot be a slot of a phrasing: use "
                "letters, digits and `_`"
            )


def tools_of_servers(commands: list[str]) -> list[dict[str, Any]]:
    """The tools of MCP servers, which are started and ended again."""
    from callwright.agent.mcp_client import McpServers
    from callwright.agent.toolbox import Toolbox

    with McpServers(commands, 30.0) as servers:
        return Toolbox(servers.tools).definitions
