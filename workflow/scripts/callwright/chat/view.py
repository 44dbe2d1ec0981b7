"""Token rows as people can read them: the text that the model sees, the trained parts marked."""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from callwright.runtime.errors import CallwrightError

# Control characters (but not line feed and tab), and those that turn the direction of writing: in a record of
# somebody else's they could rewrite the terminal, or what the eye sees.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# Reverse video in green: the shape survives where there is no colour.
ANSI_ON, ANSI_OFF = "\x1b[32;7m", "\x1b[0m"
BRACKET_ON, BRACKET_OFF = "⟦", "⟧"


def visible(text: str) -> str:
    """The text with control characters written as escapes (`\\x1b`), so that showing it is harmless."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def pieces(tokenizer: Any, row: dict[str, Any]) -> list[tuple[str, bool]]:
    """A token row (`{"input_ids": [int], "spans": [[start, end]]}`) as `(text, is it trained?)` in order.

    The texts together are what the ids decode to. Raises CallwrightError for a row that is none, or whose ids
    the tokenizer does not have.
    """
    ids, spans = check_row(row)
    cuts = sorted({0, len(ids), *(edge for span in spans for edge in span)})
    try:
        # From the start each time: a tokenizer may drop the blank before the first token that it is given.
        texts = [tokenizer.decode(ids[:cut], clean_up_tokenization_spaces=False) for cut in cuts]
    except (OverflowError, TypeError, ValueError, IndexError) as error:
        raise CallwrightError(
            f"row {row.get('id')!r}: its token ids are not of this model ({error}): name the model with --model"
        ) from error
    starts = {start: end for start, end in spans}
    found, until = [], 0
    for (before, after), start in zip(pairwise(texts), cuts, strict=False):
        until = max(until, starts.get(start, 0))
        found.append((after[len(before) :], start < until))
    return found


def check_row(row: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids and spans of a token row; raises CallwrightError that says what is wrong with it."""
    ids, spans = row.get("input_ids"), row.get("spans")
    name = f"row {row.get('id')!r}"
    if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
        raise CallwrightError(f"{name}: `input_ids` must be a list of token ids")
    if not isinstance(spans, list) or not all(
        isinstance(span, list | tuple)
        and len(span) == 2
        and all(type(edge) is int for edge in span)
        and 0 <= span[0] <= span[1] <= len(ids)
        for span in spans
    ):
        raise CallwrightError(f"{name}: `spans` must be a list of [start, end] within its {len(ids)} token ids")
    return ids, [(start, end) for start, end in spans]


def describe(tokenizer: Any, row: dict[str, Any], number: int | None = None) -> dict[str, Any]:
    """What a page or a terminal shows of a token row: `id`, `tokens`, `trained` (counts), `number` and `pieces`."""
    return {
        "id": str(row.get("id", "")),
        "number": number,
        "tokens": len(row["input_ids"]),
        "trained": sum(end - start for start, end in row["spans"]),
        "pieces": pieces(tokenizer, row),
    }


def marked(parts: Iterable[tuple[str, bool]], colour: bool) -> str:
    """The pieces as text for a terminal: trained ones in reverse video, or in `⟦ ⟧` without colour."""
    on, off = (ANSI_ON, ANSI_OFF) if colour else (BRACKET_ON, BRACKET_OFF)
    out = []
    for text, trained in parts:
        text = visible(text)
        if not trained:
            out.append(text)
        elif colour:  # each line by itself: some terminals fill the rest of a line with the open colour
            out.append("\n".join(f"{on}{line}{off}" if line else "" for line in text.split("\n")))
        else:
            out.append(f"{on}{text}{off}")
    return "".join(out)
