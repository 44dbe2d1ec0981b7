"""BFCL's own AST checker, out of its wheel, and answers changed in all ways that it should notice.

`python tests/bfcl_official.py` prints how often its verdict differs from ours, by kind of change, with examples.
"""

import importlib
import json
import random
import sys
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from callwright.data.formats import bfcl  # noqa: E402
from callwright.data.formats.readers import read_values  # noqa: E402
from callwright.evals.scoring.match import match_calls  # noqa: E402
from callwright.evals.suites import BFCL, CATEGORIES, bfcl_records, file_name, unpack  # noqa: E402
from callwright.models.fetch import checked_wheel  # noqa: E402
from callwright.models.folders import fresh_folder  # noqa: E402


def fetched(cache):
    """The wheel unpacked: `cache`/code for Python's path and `cache`/data as rule fetch_suites has it."""
    folder = Path(cache) / BFCL["version"]
    if not (folder / "data").exists():
        folder.mkdir(parents=True, exist_ok=True)
        wheel = checked_wheel(BFCL, folder)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "code", [n for n in archive.namelist() if n.endswith(".py")])
        with fresh_folder(folder / "data") as filling:
            unpack(wheel, filling)
    return folder


def official(folder):
    """`verdict(row, truth, calls, category)`: True, False, or the name of the exception that the checker raises.

    It imports the models that the leaderboard lists, with all their clients, to know which of them write dots in
    names as underscores. None of ours does, so a table that says so stands in for them.
    """
    stub = ModuleType("bfcl_eval.constants.model_config")
    stub.MODEL_CONFIG_MAPPING = defaultdict(lambda: SimpleNamespace(underscore_to_dot=False))
    before = dict(sys.modules)
    sys.path.insert(0, str(folder / "code"))
    sys.modules[stub.__name__] = stub
    try:
        checker = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker
        python = importlib.import_module("bfcl_eval.constants.enums").Language.PYTHON
    finally:
        sys.path.remove(str(folder / "code"))
        for name in set(sys.modules) - set(before):
            if name.startswith("bfcl_eval"):
                del sys.modules[name]

    def verdict(row, truth, calls, category):
        output = [{call["name"]: call["arguments"]} for call in calls]
        try:
            return checker(row["function"], output, truth, python, category, "any")["valid"]
        except (TypeError, AttributeError, KeyError, IndexError) as error:
            return type(error).__name__

    return verdict


def items(folder):
    """`(category, row, truth, example)` of every item that has an answer."""
    for category in CATEGORIES:
        path = folder / "data" / file_name(category)
        answers = bfcl.answers_beside(path)
        if answers:
            examples = dict(bfcl_records(folder / "data", category))
            for _, row in read_values(path):
                yield category, row, answers[row["id"]], examples[row["id"]]


def other_values(value, rng):
    """Values near `value`, of its type and of others, by kind of change."""
    yield "type", rng.choice([None, 1, 1.0, True, "", "x", [], [value], {}, {"x": value}, str(value), "true", 0, False])
    yield "empty", rng.choice(["", [], {}, 0, " "])
    if isinstance(value, bool):
        yield "value", not value
    elif isinstance(value, int):
        yield "int as float", float(value)
        yield "value", value + rng.choice([-1, 1, 10])
    elif isinstance(value, float):
        yield "value", value * rng.choice([-1, 2, 1.001])
        yield "float as int", int(value)
    elif isinstance(value, str):
        yield "spelling", rng.choice([value.upper(), value.replace(" ", ""), f"{value}.", value.replace("-", "/")])
        yield "value", rng.choice([value + "x", value[:-1], value[::-1], value.replace("'", '"'), f"the {value}"])
    elif isinstance(value, list):
        yield "list reversed", value[::-1]
        yield "list shorter", value[:-1]
        yield "list longer", value + value[:1] + rng.choice([[], [1], ["x"]])
        for index in range(min(len(value), 2)):
            for kind, changed in other_values(value[index], rng):
                yield f"item: {kind}", [*value[:index], changed, *value[index + 1 :]]
    elif isinstance(value, dict):
        yield "field added", {**value, "x": 1}
        for name in list(value)[:3]:
            yield "field dropped", {key: item for key, item in value.items() if key != name}
            for kind, changed in other_values(value[name], rng):
                yield f"field: {kind}", {**value, name: changed}


def changed_arguments(arguments, possible, schema, rng):
    """Other arguments of one call, by kind of change."""
    for name, value in arguments.items():
        yield "argument dropped", {key: item for key, item in arguments.items() if key != name}
        yield "argument renamed", {(key + "_" if key == name else key): item for key, item in arguments.items()}
        for kind, changed in other_values(value, rng):
            yield kind, {**arguments, name: changed}
    yield "argument added", {**arguments, "unheard_of": 1}
    for name, choices in possible.items():
        for choice in choices:
            plain = bfcl._nested(choice)
            yield "another right value", {**arguments, name: plain}
            if isinstance(plain, list):
                yield "another right value", {**arguments, name: [bfcl._nested(item) for item in plain]}
    for name, part in (schema.get("properties") or {}).items():
        if name not in arguments:
            samples = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
            yield "optional added", {**arguments, name: part.get("default", samples.get(part.get("type"), "x"))}


def changed_answers(example, rng, most=None):
    """Changed answers of one item, by kind; at most so many of each kind, drawn at random."""
    found = defaultdict(list)
    calls = example.calls
    found["as it is"].append(calls)
    found["no call"].append([])
    found["order"] += [calls[::-1], rng.sample(calls, len(calls))]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
    for index, call in enumerate(calls):
        before, after = calls[:index], calls[index + 1 :]
        found["call dropped"].append(before + after)
        found["call twice"].append([*before, call, call, *after])
        found["call replaced by another"].append([*before, rng.choice(calls), *after])
        for name in [call["name"] + "_", call["name"].upper(), rng.choice(list(schemas))]:
            found["name"].append([*before, {**call, "name": name}, *after])
        for kind, arguments in changed_arguments(
            call["arguments"], example.possible[index], schemas.get(call["name"], {}), rng
        ):
            found[kind].append([*before, {**call, "arguments": arguments}, *after])
    found["call added"].append([*calls, {"name": rng.choice(list(schemas)), "arguments": {}}])
    for kind, answers in found.items():
        for answer in answers if most is None or len(answers) <= most else rng.sample(answers, most):
            yield kind, answer


def compare(folder, most=None, seed=0):
    """`(verdicts by kind, disagreements)`: of every item and change the official verdict and ours."""
    verdict = official(folder)
    counts, disagreements = defaultdict(Counter), []
    for category, row, truth, example in items(folder):
        rng = random.Random(f"{seed} {example.id}")
        for kind, calls in changed_answers(example, rng, most):
            calls = json.loads(json.dumps(calls))
            theirs = verdict(row, truth, calls, category)
            ours = match_calls(example.calls, calls, example.tools, example.possible)
            counts[kind][theirs, ours] += 1
            if theirs != ours:
                disagreements.append((example.id, kind, theirs, ours, calls, truth))
    return counts, disagreements


if __name__ == "__main__":
    counts, disagreements = compare(fetched(ROOT / ".cache" / "bfcl"), *map(int, sys.argv[1:]))
    total = sum(sum(found.values()) for found in counts.values())
    print(f"{total} answers, {len(disagreements)} verdicts differ")
    for kind, found in sorted(counts.items()):
        print(f"{kind:32}", dict(found))
    for entry in disagreements[:60]:
        print(*entry, sep=" | ")
