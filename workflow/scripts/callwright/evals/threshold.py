"""From which confidence on to call: a threshold and a temperature, fitted on validation items.

A fine-tuned model says at the first token of its answer how sure it is that something should be called
(`decoding.decision`). Where the line is best drawn depends on the training, and is measured on validation items. These
are few, and asked in words more like the training's than what people write, of which a model is less sure: so not
the threshold with the best balanced accuracy is taken, but of those that cannot be told from it, by one standard
error, the one nearest to the model's own 0.5 (the rule of one standard error: Breiman et al., Classification and
Regression Trees, 1984; Hastie et al., The Elements of Statistical Learning, 7.10). The temperature makes the confidence
honest: of a hundred calls at 0.8, some eighty should be wanted. A training that began with an adapter which calls
already keeps that one's line where it has few items of its own.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import mlx.nn as nn
import numpy as np

from callwright.chat.template import render_prompt
from callwright.chat.tokens import encode
from callwright.decoding.decision import SMALLEST, call_token, log_odds
from callwright.decoding.workers import answer_all
from callwright.evals.tool_reading import ToolReading
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import read_json

log = logging.getLogger(__name__)

DECISION = "decision.json"  # what `fit` found, in a run's folder and in a package
BINS = 10
FEW = 8  # a line drawn by fewer requests that want a call, or none, is drawn by chance
ENOUGH = 100  # items draw a line of their own, where an adapter that training began with brings one
TEMPERATURES = np.geomspace(0.25, 8.0, 61)
RUNNING = 16
_WEIGHT = {"type": "number", "minimum": 0, "maximum": 100}
_STORED = jsonschema.Draft202012Validator(
    {
        "type": "object",
        "required": ["threshold", "temperature"],
        "properties": {
            "threshold": {"type": "number", "minimum": 0, "maximum": 1},
            "temperature": {"type": "number", "exclusiveMinimum": 0},
            "grounding": {"enum": ["ask", "flag", "off"]},
            "questions": {
                "type": "object",
                "additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "tool_encoder": {
                "type": ["object", "null"],
                "required": ["weight"],
                "properties": {"weight": _WEIGHT, "offered": {"type": ["integer", "null"], "minimum": 1}},
            },
        },
    }
)
LONGEST = 192  # tokens of an answer that decides late; one that has not decided by then calls nothing


def decide(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Any],
    style: str = "hermes",
    workers: int | None = None,
    reading: ToolReading | None = None,
    begun: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The decision of a model, as `fit` returns it, from its answers to `examples`, as far as they must be written.

    reading: says, too, whether to call, and which tools are shown. begun: the decision of the adapter that training
    began with, which stands where there are fewer than ENOUGH examples.

    Where fewer than FEW examples are of one kind, or the model's form begins calls and words alike, there is nothing to
    fit: 0.5, and a warning.
    """
    token, wanted = call_token(tokenizer, style), [bool(example.calls) for example in examples]
    given = {key: begun[key] for key in ("threshold", "temperature")} if begun and len(wanted) < ENOUGH else None
    fewest = min(sum(wanted), len(wanted) - sum(wanted))
    if token is None or fewest < FEW:
        why = "all are of one kind" if not fewest else f"only {fewest} of a kind, want {FEW}"
        if token is None:
            why = "answers begin alike with and without a call"
        taken = given or {"threshold": 0.5, "temperature": 1.0}
        log.warning(
            "%d validation items: %s: no threshold can be fitted, %g is taken", len(wanted), why, taken["threshold"]
        )
        return {**taken, "items": len(wanted), "calls": sum(wanted), "curve": []}
    shown = [reading.offered(one.messages, one.tools) if reading else one.tools for one in examples]
    prompts = [
        encode(tokenizer, render_prompt(tokenizer, example.messages, tools))
        for example, tools in zip(examples, shown, strict=True)
    ]
    found: dict[int, float] = {}
    stop_ids = set(tokenizer.eos_token_ids)
    evidence = [reading and reading.evidence(example.messages, example.tools) for example in examples]
    for number, answer in answer_all(
        model,
        prompts,
        1 if token.after is None else LONGEST,
        stop_ids,
        RUNNING,
        workers,
        decision_of=lambda number: token.decision(None, evidence[number]),
    ):
        found[number] = answer.call_probability or 0.0
    return fit([found[number] for number in range(len(prompts))], wanted, given)


def fit(
    probabilities: Sequence[float], wanted: Sequence[bool], given: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The threshold, the temperature, and the curve that they were read from.

    probabilities: of the token that begins a call, one an item; wanted: whether the item wants a call; given: threshold
    and temperature that are only measured here. Returns

        threshold, temperature      call from this probability on; confidence = sigmoid(log-odds / temperature)
        items, calls                how many items, and how many of them want a call
        balanced_accuracy, at_half  with the threshold, and with one of 0.5
        best                        the best balanced accuracy that any threshold has here
        calls_kept, false_calls     shares, with the threshold
        calibration_error           expected, of the confidence, in ten bins; `raw_…` without the temperature
        curve                       [{"threshold", "calls_kept", "false_calls"}], thresholds ascending

    Raises CallwrightError when all items are of one kind.
    """
    p = np.clip(np.asarray(probabilities, dtype=float), SMALLEST, 1 - SMALLEST)
    y = np.asarray(wanted, dtype=bool)
    if y.all() or not y.any():
        raise CallwrightError(
            f"a threshold needs validation items that want a call and others that want none: all {y.size} are the same"
        )
    odds = np.log(p) - np.log1p(-p)
    edges = np.unique(odds)
    cuts = np.unique(np.concatenate([[edges[0] - 1, 0.0], (edges[1:] + edges[:-1]) / 2, [edges[-1] + 1]]))
    kept = np.array([(odds[y] >= cut).mean() for cut in cuts])
    false = np.array([(odds[~y] >= cut).mean() for cut in cuts])
    balanced = (kept + 1 - false) / 2
    best = int(np.argmax(balanced))
    error = _standard_error(kept[best], y.sum(), false[best], (~y).sum())
    between = (np.minimum(cuts[best], 0) <= cuts) & (cuts <= np.maximum(cuts[best], 0))  # the best and a half
    alike = np.flatnonzero(between & (balanced >= balanced[best] - error))
    cut = log_odds(given["threshold"]) if given else cuts[alike[np.argmin(np.abs(cuts[alike]))]]
    temperature = given["temperature"] if given else min(TEMPERATURES, key=lambda t: _log_loss(_sigmoid(odds / t), y))
    kept_here, false_here = float((odds[y] >= cut).mean()), float((odds[~y] >= cut).mean())
    half = (float((odds[y] >= 0).mean()) + 1 - float((odds[~y] >= 0).mean())) / 2
    return {
        "threshold": round(float(_sigmoid(cut)), 6),
        "temperature": round(float(temperature), 4),
        "items": int(y.size),
        "calls": int(y.sum()),
        "balanced_accuracy": (kept_here + 1 - false_here) / 2,
        "at_half": half,
        "best": float(balanced[best]),
        "calls_kept": kept_here,
        "false_calls": false_here,
        "calibration_error": calibration_error(_sigmoid(odds / temperature), y),
        "raw_calibration_error": calibration_error(p, y),
        "curve": [
            {"threshold": round(float(_sigmoid(cut)), 6), "calls_kept": float(k), "false_calls": float(f)}
            for cut, k, f in zip(cuts, kept, false, strict=True)
        ],
    }


def stored(folder: str | Path, adapter: str | Path | None = None) -> dict[str, Any] | None:
    """The fitted decision beside a model's weights, or beside its adapter's or in the run's folder above; or None.

    Raises CallwrightError for a file that was damaged.
    """
    if (found := stored_at(folder, adapter)) is None:
        return None
    decided = read_json(found)
    if error := jsonschema.exceptions.best_match(_STORED.iter_errors(decided)):
        where = ".".join(map(str, error.absolute_path)) or "the file"
        raise CallwrightError(
            f"{found}: {where}: {error.message[:160]}: run the rule `decide` again, or remove the file"
        )
    return decided


def stored_at(folder: str | Path, adapter: str | Path | None = None) -> Path | None:
    """The file that `stored` reads."""
    places = [Path(folder)] if adapter is None else [Path(adapter), Path(adapter).parent]
    return next((place / DECISION for place in places if (place / DECISION).is_file()), None)


def confidence(probability: float, temperature: float) -> float:
    """The calibrated confidence of a call, from the raw probability of its first token."""
    return float(_sigmoid(log_odds(probability) / temperature))


def calibration_error(confidences: np.ndarray, wanted: np.ndarray) -> float:
    """The expected calibration error: how far the share of wanted calls is from the confidence, averaged over bins."""
    bins = np.minimum((np.asarray(confidences) * BINS).astype(int), BINS - 1)
    error = 0.0
    for number in range(BINS):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(confidences[inside].mean() - wanted[inside].mean())
    return float(error)


def _standard_error(kept: float, calls: int, false: float, others: int) -> float:
    """Of a balanced accuracy; shares are taken as if one item more had gone either way, so that none is sure."""
    kept, false = (kept * calls + 1) / (calls + 2), (false * others + 1) / (others + 2)
    return math.sqrt(kept * (1 - kept) / calls + false * (1 - false) / others) / 2


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _log_loss(p: np.ndarray, y: np.ndarray) -> float:
    p = np.clip(p, SMALLEST, 1 - SMALLEST)
    return float(-np.where(y, np.log(p), np.log1p(-p)).mean())
