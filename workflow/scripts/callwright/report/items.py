"""Every answered item of a run, with each condition's answer and what sets it apart from the expected calls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from callwright.chat.call_format import answer_text, read_answer
from callwright.chat.formats import encode_calls, to_json
from callwright.chat.parse import parse_lenient
from callwright.data.records import ANY_CALL, text_of
from callwright.data.schema import parameters_by_name
from callwright.evals.robustness.changes import clean_id
from callwright.evals.scoring import match, possible_answers

# Parts of a difference: as expected, expected but not given, given but not expected.
SAME, MISSING, EXTRA = "same", "del", "ins"

Rows = Sequence[dict[str, Any]]
Call = dict[str, Any]
Part = tuple[str, str]


def item_rows(
    examples: Sequence[Any],
    scores: Mapping[str, Rows],
    generations: Mapping[str, Rows],
    aim: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Each item of a suite that was answered: its messages, tools, the expected calls and the answers.

    Conditions that gave the same answer are put together. `outcomes` are the words by which the page filters: `+tuned`
    (right), `-tuned` (wrong), error labels, and `gained` or `lost` from `aim["from"]` to `aim["to"]`.
    """
    by_id = {example.id: example for example in examples}
    texts = {condition: {row["id"]: row for row in rows} for condition, rows in generations.items()}
    marks = {condition: {row["id"]: row for row in rows} for condition, rows in scores.items()}
    rows = []
    for identifier in dict.fromkeys(item for of in marks.values() for item in of):
        example = by_id[identifier]
        answers = {
            condition: answer_row(example, of[identifier], texts[condition][identifier])
            for condition, of in marks.items()
            if identifier in of
        }
        rows.append(
            {
                "id": identifier,
                "query": example.query,
                "kind": next(of[identifier]["kind"] for of in marks.values() if identifier in of),
                "messages": [{"role": message["role"], "text": message_text(message)} for message in example.messages],
                "tools": [to_json(tool["function"]) for tool in example.tools],
                "expected": expected_text(example),
                "clean_id": clean_id(example),
                "marks": {condition: answer["correct"] for condition, answer in answers.items()},
                "answers": together(answers),
                "outcomes": " ".join(outcomes(answers, aim)),
            }
        )
    return rows


def together(answers: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The answers with the names of the conditions that gave them."""
    groups: list[tuple[list[str], dict[str, Any]]] = []
    for condition, given in answers.items():
        same = next((names for names, other in groups if other == given), None)
        if same is None:
            groups.append(([condition], given))
        else:
            same.append(condition)
    return [(", ".join(names), given) for names, given in groups]


def outcomes(answers: Mapping[str, dict[str, Any]], aim: Mapping[str, str] | None) -> Iterator[str]:
    """The words by which an item is found."""
    yield from (f"{'+' if given['correct'] else '-'}{condition}" for condition, given in answers.items())
    yield from dict.fromkeys(given["error"] for given in answers.values() if given["error"])
    if aim and aim["from"] in answers and aim["to"] in answers:
        before, after = answers[aim["from"]]["correct"], answers[aim["to"]]["correct"]
        if before != after:
            yield "gained" if after else "lost"


def answer_row(example: Any, mark: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """One condition's answer: `text`, `tokens`, `correct`, `error`, and `difference` where wrong calls were made."""
    calls = [] if mark["ast"] or ANY_CALL in example.tags else made_calls(generation, example.tools)
    return {
        "text": answer_text(dict(generation), example.tools),
        "tokens": generation.get("output_tokens"),
        "correct": mark["ast"],
        "error": mark["error"],
        "difference": list(difference(example, calls)) if calls else [],
    }


def made_calls(generation: Mapping[str, Any], tools: Sequence[dict[str, Any]]) -> list[Call]:
    """The calls that a server would read from an answer; where there is none, those in any other wrapper."""
    return read_answer(dict(generation), tools).calls or parse_lenient(answer_text(dict(generation), tools), tools)


def expected_text(example: Any) -> str:
    """What an item expects, as people read it."""
    if ANY_CALL in example.tags:
        return "a call, whichever"
    return encode_calls(example.calls) or f"no call, as in: {example.answer or '(any words)'}"


def message_text(message: Mapping[str, Any]) -> str:
    """A message's text and the calls that it makes."""
    made = message.get("tool_calls") or []
    return "\n".join([*([text_of(message)] if message.get("content") else []), *map(to_json, made)])


def difference(example: Any, calls: Sequence[Call]) -> Iterator[list[Part]]:
    """The calls of a wrong answer against the expected ones: a line for each call, of parts as (text, SAME …).

    Calls that agree by the scorer's rules are paired first, then those of one tool in their order. What the scorer
    takes for the same is not marked, even if it is written in another way.
    """
    expected, possible = example.calls, getattr(example, "possible", None)
    schemas = parameters_by_name(example.tools)
    partners = match.pair_calls(expected, calls, example.tools, possible)
    free = [at for at in range(len(calls)) if at not in partners]
    for at, wanted in enumerate(expected):
        partner = partners[at]
        if partner is None:
            partner = next((i for i in free if calls[i]["name"] == wanted["name"]), None)
            if partner is not None:
                free.remove(partner)
        if partner is None:
            yield [(call_text(wanted), MISSING)]
        else:
            choices = possible[at] if possible else None
            yield list(call_parts(wanted, calls[partner], schemas.get(wanted["name"], {}), choices))
    for at in free:
        yield [(call_text(calls[at]), EXTRA)]


def call_parts(
    wanted: Call, given: Call, schema: dict[str, Any], possible: Mapping[str, list[Any]] | None
) -> Iterator[Part]:
    """One call against the expected one of the same tool: `name(` its arguments `)`, the differing ones twice."""
    yield f"{wanted['name']}(", SAME
    old, new = wanted["arguments"], given["arguments"]
    separator = ""
    for name in dict.fromkeys([*old, *new]):
        yield separator, SAME
        separator = ", "
        if same_argument(name, old, new, schema, possible):
            if name in new:
                yield argument_text(name, new), SAME
            else:
                yield f"{name} left out", SAME
            continue
        if name in old:
            yield argument_text(name, old), MISSING
        if name in old and name in new:
            yield " ", SAME
        if name in new:
            yield argument_text(name, new), EXTRA
    yield ")", SAME


def same_argument(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], schema: dict[str, Any], possible: Any
) -> bool:
    """Whether the scorer takes one argument of two calls for the same."""
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = [name] if name in (schema.get("required") or ()) else []
    schema = {"properties": {name: properties[name]} if name in properties else {}, "required": required}
    expected, given = ({name: call[name]} if name in call else {} for call in (old, new))
    if possible is None:
        return match.difference(expected, given, schema) is None
    choices = {name: possible[name]} if name in possible else {}
    return possible_answers.difference(choices, given, schema) is None


def argument_text(name: str, arguments: Mapping[str, Any]) -> str:
    """`city="Rome"`."""
    return f"{name}={to_json(arguments[name])}"


def call_text(call: Call) -> str:
    """`get_weather(city="Rome")`."""
    return f"{call['name']}({', '.join(argument_text(name, call['arguments']) for name in call['arguments'])})"
