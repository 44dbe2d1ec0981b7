"""A language model as an audited second opinion on string values that the scorer calls wrong.

Asked only where a second opinion can matter: the right tools were called with arguments that satisfy their schemas,
and what differs from the expected calls are values of text. "12 Main Street" for "12 Main St." is such a case; the
scorer, which is strict so that it is repeatable, calls it wrong. Each pair of values is put to the judge in both
orders, and counts as the same only if both times it says so. The headline stays the scorer's.

A judge is itself measured before it is believed: on pairs of a value with itself (the same) and with another
request's value (different), and on its agreement with the scorer, Cohen's kappa, where the scorer's verdict is known.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from callwright.chat.call_format import read_answer
from callwright.data.schema import parameters_by_name
from callwright.evals.scoring.match import normalize, pair_calls
from callwright.evals.scoring.score import possible_of
from callwright.evals.statistics import cohen_kappa
from callwright.runtime.logs import Progress

# From this share of calibration pairs on, of either kind, a judge's verdicts are worth reading.
TRUSTED = 0.9

Row = dict[str, Any]
Messages = list[dict[str, str]]
# Is it the same? None where the judge's answer could not be read.
Ask = Callable[[Messages], bool | None]

INSTRUCTION = (
    "You compare two values of one argument of a function call. Decide whether a call with value A would do the same "
    'for the user as a call with value B. Answer with JSON alone: {"same": true} or {"same": false}.'
)


@dataclass(frozen=True)
class Pair:
    """An expected and a given value of one text argument, with what a judge must know to compare them.

    `item` names the answer that the pair is part of; pairs of calibration have none.
    """

    request: str
    tool: str
    tool_description: str
    argument: str
    argument_description: str
    expected: str
    given: str
    item: tuple[str, str, str] | None = None  # suite, condition, id


def cases(example: Any, generation: Row, score: Row) -> list[Pair]:
    """The differing text values of one answer; empty unless they are all that the scorer found wrong with it."""
    if score["error"] != "wrong_value" or not example.calls:
        return []
    calls = read_answer(generation, example.tools).calls
    possible = possible_of(example)
    partners = pair_calls(example.calls, calls, example.tools, possible)
    free = [call for number, call in enumerate(calls) if number not in partners]
    item = (generation["suite"], generation["condition"], generation["id"])
    found: list[Pair] = []
    for number, (wanted, partner) in enumerate(zip(example.calls, partners, strict=True)):
        if partner is not None:
            continue
        rival = next((call for call in free if call["name"] == wanted["name"]), None)
        if rival is None:
            return []
        free.remove(rival)
        right = dict(wanted["arguments"])
        if possible:  # the first of the values that are right stands for them
            right = {name: values[0] for name, values in possible[number].items() if values and values[0] != ""}
        if right.keys() != rival["arguments"].keys():
            return []
        for name, value in right.items():
            given = rival["arguments"][name]
            if value == given:
                continue
            if not isinstance(value, str) or not isinstance(given, str):
                return []
            if normalize(value) != normalize(given):
                found.append(_pair(example, wanted["name"], name, value, given, item))
    return found


def agreed(example: Any, generation: Row, score: Row) -> list[Pair]:
    """The text values of an answer that the scorer calls right: what a judge should call the same."""
    if not score["ast"] or not example.calls or possible_of(example):
        return []
    calls = read_answer(generation, example.tools).calls
    partners = pair_calls(example.calls, calls, example.tools)
    return [
        _pair(example, wanted["name"], name, value, calls[partner]["arguments"][name], None)
        for wanted, partner in zip(example.calls, partners, strict=True)
        if partner is not None
        for name, value in wanted["arguments"].items()
        if isinstance(value, str) and isinstance(calls[partner]["arguments"].get(name), str)
    ]


def calibration(examples: Sequence[Any], pairs: int, seed: int = 42) -> tuple[list[Pair], list[Pair]]:
    """Up to `pairs` pairs of an expected value with itself, and with another example's value of the same argument.

    Returns (the same, different). Arguments that have but one value in all examples are left out of the second.
    """
    values: dict[tuple[str, str], list[tuple[Any, str]]] = defaultdict(list)
    for example in examples:
        for call in example.calls:
            for name, value in call["arguments"].items():
                if isinstance(value, str) and value.strip():
                    values[call["name"], name].append((example, value))
    generator = random.Random(seed)
    everything = [(key, *entry) for key, entries in sorted(values.items()) for entry in entries]
    generator.shuffle(everything)
    same, different = [], []
    for (tool, name), example, value in everything:
        if len(same) < pairs:
            same.append(_pair(example, tool, name, value, value, None))
        others = [other for _, other in values[tool, name] if normalize(other) != normalize(value)]
        if others and len(different) < pairs:
            different.append(_pair(example, tool, name, value, generator.choice(others), None))
    return same, different


def _pair(example: Any, tool: str, argument: str, expected: str, given: str, item: tuple[str, str, str] | None) -> Pair:
    function = next(entry["function"] for entry in example.tools if entry["function"]["name"] == tool)
    properties = parameters_by_name(example.tools)[tool].get("properties") or {}
    about = properties.get(argument) if isinstance(properties.get(argument), dict) else {}
    described = (function.get("description", ""), argument, about.get("description", ""))
    return Pair(example.query, tool, *described, expected, given, item)


def question(pair: Pair, swapped: bool) -> Messages:
    """What the judge is asked about a pair; `swapped`: the given value is shown first."""
    a, b = (pair.given, pair.expected) if swapped else (pair.expected, pair.given)
    text = (
        f"The user's request: {pair.request}\n\nFunction: {pair.tool}. {pair.tool_description}\n"
        f"Argument: {pair.argument}. {pair.argument_description}\n\nValue A: {a}\nValue B: {b}"
    )
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": text}]


def verdicts(pairs: Sequence[Pair], ask: Ask) -> list[bool | None]:
    """For each pair True (the same, in both orders), False (different, in both) or None (undecided, or unreadable)."""
    found = []
    progress = Progress("judge", len(pairs), "pairs")
    for pair in pairs:
        first, second = (ask(question(pair, swapped)) for swapped in (False, True))
        found.append(first if first == second else None)
        progress.advance()
    progress.done()
    return found


def judge(
    suites: Mapping[str, Mapping[str, Iterable[tuple[Any, Row, Row]]]], ask: Ask, pairs: int = 50, seed: int = 42
) -> dict[str, Any]:
    """The judge measured, then asked; `suites[suite][condition]` gives (example, generation, score) of each item.

    Returns `{"trusted", "calibration": {"same": {n, right}, "different": {n, right}}, "agreement": {n, share, kappa},
    "suites": {suite: {condition: {"n", "ast", "asked", "same", "different", "undecided", "with_judge"}}},
    "items": [{suite, condition, id, verdict}]}`. `right` counts the verdicts that are as they should be, `ast` the
    items that the scorer calls right, `asked` those that the judge was shown, `with_judge` the share right if its
    word counted. `agreement` is over the scorer's right and wrong text values of all answers, an undecided verdict
    counted as "different"; `kappa` is None where there is nothing to compare.
    """
    answered = {
        (suite, condition): list(triples)
        for suite, by_condition in suites.items()
        for condition, triples in by_condition.items()
    }
    examples = list({example.id: example for triples in answered.values() for example, _, _ in triples}.values())
    same, different = calibration(examples, pairs, seed)
    accepted = [pair for triples in answered.values() for triple in triples for pair in agreed(*triple)]
    random.Random(seed).shuffle(accepted)
    asked = [pair for triples in answered.values() for triple in triples for pair in cases(*triple)]
    accepted = accepted[: max(len(asked), 1)]  # as many of either verdict: kappa means most where both are common
    groups = _split(verdicts([*same, *different, *accepted, *asked], ask), same, different, accepted, asked)
    of_same, of_different, of_accepted, of_asked = groups
    shares = [sum(v is True for v in of_same) / len(same) if same else 0.0]
    shares.append(sum(v is False for v in of_different) / len(different) if different else 0.0)
    scorer = [True] * len(accepted) + [False] * len(asked)
    said = [verdict is True for verdict in [*of_accepted, *of_asked]]
    by_item: dict[tuple[str, str, str], list[bool | None]] = defaultdict(list)
    for pair, verdict in zip(asked, of_asked, strict=True):
        by_item[pair.item].append(verdict)
    decided = {item: _together(found) for item, found in by_item.items()}
    return {
        "trusted": min(shares) >= TRUSTED,
        "calibration": {
            "same": {"n": len(same), "right": sum(v is True for v in of_same)},
            "different": {"n": len(different), "right": sum(v is False for v in of_different)},
        },
        "agreement": {
            "n": len(scorer),
            "share": sum(a == b for a, b in zip(scorer, said, strict=True)) / len(scorer) if scorer else None,
            "kappa": cohen_kappa(scorer, said) if scorer else None,
        },
        "suites": _by_suite(answered, decided),
        "items": [
            {"suite": suite, "condition": condition, "id": identifier, "verdict": verdict}
            for (suite, condition, identifier), verdict in decided.items()
        ],
    }


def _split(found: Sequence[Any], *groups: Sequence[Pair]) -> Iterator[Sequence[Any]]:
    start = 0
    for group in groups:
        yield found[start : start + len(group)]
        start += len(group)


def _together(found: Sequence[bool | None]) -> str:
    """One verdict for an answer with several differing values: the same only if all are."""
    return "different" if False in found else "undecided" if None in found else "same"


def _by_suite(
    answered: Mapping[tuple[str, str], Sequence[tuple[Any, Row, Row]]], decided: Mapping[tuple[str, str, str], str]
) -> dict[str, dict[str, Row]]:
    rows: dict[str, dict[str, Row]] = defaultdict(dict)
    for (suite, condition), triples in answered.items():
        said = [decided.get((suite, condition, generation["id"])) for _, generation, _ in triples]
        right = sum(score["ast"] for _, _, score in triples)
        rows[suite][condition] = {
            "n": len(triples),
            "ast": right,
            "asked": sum(verdict is not None for verdict in said),
            **{word: said.count(word) for word in ("same", "different", "undecided")},
            "with_judge": (right + said.count("same")) / len(triples) if triples else None,
        }
    return dict(rows)
