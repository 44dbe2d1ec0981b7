"""Raw records of glaive-function-calling-v2: a system prompt that lists functions, and the whole chat as one text.

{"system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required - {…}",
 "chat": "USER: …\\n\\n\\nASSISTANT: <functioncall> {\\"name\\": …, \\"arguments\\": '{…}'} <|endoftext|>\\n\\n\\n
          FUNCTION RESPONSE: {…}\\n\\n\\nASSISTANT: … <|endoftext|>"}
"""

import re
from collections.abc import Iterator
from typing import Any

from callwright.data.formats.conversations import Record, examples_of, list_of
from callwright.data.formats.tools import FIELDS
from callwright.data.formats.turns import Turn
from callwright.data.records import RecordError

_SPEAKER = re.compile(r"(?:^|\n)\s*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
_ROLES = {"SYSTEM": "system", "USER": "user", "FUNCTION RESPONSE": "tool", "ASSISTANT": "assistant"}
_END = re.compile(r"<\|endoftext\|>")


def fits(row: dict[str, Any]) -> bool:
    """True when a record looks like one of this format."""
    chat = row.get("chat")
    return isinstance(chat, str) and "USER:" in chat and "ASSISTANT:" in chat


def examples(record_id: str, row: dict[str, Any]) -> Iterator[Record]:
    """The examples of one record; raises RecordError when it cannot be used as a whole."""
    chat = row.get("chat")
    if not isinstance(chat, str):
        raise RecordError("missing_field", "the field 'chat' is missing, or no text")
    pieces = _SPEAKER.split(chat)
    turns = [
        Turn(_ROLES[speaker], _END.sub("", text).strip())
        for speaker, text in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    system = row.get("system")
    if isinstance(system, str) and (text := system.removeprefix("SYSTEM:").strip()):
        turns.insert(0, Turn("system", text))
    tools = next((found for field in FIELDS if (found := list_of(row, field))), [])
    return examples_of(record_id, turns, tools, "glaive")
