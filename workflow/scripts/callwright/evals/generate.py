"""Greedy answers of one condition to one suite's items, stored as rows and resumed where they stopped.

The items are answered many at a time (`decoding.workers`), each as if it were alone, so a run that was interrupted
ends with the same text as one that was not.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from callwright.chat.call_format import form_of, read_answer
from callwright.chat.tokens import encode
from callwright.data.completed_calls import Likely
from callwright.data.grounded_calls import Questions, grounded
from callwright.decoding import constrain
from callwright.decoding.constrain import Constraint
from callwright.decoding.decision import Decision, Evidence, after_evidence, call_token
from callwright.decoding.decode import Answer
from callwright.decoding.limits import check_room, longest_prompt, needed_room
from callwright.decoding.name_preference import NamePreference
from callwright.decoding.workers import ConstraintOf, answer_all, default_workers
from callwright.evals.conditions import CONDITIONS
from callwright.evals.free_answers import stands
from callwright.evals.partial import Partial
from callwright.evals.prompts import prompt_texts
from callwright.evals.time_left import LOOSE, TimeLeft, Watch, expected_tokens
from callwright.evals.tool_reading import ToolReading
from callwright.runtime import device
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_json, write_json, write_jsonl
from callwright.runtime.provenance import versions

log = logging.getLogger(__name__)

# Raised when an edit changes answers, so that rows of the older code are not mixed with new ones.
VERSION = 9
ROUNDED = 1e-4  # stored probabilities have six digits: nearer to 0 and 1 their log-odds are not known

Row = dict[str, Any]


def generate(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Any],
    suite: str,
    condition: str,
    settings: dict[str, Any],
    out_path: str | Path,
    batch_size: int | None = None,
    style: str = "hermes",
    workers: int | None = None,
    fit_limit: bool = False,
    train: Sequence[Any] = (),
    about_path: str | Path | None = None,
    threshold: float | None = None,
    reading: ToolReading | None = None,
    questions: Questions | None = None,
    free: Iterable[Row] = (),
) -> list[Row]:
    """Answer the first `settings["items"]` examples; write the rows to `out_path` in item order and return them.

    condition: one of `evals.conditions`, which says what the prompt holds and whether a grammar constrains the answer;
    the model comes with or without its adapter. train: the training examples, of which `base_fewshot` shows some.
    settings: the config's `evaluation` (`items`, `max_output_tokens`, `batch_size`). style: how the
    expected answers are written, to see that they fit. workers: engines side by side; None
    means one per thread of `device.cpu_threads` on a CPU and one elsewhere. fit_limit: for suites that
    were not made for this limit, raise it where the longest expected answer asks for that. about_path: where to
    write what the answers cost (`cost_of`). threshold: for a condition that has one, the confidence to call from.
    reading: chooses the tools that are shown, joins in deciding whether to call and weighs the tools' names, for a
    condition with a threshold. questions: the tools' own, for a condition with grounding.
    free: rows of the same model's answers without a grammar; those that stand under it (`evals.free_answers`) are taken
    over, with their `seconds`.

    A row is `{"id", "suite", "condition", "prompt_sha256", "prompt_tokens", "output_tokens", "max_output_tokens",
    "finish_reason", "text", "seconds"}`, and its form (`call_format`) where that is the model's own: the hash is of the
    prompt's text, the stop token counts as no output,
    `call_probability`, where words and calls begin differently, is that of the token that begins a call (none, where an
    answer never came to that), after what `reading` says. `offered`: the names of the tools in the prompt, where these
    are not all that the item has. A condition with grounding adds what `as_served` finds.
    `max_output_tokens` is the limit in force, `seconds` run from the turn of the item's prompt to the end of its
    answer. `free`: the answer was taken over. With `base_fewshot`, whose prompt cannot be rendered from the item alone,
    a row has its `prompt` too. All but `seconds` is the same in every run. A prompt that is longer than the model's
    context or `max_prompt_tokens` gets no answer: `finish_reason` is then "too_long", and the item counts as failed.
    Finished answers lie in a file beside `out_path` until the end; they are used again if model, prompts and settings
    are the same.

    Raises CallwrightError when there is nothing to answer, when `max_output_tokens` is below 1.5 times
    the longest expected answer, and when another process is answering into the same file.
    """
    begun = time.monotonic()
    mx.reset_peak_memory()
    if condition not in CONDITIONS:
        raise CallwrightError(f"there is no condition {condition!r}; expected one of {', '.join(CONDITIONS)}")
    asked_as = CONDITIONS[condition]
    out_path = Path(out_path)
    examples = list(examples)[: settings["items"]]
    limit = settings["max_output_tokens"]
    if not examples:
        raise CallwrightError(f"suite {suite!r} has no items to answer")
    if fit_limit and (needed := needed_room(tokenizer, examples, style)[0]) > limit:
        log.info("suite %s: answers may have %d tokens; evaluation.max_output_tokens is %d", suite, needed, limit)
        limit = needed
    check_room(tokenizer, examples, limit, style)
    batch_size, form = batch_size or settings["batch_size"], form_of(tokenizer, style)
    shown = examples
    reading = reading if asked_as.threshold else None
    if reading is not None:
        shown = [replace(one, tools=reading.offered(one.messages, one.tools)) for one in examples]
    texts = prompt_texts(tokenizer, shown, asked_as, train, style)
    prompts = [encode(tokenizer, text) for text in texts]
    most = longest_prompt(model, limit, settings.get("max_prompt_tokens"))
    too_long = [item for item, prompt in enumerate(prompts) if len(prompt) > most]
    asked = [item for item, prompt in enumerate(prompts) if len(prompt) <= most]
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    stop_ids = set(tokenizer.eos_token_ids)
    fingerprint = sha256_json(
        [VERSION, mx.__version__, weights_hash(model), suite, condition, [e.id for e in examples], prompts]
        + [limit, batch_size, sorted(stop_ids), *([most] if too_long else [])]
        + ([constrain.VERSION, style, [e.tools for e in shown]] if asked_as.grammar else [])
        + list(form.mark.values())
        + ([threshold] if asked_as.threshold else [])
        + ([*reading.identity, [e.tools for e in examples]] if reading else [])
        + (["grounding and completion", *([questions] if questions else [])] if asked_as.grounding else [])
    )
    constraint_of = None
    if asked_as.grounding and form.layout is None:
        log.warning("answers are not constrained, as a server would not: %s", constrain.no_grammar(form))
    elif asked_as.grammar:
        constraint_of = grammars(tokenizer, shown, style)
    if asked_as.threshold and threshold is None:
        raise CallwrightError(f"the condition {condition!r} needs a threshold, and none was given")
    token = call_token(tokenizer, style)
    given = {row["id"]: row for row in free if row["finish_reason"] != "too_long"} if constraint_of else {}

    def to_row(item: int, answer: Answer) -> Row:
        row = {
            "id": examples[item].id,
            "suite": suite,
            "condition": condition,
            "prompt_sha256": hashes[item],
            "prompt_tokens": len(prompts[item]),
            "output_tokens": len(answer.ids),
            "max_output_tokens": limit,
            "finish_reason": answer.finish_reason,
            "text": tokenizer.decode(answer.ids, clean_up_tokenization_spaces=False),
            "seconds": round(answer.seconds, 3),
            **form.mark,
            **({"offered": shown[item].tool_names} if shown[item].tools != examples[item].tools else {}),
            **({} if answer.call_probability is None else {"call_probability": round(answer.call_probability, 6)}),
            **({"prompt": texts[item]} if asked_as.fewshot else {}),
        }
        return served(item, row)

    def served(item: int, row: Row) -> Row:
        if not asked_as.grounding:
            return row
        likely = reading and reading.likely(examples[item].messages, examples[item].tools)
        return {**row, **as_served(examples[item], row, questions, likely)}

    def evidence(item: int) -> Evidence | None:
        """What others say for a call."""
        return reading and reading.evidence(examples[item].messages, examples[item].tools)

    def decision(item: int) -> Decision:
        return token.decision(threshold if asked_as.threshold else None, evidence(item))

    def free_answer(item: int, preference: NamePreference | None) -> Row | None:
        """The row of the answer without a grammar, where it stands under one."""
        row = given.get(examples[item].id)
        if row is None or (row["prompt_sha256"], row["max_output_tokens"]) != (hashes[item], limit):
            return None
        ids, drawn_at = encode(tokenizer, row["text"]), threshold if asked_as.threshold else None
        if "call_probability" in row and (more := evidence(item)):
            if not ROUNDED < row["call_probability"] < 1 - ROUNDED:
                return None  # too few digits were stored of it
            row = {**row, "call_probability": round(after_evidence(row["call_probability"], more()), 6)}
        if not stands(row, ids, constraint_of(item), token, drawn_at, preference):
            return None
        return served(item, {**row, "condition": condition, "free": True})

    with Partial(out_path, fingerprint, begun) as partial:
        done = partial.rows
        if done:
            log.info("continuing: %d of %d items were answered before", len(done), len(examples))
        if too_long:
            log.warning(
                "suite %s: %d of %d prompts have more than %d tokens: these are not answered and count as failed",
                suite, len(too_long), len(examples), most,
            )  # fmt: skip
            partial.append([to_row(item, Answer(finish_reason="too_long")) for item in too_long])
        asked = [item for item in asked if examples[item].id not in done]
        preferences = {
            item: reading and reading.preference(shown[item].messages, shown[item].tools, form) for item in asked
        }
        standing = [row for item in asked if (row := free_answer(item, preferences[item]))]
        if standing:
            log.info("%d of %d answers stand as they were given without a grammar", len(standing), len(examples))
            partial.append(standing)
            asked = [item for item in asked if examples[item].id not in done]
        watch = Watch(
            f"generate {suite} {condition}", len(examples), len(done), limit,
            TimeLeft(
                sum(len(prompts[item]) for item in asked),
                expected_tokens(tokenizer, [examples[item] for item in asked], style),
                limit, batch_size, workers or default_workers(), LOOSE[asked_as.tuned],
            ),
        )  # fmt: skip
        for number, answer in answer_all(
            model,
            [prompts[item] for item in asked],
            limit,
            stop_ids,
            batch_size,
            workers,
            constraint_of and (lambda number: constraint_of(asked[number])),
            None if token is None else (lambda number: decision(asked[number])),
            watch.counted,
            lambda number: preferences[asked[number]],
        ):
            partial.append([to_row(asked[number], answer)])
            watch.ended(answer)
        watch.done()
        rows = [done[example.id] for example in examples]
        cost = cost_of(rows, partial.seconds, batch_size, workers)
        log.info(
            "%d items in %.0f s, %.0f output tokens/s, peak of MLX's arrays %.2f GB",
            len(rows), cost["seconds"], cost["output_tokens_per_second"], cost["peak_memory_gb"],
        )  # fmt: skip
        if about_path is not None:
            write_json(about_path, cost)
        write_jsonl(out_path, rows)
        partial.remove()
    return rows


def as_served(example: Any, row: Row, questions: Questions | None = None, likely: Likely | None = None) -> Row:
    """What a server makes of an answer's calls; nothing where it passes them on as they are.

    As `callwright serve --grounding ask` does it: `completed` are the arguments of all calls with what the request says
    (`data.completed_calls`); a call to a listed tool that lacks a required value even so, or has a value that the
    conversation does not hold, is not made but asked about: `held_back` are the places of such calls, and `question`.
    """
    written = read_answer(row, example.tools).calls
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
    found = grounded(written, schemas, example.messages, questions, likely)
    return {
        **({} if found.calls == written else {"completed": [call["arguments"] for call in found.calls]}),
        **({"held_back": found.held, "question": found.asked} if found.held else {}),
    }


def grammars(tokenizer: Any, examples: Sequence[Any], style: str) -> ConstraintOf:
    """A function that gives a fresh constraint of an example, by its number: words, or calls to its tools.

    Raises CallwrightError where there is no grammar for the model's form.
    """
    form = form_of(tokenizer, style)
    if form.layout is None:
        raise CallwrightError(constrain.no_grammar(form))
    vocabulary = constrain.vocabulary(tokenizer)
    special = constrain.special_markers(vocabulary, form)
    return lambda item: Constraint(vocabulary, constrain.grammar(examples[item].tools, style=form, special=special))


def cost_of(rows: Sequence[Row], seconds: float, batch_size: int, workers: int | None) -> Row:
    """What answers cost: tokens, time, memory, and what they were computed with.

    `seconds` is the time of all parts of an interrupted generation together, the making of the prompts included;
    `peak_memory_gb` (MLX's arrays, the weights among them) is that of the last part. `free` answers were taken over and
    cost nothing here; the rate is that of the others.
    """
    output = sum(row["output_tokens"] for row in rows)
    free = [row for row in rows if row.get("free")]
    return {
        "items": len(rows),
        **({"free": len(free)} if free else {}),
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "output_tokens": output,
        "length_stops": sum(row["finish_reason"] == "length" for row in rows),
        "seconds": round(seconds, 3),
        "output_tokens_per_second": (output - sum(row["output_tokens"] for row in free)) / seconds,
        "peak_memory_gb": mx.get_peak_memory() / 1e9,
        "batch_size": batch_size,
        "workers": workers or default_workers(),
        **device.describe(),
        "versions": {**versions(), "llguidance": metadata.version("llguidance")},
    }


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights, an adapter's among them, and the scales beside them."""
    digest = hashlib.sha256()
    for name, part in sorted(model.named_modules(), key=lambda item: item[0]):
        if isinstance(scale := getattr(part, "scale", None), int | float):  # LoRA's decides as much as its weights
            digest.update(f"{name} {float(scale)}\n".encode())
    for name, array in sorted(tree_flatten(model.parameters())):
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(memoryview(mx.contiguous(array).reshape(-1).view(mx.uint8)))
    return digest.hexdigest()
