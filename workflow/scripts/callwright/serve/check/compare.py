"""Is what is served what was evaluated? A running server held against answers that were generated offline.

Each check has a verdict: "ok"; "failed"; "shown", which tells a server's behaviour that is no fault by itself; or
"not shown", where no item of the run lets it be seen (a model that never calls shows no call).
"""

import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from callwright.chat.call_format import KEY, read_answer
from callwright.chat.openai_messages import openai_messages
from callwright.chat.tokens import prompt_ids
from callwright.evals.scoring.score import score_item, summarize
from callwright.serve.check.ask import Asked, Asker, timing

log = logging.getLogger(__name__)
OK, FAILED, SHOWN, NOT_SHOWN = "ok", "failed", "shown", "not shown"
POINT = 0.01  # of the AST score, from 0 to 1


@dataclass(frozen=True, slots=True)
class Check:
    """One check's name, verdict and sentence."""

    check: str
    verdict: str
    about: str


def check_server(
    asker: Asker, tokenizer: Any, examples: Sequence[Any], offline: Sequence[dict[str, Any]], clients: Sequence[int]
) -> dict[str, Any]:
    """All checks of one server: `{"findings", "load": {clients: timing}, "ast", "offline_ast", "ok"}`.

    offline: a generation row for each example, in their order, of the same model under the same rules.
    """
    asker.ask([{"role": "user", "content": "Hi"}], [], max_tokens=1)  # a server may load its model only now
    alone, seconds = asker.ask_all(examples, 1)
    load = {1: timing(alone, seconds)}
    findings = [*kinds(examples, offline, alone), *special(asker, tokenizer, examples, offline, alone)]
    for count in clients:
        if count != 1:
            answers, seconds = asker.ask_all(examples, count)
            load[count] = timing(answers, seconds)
            findings.append(at_once(count, examples, alone, answers))
        log.info("%d clients: %s", count, load.get(count))
    findings.insert(0, lost(alone))
    served, expected = score(examples, alone), score(examples, offline)
    findings.insert(1, same_score(served, expected, len(examples)))
    findings.insert(2, same_prompts(tokenizer, examples, alone))
    return {
        "findings": [asdict(finding) for finding in findings],
        "load": {str(count): load[count] for count in sorted(load)},
        "ast": served,
        "offline_ast": expected,
        "same_text_as_offline": sum(a.text == row["text"] for a, row in zip(alone, offline, strict=True)),
        "ok": all(finding.verdict != FAILED for finding in findings),
    }


def score(examples: Sequence[Any], answers: Sequence[Any]) -> float:
    """The AST score of answers that were asked for or generated offline."""
    rows = []
    for example, answer in zip(examples, answers, strict=True):
        if isinstance(answer, Asked):
            reason = "length" if answer.failure or answer.finish_reason == "length" else "stop"
            answer = {"id": example.id, "suite": "", "condition": "", "finish_reason": reason, "text": answer.text}
        rows.append(score_item(example, answer))
    return summarize(rows)["ast"]


def lost(answers: Sequence[Asked]) -> Check:
    """Did each request get an answer?"""
    failures = [answer.failure for answer in answers if answer.failure]
    about = f"{len(answers) - len(failures)} of {len(answers)} requests were answered, one after the other"
    return Check("answered", FAILED, f"{about}: {failures[0]}") if failures else Check("answered", OK, about)


def same_score(served: float, expected: float, n: int) -> Check:
    """Is the score through the server that of the answers generated offline?"""
    verdict = OK if abs(served - expected) <= POINT + 1e-9 else FAILED
    return Check("score", verdict, f"AST {100 * served:.1f} % served, {100 * expected:.1f} % offline ({n} items)")


def same_prompts(tokenizer: Any, examples: Sequence[Any], answers: Sequence[Asked]) -> Check:
    """Does the server count as many prompt tokens as training and evaluation do?"""
    differing = [
        example.id
        for example, answer in zip(examples, answers, strict=True)
        if not answer.failure and answer.prompt_tokens != len(prompt_ids(tokenizer, example.messages, example.tools))
    ]
    if differing:
        return Check("prompts", FAILED, f"{len(differing)} prompts have another length: {', '.join(differing[:5])}")
    return Check("prompts", OK, "each prompt has as many tokens as in training and evaluation")


def kinds(examples: Sequence[Any], offline: Sequence[dict[str, Any]], answers: Sequence[Asked]) -> list[Check]:
    """One call, several calls, none: for an item with such an answer offline, does the client get the same?"""
    found = []
    for name, wanted in (("one call", (1,)), ("parallel calls", range(2, 100)), ("no call", (0,))):
        numbers = [n for n in range(len(offline)) if ended(offline[n]) and n_calls(offline[n]) in wanted]
        if not numbers:
            found.append(Check(name, NOT_SHOWN, "no answer generated offline is of this kind"))
            continue
        same = [n for n in numbers if same_answer(answers[n], offline[n], examples[n].tools)]
        about = f"the client gets the calls and words generated offline for {len(same)} of {len(numbers)} items"
        found.append(Check(name, OK if same else FAILED, f"{about}, e.g. {examples[(same or numbers)[0]].id}"))
    return found


def special(
    asker: Asker,
    tokenizer: Any,
    examples: Sequence[Any],
    offline: Sequence[dict[str, Any]],
    alone: Sequence[Asked],
) -> list[Check]:
    """Streaming, a conversation with results, and a cut call, on the first item whose answer is a call."""
    number = next((n for n, row in enumerate(offline) if ended(row) and n_calls(row) and alone[n].calls), None)
    if number is None:
        plain = asker.ask(openai_messages(examples[0].messages), examples[0].tools, stream=True)
        nothing = "no answer generated offline is a call"
        return [
            streamed(plain, alone[0], examples[0]),
            Check("results", NOT_SHOWN, nothing),
            Check("cut call", NOT_SHOWN, nothing),
        ]
    example, before = examples[number], alone[number]
    messages = openai_messages(example.messages)
    stream = asker.ask(messages, example.tools, stream=True)
    cut = asker.ask(messages, example.tools, max_tokens=max(before.output_tokens - 4, 1))
    return [streamed(stream, before, example), with_results(asker, tokenizer, example, before), cut_call(cut, before)]


def streamed(stream: Asked, before: Asked, example: Any) -> Check:
    """Is a stream the same answer?"""
    same = (stream.calls, stream.content, stream.finish_reason) == (before.calls, before.content, before.finish_reason)
    if not same or stream.failure:
        return Check("streaming", FAILED, f"{example.id}: {stream.failure or 'another answer than without'}")
    return Check("streaming", OK, f"{example.id}: the same calls, words and finish_reason as without")


def with_results(asker: Asker, tokenizer: Any, example: Any, before: Asked) -> Check:
    """Does a conversation go on after the results of its calls, from the prompt of training?"""
    calls = [{"type": "function", "function": call} for call in before.calls or []]
    results = [{"role": "tool", "content": '{"status": "ok"}'} for _ in calls]
    said = {"role": "assistant", "content": before.content, "tool_calls": calls}
    messages = [*example.messages, said, *results]
    answer = asker.ask(openai_messages(messages), example.tools)
    expected = len(prompt_ids(tokenizer, messages, example.tools))
    if answer.failure or answer.prompt_tokens != expected:
        why = answer.failure or f"{answer.prompt_tokens} prompt tokens instead of {expected}"
        return Check("results", FAILED, f"{example.id}: {why}")
    what = f"{len(answer.calls or [])} calls" if answer.calls else f"{len(answer.content)} characters"
    return Check("results", OK, f"{example.id}: goes on with {what} ({answer.finish_reason}), its prompt as trained")


def cut_call(cut: Asked, before: Asked) -> Check:
    """What does a client see of a call that the limit cuts?"""
    left = len(before.calls or []) - len(cut.calls or [])
    if cut.failure or cut.finish_reason != "length" or not left:
        return Check("cut call", FAILED, cut.failure or f"finish_reason is {cut.finish_reason!r}, {left} calls missing")
    if cut.refusal:
        return Check("cut call", OK, f'reported: finish_reason "length", refusal "{cut.refusal}"')
    return Check("cut call", SHOWN, f'it vanishes: finish_reason "length" is the only sign ({left} call missing)')


def at_once(count: int, examples: Sequence[Any], alone: Sequence[Asked], answers: Sequence[Asked]) -> Check:
    """Are all answers there, and each that of its own request?"""
    name = f"{count} clients"
    failures = [answer.failure for answer in answers if answer.failure]
    if failures:
        return Check(name, FAILED, f"{len(failures)} of {len(answers)} requests are lost: {failures[0]}")
    texts = [answer.text for answer in alone]
    differing = [n for n, answer in enumerate(answers) if answer.text != texts[n]]
    mixed = [n for n in differing if answers[n].text in texts or answers[n].prompt_tokens != alone[n].prompt_tokens]
    about = f"none of {len(answers)} lost, {len(answers) - len(differing)} with the text that they have alone"
    if mixed:
        ids = ", ".join(examples[n].id for n in mixed[:5])
        return Check(name, FAILED, f"{len(mixed)} got the answer to another request: {ids}")
    return Check(name, OK, f"{about}, none mixed up")


def same_answer(answer: Asked, row: dict[str, Any], tools: Sequence[dict[str, Any]]) -> bool:
    """Whether a client got the calls that were generated offline, or without a call the same words."""
    parsed = read_answer(row, tools)
    if answer.failure or answer.calls != parsed.calls:
        return False
    if parsed.calls:
        return True
    return answer.content.strip() == parsed.content.strip() if KEY in row else answer.content == row["text"]


def n_calls(row: dict[str, Any]) -> int:
    """The calls of an answer generated offline."""
    return len(read_answer(row).calls)


def ended(row: dict[str, Any]) -> bool:
    """Whether the model ended an answer itself, with nothing in it that cannot be read."""
    return row["finish_reason"] == "stop" and not read_answer(row).errors


def as_text(found: dict[str, Any]) -> str:
    """The results as a readable page in Markdown."""
    lines = [
        f"# Served against evaluated: {found['run']}",
        "",
        f"{found['items']} items of {found['suite']}, greedy, at most {found['max_output_tokens']} tokens each; "
        f"{found['device']}, {platform.python_implementation()} {platform.python_version()}. {found['weights']}",
    ]
    for name, server in found["servers"].items():
        lines += ["", f"## {name}", "", server["about"], "", "| check | verdict | |", "|---|---|---|"]
        lines += [f"| {row['check']} | {row['verdict']} | {row['about']} |" for row in server["findings"]]
        lines += [
            "",
            "| clients | requests | lost | latency p50, s | p95, s | output tokens/s |",
            "|---|---|---|---|---|---|",
        ]
        for count, row in server["load"].items():
            p50, p95 = (f"{row[key]:.2f}" if row[key] is not None else "–" for key in ("latency_p50", "latency_p95"))
            rate = f"{row['tokens_per_second']:.1f}"
            lines.append(f"| {count} | {row['requests']} | {row['lost']} | {p50} | {p95} | {rate} |")
    return "\n".join(lines) + "\n"
