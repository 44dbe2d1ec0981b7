"""Scores from stored generations: a funnel of stages, each implying the one before.

| stage | an item that expects calls | an item that expects none |
|---|---|---|
| terminated | the model ended its answer; the token limit did not | the same |
| native_parse | at least one well-formed call and no malformed one | no malformed attempt at a call |
| known_tools | every call is to an offered tool | the same, if any call was made |
| schema_valid | every call's arguments satisfy the tool's JSON Schema | the same, if any call was made |
| names | the multiset of called names is the expected one | no call was made |
| ast | the calls match the expected ones (`match.match_calls`) | and it said something, in prose |
| exact | they are equal to the letter, in any order | the same as ast |

Where an item lists the values that are right of each argument (`possible`, BFCL's), these decide about `ast`,
and calls that they accept are valid even if the tool's schema says otherwise. An item that expects some call,
whichever (`records.ANY_CALL`), has passed every stage when a well-formed call was made.

"Well-formed" is what the stock server would hand to its client (`chat.call_format.read_answer`: blocks of the Hermes
form, or the model's own form by mlx-lm's parser of it). Garbage is
not abstaining: broken markup, JSON that looks like a call, and silence all fail an item that expects none.
Beside the funnel stands `lenient_ast`: does the answer make the expected calls in whatever wrapper
(`chat.parse.parse_lenient`), however it ends? It tells knowing the task from knowing the format, and
it favours the base model: it forgives what a server would not. And each row counts how much of the expected calls
and arguments is there (`overlap`), and what became of an item that expects none (`OUTCOMES`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from callwright.chat.attempts import attempts_call
from callwright.chat.call_format import KEY, answer_text, read_answer
from callwright.chat.parse import Parsed, parse_lenient
from callwright.data.grounding import context_of, unsaid
from callwright.data.records import ANY_CALL
from callwright.data.schema import parameters_by_name
from callwright.evals.scoring import failure_labels
from callwright.evals.scoring.asking import asks_for_it
from callwright.evals.scoring.match import exactly_equal, match_calls, same_names
from callwright.evals.scoring.overlap import overlap
from callwright.evals.statistics import wilson
from callwright.runtime.errors import CallwrightError

STAGES = ("terminated", "native_parse", "known_tools", "schema_valid", "names", "ast", "exact")
KINDS = ("one", "several", "none")
# What an item that expects no call may get: prose alone; anything that is neither; a well-formed call.
LENGTHS = ("1", "2-4", "5-8", "9-16", "17+")  # tools on offer
PLACES = ("first", "between", "last")  # of the tool to call
OUTCOMES = ("abstained", "malformed", "called")


def score_all(examples: Iterable[Any], generations: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A score row per generation, in order. Raises CallwrightError for an unknown or repeated id, or no generation."""
    by_id = {example.id: example for example in examples}
    rows, seen = [], set()
    for generation in generations:
        identifier = generation["id"]
        if identifier not in by_id:
            raise CallwrightError(
                f"generation {identifier!r} answers no example of the suite: generate and score again"
            )
        if identifier in seen:
            raise CallwrightError(f"generation {identifier!r} is stored twice: generate again")
        seen.add(identifier)
        rows.append(score_item(by_id[identifier], generation))
    if not rows:
        raise CallwrightError("there are no generations to score")
    return rows


def score_item(example: Any, generation: dict[str, Any]) -> dict[str, Any]:
    """The score row of one answer: the funnel's stages, the last stage reached, one error label or None.

    example: has `id`, `tools` (OpenAI tool objects), `calls` (the expected ones) and maybe `possible`, `tags`, and
    `messages`, against which calls are held, as a `records.Example` has them. generation: a row with `id`, `suite`,
    `condition`, `finish_reason` and `text`. Nothing but these decides.
    """
    parsed = read_answer(generation, example.tools)
    reached = 0
    for passed in _tests(example, generation, parsed):
        if not passed:
            break
        reached += 1
    stages = {stage: number < reached for number, stage in enumerate(STAGES)}
    return {
        "id": generation["id"],
        "suite": generation["suite"],
        "condition": generation["condition"],
        "kind": "any" if any_call(example) else kind(example.calls),
        **stages,
        "stage": STAGES[reached - 1] if reached else "started",
        "lenient_ast": stages["ast"] or lenient_match(example, generation),
        "error": None if stages["ast"] else error_label(example, generation, parsed, reached),
        "abstention": None if example.calls or any_call(example) else outcome(parsed, stages["ast"]),
        "asked_right": None if example.calls else asks_for_it(example, parsed.content if stages["ast"] else ""),
        "ungrounded": held_back(example, parsed),
        "tools": len(example.tools),
        "place": place(example),
        **overlap(example.calls, parsed.calls, example.tools, possible_of(example)),
    }


def held_back(example: Any, parsed: Parsed) -> int:
    """How many of an answer's calls have a value that the conversation does not hold (`data.grounding`)."""
    messages = getattr(example, "messages", None)
    if not parsed.calls or not messages:
        return 0
    schemas, context = parameters_by_name(example.tools), context_of(messages)
    return sum(
        bool(call["name"] in schemas and unsaid(context, call["arguments"], schemas[call["name"]]))
        for call in parsed.calls
    )


def place(example: Any) -> str | None:
    """Where the one tool to call stands among at least three: `first`, `last`, or `between`."""
    names = [tool["function"]["name"] for tool in example.tools]
    if len(example.calls) != 1 or len(names) < 3 or example.calls[0]["name"] not in names:
        return None
    at = names.index(example.calls[0]["name"])
    return "first" if at == 0 else "last" if at == len(names) - 1 else "between"


def kind(calls: Sequence[Any]) -> str:
    """What an item expects: `none`, `one` or `several` calls."""
    return "none" if not calls else "one" if len(calls) == 1 else "several"


def outcome(parsed: Parsed, correct: bool) -> str:
    """One of OUTCOMES. A cut answer, garbage and silence are no abstaining: without a call they are `malformed`."""
    return "called" if parsed.calls else "abstained" if correct else "malformed"


def _tests(example: Any, generation: dict[str, Any], parsed: Parsed) -> Iterator[bool]:
    """Each stage's own test in the order of STAGES; asked only as far as they pass."""
    expected, tools, calls = example.calls, example.tools, parsed.calls
    any_will_do, possible = any_call(example), possible_of(example)
    yield generation["finish_reason"] == "stop"
    yield bool(calls) and not parsed.errors if expected or any_will_do else not malformed(parsed, tools)
    if any_will_do:
        yield from [True] * len(STAGES[2:])
        return
    schemas = parameters_by_name(tools)
    yield all(call["name"] in schemas for call in calls)
    listed = possible is not None and match_calls(expected, calls, tools, possible)
    yield listed or all(failure_labels.schema_error(call, schemas[call["name"]]) is None for call in calls)
    yield same_names(expected, calls)
    yield match_calls(expected, calls, tools, possible) and (bool(expected) or failure_labels.is_prose(parsed.content))
    yield exactly_equal(expected, calls)


def any_call(example: Any) -> bool:
    """True for an item that expects some call, whichever."""
    return ANY_CALL in getattr(example, "tags", ())


def possible_of(example: Any) -> Sequence[dict[str, list[Any]]] | None:
    """An item's lists of right values, a dict for each of its calls; None where only its own values are right."""
    return getattr(example, "possible", None)


def malformed(parsed: Parsed, tools: Sequence[dict[str, Any]]) -> bool:
    """True when an answer tries to make a call and fails: the third outcome beside calling and abstaining."""
    return bool(parsed.errors) or attempts_call(parsed.content, tools)


def lenient_match(example: Any, generation: dict[str, Any]) -> bool:
    """True when the answer means what was expected, whatever wrapper its calls stand in and however it ends."""
    text, read = answer_text(generation, example.tools), read_answer(generation, example.tools)
    calls = parse_lenient(text, example.tools)
    if any_call(example):
        return bool(calls)
    if example.calls:
        return match_calls(example.calls, calls, example.tools, possible_of(example))
    return (
        not calls
        and not malformed(read, example.tools)
        and failure_labels.is_prose(read.content if KEY in generation else text)
    )


def error_label(example: Any, generation: dict[str, Any], parsed: Parsed, reached: int) -> str:
    """The one label of an item that failed after `reached` stages (0 to 5); see `failure_labels.LABELS`."""
    expected, tools, calls = example.calls, example.tools, parsed.calls
    if reached == 0:
        return "prompt_too_long" if generation["finish_reason"] == "too_long" else "truncated"
    if not expected and not any_call(example):
        return "called_when_should_abstain" if calls else "unparseable"
    failed = STAGES[reached]
    if failed == "native_parse":
        abstained = not malformed(parsed, tools) and failure_labels.is_prose(parsed.content)
        return "abstained_when_should_call" if abstained else "unparseable"
    if failed == "known_tools":
        return "hallucinated_tool"
    if failed == "schema_valid":
        schemas = parameters_by_name(tools)
        return next(filter(None, (failure_labels.schema_error(call, schemas[call["name"]]) for call in calls)))
    if failed == "names":
        return failure_labels.name_error(expected, calls)
    return failure_labels.value_error(expected, calls, tools, possible_of(example))


def summarize(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates (0 to 1) and counts of one suite and condition, with 95 % Wilson intervals for `ast`.

    Returns `{"n", <stage>: rate, ..., "lenient_ast": rate, "length_stops": count, "ast_ci95": [lo, hi],
    "counts": {<stage>: count}, "kinds": {"one" | "several" | "none": {"n", "ast", ...}},
    "errors": {label: count}, "calls" | "arguments": {"expected", …, "recall", "precision"},
    "abstention": {"n", "abstained", "malformed", "called"}, "balanced_accuracy": of the decision to call, or None,
    "asked_right": {"n", "right"} of the items that lack a value, "grounding": answers with a call that nobody said all
    of ("held_back"), of these the ones that should not have called and the right ones ("won", "lost"), "by_tools" and
    "by_place": {name: {"n", "ast"}} by how many tools are on offer and where the right one stands}`; rates are None for
    a kind without items. A kind "any" is there only with items. Recall and precision are micro-averages: counts of all
    items added up, then divided; None where nothing was expected, or nothing given. Items that take any call are not
    in them.
    """
    summary = _rates(scores)
    summary["length_stops"] = sum(not row["terminated"] and row["error"] != "prompt_too_long" for row in scores)
    kinds = [*KINDS, *(["any"] if any(row["kind"] == "any" for row in scores) else [])]
    summary["kinds"] = {name: _rates([row for row in scores if row["kind"] == name]) for name in kinds}
    found = Counter(row["error"] for row in scores if row["error"])
    summary["errors"] = {label: found[label] for label in failure_labels.LABELS if found[label]}
    outcomes = Counter(row["abstention"] for row in scores if row["abstention"])
    summary["abstention"] = {"n": outcomes.total(), **{name: outcomes[name] for name in OUTCOMES}}
    summary["balanced_accuracy"] = balanced_accuracy(scores)
    summary["by_tools"] = _by(scores, lambda row: length_of(row.get("tools")), LENGTHS)
    summary["by_place"] = _by(scores, lambda row: row.get("place"), PLACES)
    held = [row for row in scores if row.get("ungrounded")]
    summary["grounding"] = {
        "held_back": len(held),
        "won": sum(row["kind"] == "none" and row["calls"]["made"] == row["ungrounded"] for row in held),
        "lost": sum(row["ast"] for row in held),
    }
    asked = [row["asked_right"] for row in scores if row.get("asked_right") is not None]
    summary["asked_right"] = {"n": len(asked), "right": sum(asked)}
    answers = [row for row in scores if row["kind"] != "any"]
    summary["calls"] = _added([row["calls"] for row in answers], "made", "right")
    summary["arguments"] = _added([row["arguments"] for row in answers], "given", "found")
    return summary


def length_of(tools: int | None) -> str | None:
    """Which of LENGTHS so many tools are."""
    if tools is None:
        return None
    return next((name for name, most in zip(LENGTHS, (1, 4, 8, 16), strict=False) if tools <= most), LENGTHS[-1])


def _by(
    scores: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], str | None], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """`{name: {"n", "ast"}}`: how many rows are of each name, and how many of them are right."""
    groups = {name: [row for row in scores if of(row) == name] for name in names}
    return {name: {"n": len(rows), "ast": sum(row["ast"] for row in rows)} for name, rows in groups.items()}


def balanced_accuracy(scores: Sequence[dict[str, Any]]) -> float | None:
    """The mean of two rates: calls made where some were wanted, words alone where none was; None without both kinds.

    Whether a call is the right one does not count here: the decision to call does.
    """
    wanted = [row["calls"]["made"] > 0 for row in scores if row["kind"] in ("one", "several")]
    none = [row["abstention"] == "abstained" for row in scores if row["kind"] == "none"]
    if not wanted or not none:
        return None
    return (sum(wanted) / len(wanted) + sum(none) / len(none)) / 2


def _added(counts: Sequence[dict[str, int]], given: str, found: str) -> dict[str, Any]:
    """Counts added up, with `recall`, the share of what was expected, and `precision`, the share of what was given."""
    added = sum(map(Counter, counts), Counter())
    names = dict.fromkeys(name for row in counts for name in row)
    return {
        **{name: added[name] for name in names},
        "recall": added[found] / added["expected"] if added["expected"] else None,
        "precision": added["right"] / added[given] if added[given] else None,
    }


def _rates(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    n = len(scores)
    counts = {name: sum(row[name] for row in scores) for name in (*STAGES, "lenient_ast")}
    return {
        "n": n,
        **{name: count / n if n else None for name, count in counts.items()},
        "counts": counts,
        "ast_ci95": list(wilson(counts["ast"], n)),
    }
