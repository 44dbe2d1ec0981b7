"""ShareGPT's format, and Hermes's and others' ways to put tools, calls and results into it.

    {"conversations": [{"from": "system", "value": "… <tools>[…]</tools> …"},
                       {"from": "human", "value": …},
                       {"from": "gpt", "value": "<tool_call>\\n{…}\\n</tool_call>"},
                       {"from": "tool", "value": "<tool_response>\\n{…}\\n</tool_response>"}],
     "tools": …, "system": …}

The tools stand in a field of the record or in the system prompt. Calls may also be turns of their own
(`function_call`, with `observation` for the result), Python in a list (ToolACE), or whatever `spoken` reads.
"""

from collections.abc import Iterator
from typing import Any

from callwright.data.formats.conversations import Record, examples_of, list_of
from callwright.data.formats.openai import system_of
from callwright.data.formats.tools import FIELDS
from callwright.data.formats.turns import read_turns, value_of
from callwright.data.records import RecordError

NAMES = ("conversations", "conversation")


def fits(row: dict[str, Any]) -> bool:
    """True when a record looks like one of this format."""
    return any(isinstance(value_of(row.get(name), loose=False), list) for name in NAMES)


def examples(record_id: str, row: dict[str, Any]) -> Iterator[Record]:
    """The examples of one record; raises RecordError when it cannot be used as a whole."""
    name = next((name for name in NAMES if row.get(name) is not None), NAMES[0])
    if row.get(name) is None:
        raise RecordError("missing_field", f"the field {name!r} is missing")
    tools = next((found for field in FIELDS if (found := list_of(row, field))), [])
    return examples_of(record_id, [*system_of(row), *read_turns(row[name], name)], tools, "sharegpt")
