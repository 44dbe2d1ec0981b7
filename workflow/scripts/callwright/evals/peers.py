"""A peer's answers to a suite's items, stored as rows like our own; nothing is asked twice."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from callwright.evals.partial import Partial
from callwright.evals.peer_models import Peer, PeerAnswer, RefusedItem
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json, write_json, write_jsonl
from callwright.runtime.logs import Progress

log = logging.getLogger(__name__)

# Raised when an edit changes what is asked or how an answer is written, so that older rows are not mixed with new ones.
VERSION = 1
ENOUGH = 3  # items refused before any other was answered: then all would be

Row = dict[str, Any]


def ask(
    peer: Peer,
    examples: Sequence[Any],
    suite: str,
    condition: str,
    items: int,
    out_path: str | Path,
    about_path: str | Path | None = None,
) -> list[Row]:
    """The peer's answers to the first `items` examples; the rows are written to `out_path` and returned.

    A row is `{"id", "suite", "condition", "finish_reason", "text", "seconds"}`, `seconds` being those of this item
    alone, and what the peer tells beside: `prompt_tokens` and `output_tokens` (as it counts them), `confidence`,
    `suppressed_calls`, `words` that stood beside calls, `error` of an item that it refused (`finish_reason` is
    "too_long" where it says that; else the text is empty). There is no hash of the prompt and no limit of ours: its
    prompt is its own. about_path: where to write what the answers cost.

    What is answered lies in a hidden file beside `out_path`, and is used again if the peer and the items are the same:
    where an asking was interrupted, and for good, for a server may cost money, answer otherwise, or be gone when the
    rule runs again for an edit that has nothing to do with it.

    Raises CallwrightError when there is nothing to answer, and when the peer cannot be asked on; what was answered is
    kept.
    """
    begun = time.monotonic()
    examples, out_path = list(examples)[:items], Path(out_path)
    if not examples:
        raise CallwrightError(f"suite {suite!r} has no items to answer")
    asked = [[example.id, example.messages, example.tools] for example in examples]
    with Partial(out_path, sha256_json([VERSION, peer.who, suite, condition, asked]), begun) as partial:
        done = partial.rows
        if done:
            log.info("continuing: %d of %d items were answered before", len(done), len(examples))
        progress = Progress(f"ask {suite} {condition}", len(examples), "items", done=len(done), first=1.0)
        try:
            for row in answers(peer, [e for e in examples if e.id not in done], bool(done)):
                partial.append([{"id": row.pop("id"), "suite": suite, "condition": condition, **row}])
                progress.advance()
        except CallwrightError as error:
            raise CallwrightError(
                f"evaluation.peers, {condition}: {error} ({len(done)} of {len(examples)} answers to {suite} are there "
                "and kept: run again to go on)"
            ) from error
        progress.done()
        rows = [done[example.id] for example in examples]
        if refused := [row["id"] for row in rows if "error" in row]:
            log.warning(
                "%d of %d items were refused and count as failed, %r first: %s",
                len(refused), len(rows), refused[0], done[refused[0]]["error"],
            )  # fmt: skip
        if about_path is not None:
            write_json(about_path, cost_of(rows, partial.seconds, peer))
        write_jsonl(out_path, rows)
    return rows


def answers(peer: Peer, examples: Sequence[Any], answered: bool) -> Iterator[Row]:
    """The rows of the examples, in order. `answered`: others were before, so that the peer is known to answer.

    Rows of refused items come after the first that was answered: a peer that refuses everything has no row.
    """
    held: list[Row] = []
    for example in examples:
        start = time.monotonic()
        try:
            found = peer.answer(example.messages, example.tools)
        except RefusedItem as error:
            found = PeerAnswer("", error.finish_reason, {"error": str(error)})
        seconds = round(time.monotonic() - start, 3)
        row = {"id": example.id, "finish_reason": found.finish_reason, "text": found.text, "seconds": seconds}
        held.append(row | found.more)
        answered = answered or "error" not in row | found.more
        if answered:
            yield from held
            held = []
        elif len(held) >= ENOUGH:
            break
    if held:
        raise CallwrightError(f"every item is refused, {held[0]['id']!r} first: {held[0]['error']}")


def cost_of(rows: Sequence[Mapping[str, Any]], seconds: float, peer: Peer) -> Row:
    """What the answers cost, as far as the peer tells; `seconds` are those of all parts of an interrupted asking."""
    return {
        "items": len(rows),
        "refused": sum("error" in row for row in rows),
        "length_stops": sum(row["finish_reason"] == "length" for row in rows),
        "seconds": round(seconds, 3),
        "batch_size": 1,
        "peer": peer.who,
        **peer.facts(),
    }
