"""Can an evaluation be trusted? Checks of examples and answers alone, before anybody reads a score.

| check | fails when |
|---|---|
| leak | an expected call stands in its own prompt, in any serialisation, beyond what tools and conversation hold |
| tools | a tool that an example lists is missing from the prompt |
| prompts | conditions that are compared saw prompts that differ by a byte, or a stored hash is not the prompt's |
| items | conditions that are compared answered different items |
| copying | whoever copies the calls that the prompt holds scores above noise |
| no_tools | a condition that was shown no tools (its name begins with `no_tools`) scores above noise |
| gold | the expected answers, given as predictions, do not score 100 % |
| limit | an answer may not be 1.5 times as long as the longest expected one |
| length | of a fine-tuned model that speaks freely more than 1 % of the answers, and more than one, are cut |
| contamination | a request is in the training examples too, or nearly |

Under a grammar an answer cannot always end where the model would have ended it: a cut one there is wrong, and no more.
Peers (`peer_…`) have prompts of their own, which nobody here knows: of these checks only `items` is about them.
A check that lacks what it needs says so instead of passing. In a run of the workflow (`evals.gate`) contamination
stops nothing: it is tagged, and results are given without it too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from callwright.chat.formats import answer_text
from callwright.chat.parse import parse_lenient
from callwright.data.records import ANY_CALL
from callwright.evals.conditions import CONDITIONS
from callwright.evals.prompts import as_shown, fewer_tools
from callwright.evals.scoring.match import match_calls
from callwright.evals.scoring.score import score_item
from callwright.evals.statistics import wilson
from callwright.evals.suites import FAULTY
from callwright.evals.trust.contamination import definitions, shared_with
from callwright.evals.trust.leaks import copied, hidden, leaks
from callwright.runtime.peers import PREFIX

OK, FAILED, UNCHECKED, TAGGED = "ok", "failed", "not checked", "tagged"
NOISE = 0.01  # the share of items that copying, or guessing without tools, may get right
ROOM = 1.5  # an answer may be so much longer than the longest expected one
CUT = 0.01  # the share of a fine-tuned condition's answers that the limit may cut
# Conditions whose prompts differ by design.
OTHER_PROMPTS = ("base_fewshot", "no_tools", PREFIX)
TUNED = ("tuned", "fused", "general")
CONSTRAINED = frozenset(name for name, condition in CONDITIONS.items() if condition.grammar)

Row = dict[str, Any]
Prompt = Callable[[Row], str | None]


@dataclass
class Finding:
    """What a check found: its name, the verdict (OK, FAILED, UNCHECKED, TAGGED), a sentence, and the items meant."""

    check: str
    verdict: str
    about: str
    items: list[str] = field(default_factory=list)


def audit(
    examples: Sequence[Any],
    generations: Sequence[Row],
    prompt_of: Prompt = lambda row: row.get("prompt"),
    train: Sequence[Any] | None = None,
    limit: int | None = None,
    count_tokens: Callable[[str], int] | None = None,
    max_cut: float = CUT,
    style: str = "hermes",
) -> list[Finding]:
    """Every check of one suite, in the order of the table above.

    examples: the suite's. generations: rows of all conditions, each of an example. prompt_of: the text that was
    given to the model for a row, None where it is not known. train: the training examples. limit: the most tokens
    that an answer may have; None takes it from the rows (`max_output_tokens`, or those that were cut).
    count_tokens: the length of a text in tokens; None estimates it from the rows' `output_tokens`. max_cut: the share
    of a fine-tuned condition's answers that the limit may cut. style: how the expected answers are written
    (`chat.formats.STYLES`), for their length.
    """
    by_id = {example.id: example for example in examples}
    prompts: dict[tuple[str, str], tuple[Any, bool]] = {}  # by id and prompt: as it was shown; was it to show tools?
    for row in generations:
        if (text := prompt_of(row)) is not None:
            shown = as_shown(by_id[row["id"]], row)
            prompts.setdefault((row["id"], text), (shown, not row["condition"].startswith("no_tools")))
    pairs = [(example, text) for (_, text), (example, _) in prompts.items()]
    return [
        leak(pairs),
        tools_shown([pair for pair, (_, tools) in zip(pairs, prompts.values(), strict=True) if tools]),
        same_prompts(generations, prompt_of),
        same_items(generations),
        copying(pairs),
        without_tools(by_id, generations),
        gold(examples),
        room(examples, generations, limit, count_tokens, style),
        cut_answers(generations, max_cut),
        contamination(examples, train),
    ]


def leak(pairs: Sequence[tuple[Any, str]]) -> Finding:
    """Does a prompt hold one of its own expected calls, more often than tools and conversation do?"""
    if not pairs:
        return _no_prompts("leak")
    found = [example.id for example, prompt in pairs if leaks(example, prompt)]
    return _finding(
        "leak",
        found,
        len(pairs),
        "prompts hold a call that is expected of them",
        "no prompt holds a call that is expected of it",
    )


def tools_shown(pairs: Sequence[tuple[Any, str]]) -> Finding:
    """Does each prompt name each tool that its example lists, with its parameters, beside the request?"""
    if not pairs:
        return _no_prompts("tools")
    found, first = [], ""
    for example, prompt in pairs:
        missing = hidden(example, prompt)
        if missing:
            found.append(example.id)
            first = first or f" ({missing[0]!r} in {example.id})"
    return _finding(
        "tools",
        found,
        len(pairs),
        f"prompts lack a tool, or a parameter, of their example{first}",
        "every prompt names the tools of its example, and their parameters",
    )


def same_prompts(generations: Sequence[Row], prompt_of: Prompt) -> Finding:
    """Did the conditions that are compared see the same bytes, and are the stored hashes those of the prompts?"""
    hashes: dict[str, dict[str, str]] = defaultdict(dict)
    forged = []
    for row in generations:
        text = prompt_of(row)
        computed = None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        stored = row.get("prompt_sha256") or computed
        if computed and stored != computed:
            forged.append(row["id"])
        if stored and not row["condition"].startswith(OTHER_PROMPTS) and not fewer_tools(row):
            hashes[row["id"]][row["condition"]] = stored
    compared = {condition for of in hashes.values() for condition in of}
    differing = [identifier for identifier, of in hashes.items() if len(set(of.values())) > 1]
    if forged:
        return Finding("prompts", FAILED, "the stored prompt_sha256 is not that of the prompt", _unique(forged))
    peers = sorted({row["condition"] for row in generations if row["condition"].startswith(PREFIX)})
    apart = f"; {', '.join(peers)} had prompts of their own, which are not known" if peers else ""
    if fewer := sum(map(fewer_tools, generations)):
        apart += f"; {fewer} prompts show the tools alone that the tool encoder left"
    if len(compared) < 2:
        return Finding("prompts", UNCHECKED, f"there is only one condition with prompts to compare{apart}")
    which = ", ".join(sorted(compared))
    bad, good = f"items have prompts that differ between {which}", f"{which} saw the same bytes{apart}"
    return _finding("prompts", differing, len(hashes), bad, good)


def same_items(generations: Sequence[Row]) -> Finding:
    """Did the conditions answer the same items?"""
    answered: dict[str, set[str]] = defaultdict(set)
    for row in generations:
        answered[row["condition"]].add(row["id"])
    if len(answered) < 2:
        return Finding("items", UNCHECKED, "there is only one condition")
    everything = set().union(*answered.values())
    missing = [row["id"] for row in generations if any(row["id"] not in ids for ids in answered.values())]
    return _finding(
        "items",
        missing,
        len(everything),
        "items lack the answer of a condition",
        "every condition answered the same items",
    )


def copying(pairs: Sequence[tuple[Any, str]]) -> Finding:
    """How often does the prompt hold every expected call, for whoever knows which of its calls to copy?"""
    if not pairs:
        return _no_prompts("copying")
    asked = [(example, prompt) for example, prompt in pairs if example.calls]
    right = [example.id for example, prompt in asked if copied(example, prompt)]
    about = f"copying calls out of the prompt is right for {len(right)} of {len(asked)}"
    return _above_noise("copying", right, len(asked), about)


def without_tools(by_id: Mapping[str, Any], generations: Sequence[Row]) -> Finding:
    """How often is a condition that saw no tools right about what to call?"""
    rows = [row for row in generations if row["condition"].startswith("no_tools") and by_id[row["id"]].calls]
    if not rows:
        return Finding("no_tools", UNCHECKED, "there is no condition without tools (named no_tools…)")
    right = [row["id"] for row in rows if _right(by_id[row["id"]], parse_lenient(row["text"], by_id[row["id"]].tools))]
    return _above_noise("no_tools", right, len(rows), f"without tools {len(right)} of {len(rows)} are right")


def gold(examples: Sequence[Any]) -> Finding:
    """Do the expected answers, written as the model should write them, score 100 %?

    Left out are items that expect some call, whichever, and those whose own answer is known to be at fault.
    """
    failed = []
    faulty = sum(FAULTY in example.tags for example in examples)
    ceiling = f"; {faulty} more have no right answer: at most {1 - faulty / len(examples):.1%} can be right"
    examples = [example for example in examples if not {FAULTY, ANY_CALL}.intersection(example.tags)]
    for example in examples:
        row = {"id": example.id, "suite": "", "condition": "", "finish_reason": "stop", "text": answer_text(example)}
        if not score_item(example, row)["exact"]:
            failed.append(example.id)
    found = _finding(
        "gold",
        failed,
        len(examples),
        "expected answers do not score when given as predictions",
        "the expected answers score 100 % when given as predictions",
    )
    return replace(found, about=found.about + ceiling) if faulty else found


def room(
    examples: Sequence[Any],
    generations: Sequence[Row],
    limit: int | None,
    count_tokens: Callable[[str], int] | None,
    style: str = "hermes",
) -> Finding:
    """Is the limit of tokens at least 1.5 times the longest expected answer? Peers count in tokens of their own."""
    generations = [row for row in generations if not row["condition"].startswith(PREFIX)]
    limits = {row["max_output_tokens"] for row in generations if isinstance(row.get("max_output_tokens"), int)}
    limits |= {n for row in generations if row["finish_reason"] == "length" and (n := row.get("output_tokens"))}
    limit = limit or min(limits, default=None)
    if limit is None:
        return Finding(
            "limit", UNCHECKED, "no answer was cut, and no row has `max_output_tokens`: the limit is unknown"
        )
    how = "counted"
    if count_tokens is None:
        measured = [(row["output_tokens"], len(row["text"])) for row in generations if row.get("output_tokens")]
        characters = sum(length for _, length in measured)
        if not characters:
            return Finding("limit", UNCHECKED, "no row has `output_tokens`: lengths in tokens cannot be estimated")
        rate, how = (
            sum(tokens for tokens, _ in measured) / characters,
            "estimated from the answers' tokens per character",
        )

        def count_tokens(text: str) -> int:
            return round(rate * len(text))

    lengths = {example.id: count_tokens(answer_text(example, style)) for example in examples}
    longest = max(lengths.values())
    short = [identifier for identifier, length in lengths.items() if ROOM * length > limit]
    about = f"answers may have {limit} tokens; the longest expected one has {longest} ({how})"
    return Finding("limit", FAILED if short else OK, f"{about}: {limit / max(longest, 1):.1f} times", short)


def must_end(condition: str) -> bool:
    """Whether a condition's answers end by themselves: those of a fine-tuned model that speaks freely."""
    return condition.startswith(TUNED) and condition not in CONSTRAINED


def cut_answers(generations: Sequence[Row], most: float = CUT) -> Finding:
    """The share of answers of each condition that end at the limit; of one that `must_end` at most `most`, or one.

    With `most` 0 not even one.
    """
    by_condition: dict[str, list[Row]] = defaultdict(list)
    for row in generations:
        by_condition[row["condition"]].append(row)
    parts, failed = [], []
    for condition, rows in by_condition.items():
        cut = [row["id"] for row in rows if row["finish_reason"] == "length"]
        parts.append(f"{condition} {len(cut)} of {len(rows)} ({len(cut) / len(rows):.1%})")
        if must_end(condition) and len(cut) > (max(1, most * len(rows)) if most else 0):
            failed += cut
    about = "answers that the limit cut: " + ", ".join(parts)
    return Finding("length", FAILED if failed else OK, about, _unique(failed))


def contamination(examples: Sequence[Any], train: Sequence[Any] | None) -> Finding:
    """Which requests are training requests too, or nearly; and how many wordings and tools are the same."""
    if train is None:
        return Finding("contamination", UNCHECKED, "no training examples were given")
    shared = shared_with(train, examples)
    about = contamination_text(shared, examples, train)
    found = shared["same_request"] + shared["near_request"]
    return Finding("contamination", FAILED if found else OK, about, found)


def contamination_text(shared: Mapping[str, Sequence[str]], examples: Sequence[Any], train: Sequence[Any]) -> str:
    """What `shared_with` found, as a sentence."""
    listed = definitions(examples)
    return (
        f"{len(shared['same_request'])} of {len(examples)} requests are in the {len(train)} training examples, "
        f"{len(shared['near_request'])} more nearly, {len(shared['same_template'])} in the same wording; "
        f"{len(listed & definitions(train))} of {len(listed)} tool definitions are the same"
    )


def _right(example: Any, calls: list[Row]) -> bool:
    return match_calls(example.calls, calls, example.tools, getattr(example, "possible", None))


def _finding(check: str, failed: Sequence[str], n: int, bad: str, good: str) -> Finding:
    failed = _unique(failed)
    about = f"{len(failed)} of {n} {bad}" if failed else f"{good} ({n} looked at)"
    return Finding(check, FAILED if failed else OK, about, failed)


def _above_noise(check: str, right: Sequence[str], n: int, about: str) -> Finding:
    low, high = wilson(len(right), n)
    about += f" [{100 * low:.1f} to {100 * high:.1f} %]; noise is up to {100 * NOISE:.0f} %"
    return Finding(check, FAILED if low > NOISE else OK, about, _unique(right) if low > NOISE else [])


def _no_prompts(check: str) -> Finding:
    return Finding(check, UNCHECKED, "no row carries its `prompt`, and no model was named to render it")


def _unique(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))
