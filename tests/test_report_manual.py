"""The manual says what the schema, the rules and the library say."""

import re
from dataclasses import fields

import pytest
import yaml
from fixtures_workflow import xlam_rows

from callwright.chat.formats import STYLES
from callwright.data.formats.xlam import to_example
from callwright.data.records import Example
from callwright.data.text import KNOWN
from callwright.evals.scoring.score import KINDS, STAGES, score_all
from callwright.report import manual
from callwright.runtime.files import read_jsonl


@pytest.fixture(scope="module")
def text(root):
    return (root / manual.MANUAL).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def schema(root):
    return yaml.safe_load((root / manual.SCHEMA).read_text(encoding="utf-8"))


def test_the_generated_parts_are_those_of_today(text, root):
    """Else: python -m callwright.report.manual"""
    assert manual.renewed(text, manual.generated(root)) == text


def keys(part, name):
    """The dotted names of a key and of all below it."""
    yield name
    for below, inner in part.get("properties", {}).items():
        yield from keys(inner, f"{name}.{below}")


def test_every_key_stands_in_a_table_with_a_meaning(text, schema):
    rows = dict(re.findall(r"^\| `([\w.]+)` \|(.*)\|$", text, flags=re.MULTILINE))
    for name, part in schema["properties"].items():
        for key in keys(part, name):
            if key in schema["properties"] and part.get("properties"):
                assert f"### {key}\n" in text
                continue
            default, may_be, meaning = (cell.strip() for cell in re.split(r"(?<!\\)\|", rows[key]))
            assert may_be, key
            assert meaning, key


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "whole number at least 1, at most 9"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number more than 0, less than 1"),
        ({"type": ["number", "null"], "minimum": 0.5}, "number at least 0.5 or `null`"),
        ({"type": "integer", "minimum": -1, "not": {"const": 0}}, "whole number at least -1, not 0"),
        ({"enum": ["a", "on", None]}, "one of `a`, `'on'`, `null`"),
        ({"type": ["string", "integer"], "pattern": "^(a|b)$", "minimum": 1}, "`a`, `b` or whole number at least 1"),
        ({"type": ["array", "null"], "items": {"enum": ["x", "y"]}}, "list of `x`, `y` or `null`"),
        ({"type": "boolean"}, "`true` or `false`"),
    ],
)  # fmt: skip
def test_ranges_in_words(part, words):
    assert manual._may_be(part) == words


def test_file_formats_name_every_field(text):
    part = text.partition("\n## Files\n")[2].partition("\n## The study")[0]
    history = list(read_jsonl(manual.ROOT / "tests" / "fixtures" / "history.jsonl"))[:8]
    names = {field.name for field in fields(Example)} | set(STAGES) | set(KINDS)
    names |= {key for row in history for key in row} - {"event"}
    example = to_example("0", next(xlam_rows(1)))
    answer = {"id": "0", "suite": "s", "condition": "base", "finish_reason": "stop", "text": "No."}
    [scored] = score_all([example], [answer])
    names |= scored.keys() | scored["calls"].keys() | scored["arguments"].keys()
    for name in names:
        assert f"`{name}`" in part, name


def test_choices_that_stand_in_two_places_agree(schema):
    data = schema["properties"]["data"]["properties"]
    assert tuple(data["format"]["enum"]) == STYLES
    assert data["languages"]["items"]["enum"] == KNOWN
