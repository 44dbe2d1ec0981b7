"""What makes tools hard to call for a small model, and what to write instead; no model is loaded.

FILE is a file of tools (Python functions, OpenAPI, MCP's tools/list, JSON) or a toolset, which is checked as a training
would: faults with their lines, then what its requests lack. Ends with status 1 when there are hints and --strict is
given, or when the file cannot be used.
"""

import argparse
import json
from pathlib import Path

from callwright.commands import shared

EXAMPLES = """examples:
  callwright lint mytools.py
  callwright lint mytools.yaml --strict
  callwright lint shop-openapi.yaml --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("file", metavar="FILE", help="a file of tools, or a toolset")
    parser.add_argument("--strict", action="store_true", help="hints are errors")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """Read, check, print."""
    from callwright.data.tool_sources.sources import tools_from
    from callwright.data.toolset.lint import lint
    from callwright.data.toolset.toolset import is_toolset, load_toolset
    from callwright.data.toolset.toolset_lint import lint_toolset

    shared.quiet_logs()
    (path,) = shared.existing([options.file])
    if is_toolset(path):
        toolset = load_toolset(path)
        tools = [tool.definition for tool in toolset.tools]
        hints = [*lint(tools), *lint_toolset(toolset)]
    else:
        tools = tools_from(path)
        hints = lint(tools)
    for hint in hints:
        print(json.dumps(hint.to_row(), ensure_ascii=False) if options.json else f"{hint}")
    if not options.json:
        count = shared.counted(len(hints), "hint") if hints else "no hints"
        print(f"{Path(options.file)}: {shared.counted(len(tools), 'tool')}, {count}")
    return int(options.strict and bool(hints))
