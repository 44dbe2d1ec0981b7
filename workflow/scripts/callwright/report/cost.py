"""What answers cost: tokens, time and memory, by suite and condition."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def cost(
    generations: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]] = (),
    about: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """The cost of one condition's answers to one suite; None for what the stored files do not tell.

    generations: rows with `id`, `finish_reason`, `prompt_tokens`, `output_tokens` and `seconds`. scores: their score
    rows, for the number of calls made. about: `generate.json`, what generation says of itself (`device`,
    `batch_size`, `peak_memory_gb`, `seconds`, `versions`). seconds: how long the job took, where `about` does not say.

    - `prompt_tokens_per_item` and `output_tokens_per_item` are means over the answered items (not `too_long` ones).
    - `…_per_call`: all tokens of the answered items by the calls that a server reads from them; None without a call.
    - `latency_p50` and `latency_p95`: seconds from the start of an item's batch to the end of its answer. Batched
      items wait for each other: it is not what a single user would wait.
    - `tokens_per_second`: output tokens by `seconds`, the time that all answers took; both None where some were taken
      over from another condition (`free`).
    - `length_stops`: answers that the token limit cut; `length_stop_share` is their share of the answered items.
    """
    about = about or {}
    answered = [row for row in generations if row["finish_reason"] != "too_long"]
    n = len(answered)
    prompt, output, latency = (
        [row[key] for row in answered if row.get(key) is not None]
        for key in ("prompt_tokens", "output_tokens", "seconds")
    )
    calls = sum(row["calls"]["made"] for row in scores if "calls" in row)
    taken = None if about.get("free") else about.get("seconds", seconds)
    cut = sum(row["finish_reason"] == "length" for row in answered)
    return {
        "n": n,
        "prompt_tokens_per_item": _ratio(prompt, len(prompt)),
        "output_tokens_per_item": _ratio(output, len(output)),
        "prompt_tokens_per_call": _ratio(prompt, calls),
        "output_tokens_per_call": _ratio(output, calls),
        "latency_p50": float(np.quantile(latency, 0.5)) if latency else None,
        "latency_p95": float(np.quantile(latency, 0.95)) if latency else None,
        "tokens_per_second": _ratio(output, taken or 0),
        "seconds": taken,
        "length_stops": cut,
        "length_stop_share": cut / n if n else None,
        "peak_memory_gb": about.get("peak_memory_gb"),
        "batch_size": about.get("batch_size"),
        "device": about.get("device"),
        "versions": about.get("versions"),
    }


def _ratio(amounts: Sequence[float], by: float) -> float | None:
    return sum(amounts) / by if amounts and by else None
