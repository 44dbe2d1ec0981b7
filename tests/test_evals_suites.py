"""Suites from elsewhere: fetched, ordered, and said what was left out. BFCL's own items: test_evals_bfcl.py."""

import json
import os
import zipfile
from collections import Counter

import pytest
import yaml

from callwright.data.records import ANY_CALL, Example, RecordError
from callwright.data.sources import read_records
from callwright.evals import suites
from callwright.report.summary import SUITE_TITLES
from callwright.runtime.errors import CallwrightError
from callwright.runtime.files import sha256_file

FUNCTION = {
    "name": "math.add",
    "description": "Add.",
    "parameters": {
        "type": "dict",
        "properties": {"x": {"type": "float"}, "how": {"type": "any"}, "note": {"type": "string"}},
        "required": ["x", "note"],
    },
}


def row(identifier, functions=(FUNCTION,)):
    return {"id": identifier, "question": [[{"role": "user", "content": "Add it."}]], "function": list(functions)}


def lines(*rows):
    return "\n".join(map(json.dumps, rows))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with BFCL's layout and hardly an item, in a folder that is pip's only source of packages."""
    path = tmp_path / "wheels" / "bfcl_eval-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "bfcl_eval-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for category in suites.CATEGORIES:
            name = suites.file_name(category)
            rows = [row(f"{category}_{n}") for n in range(3)] + [row(f"{category}_3", [])]
            archive.writestr(f"bfcl_eval/data/{name}", lines(*rows))
            if "relevance" not in category:
                answers = [{"math.add": {"x": [1, 1.5], "how": ["", 3], "note": [""]}}]
                truth = [{"id": f"{category}_{n}", "ground_truth": answers} for n in range(2)]
                truth.append({"id": f"{category}_2", "ground_truth": [{"math.add": {"x": [], "note": ["n"]}}]})
                archive.writestr(f"bfcl_eval/data/possible_answer/{name}", lines(*truth))
        archive.writestr("bfcl_eval/__init__.py", "raise RuntimeError('nothing of it is to be run')")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: bfcl-eval\nVersion: 1.0\nLicense: Apache 2.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setattr(suites, "BFCL", {"package": "bfcl-eval", "version": "1.0", "sha256": sha256_file(path)})
    return path


def test_only_data_is_unpacked(wheel, tmp_path):
    found = suites.fetch_bfcl(tmp_path / "bfcl")
    assert found["license"] == "Apache 2.0"
    names = {path.relative_to(tmp_path / "bfcl").as_posix() for path in (tmp_path / "bfcl").rglob("*.*")}
    asked = {suites.file_name(category) for category in suites.CATEGORIES}
    assert asked <= names
    assert names - asked == {f"possible_answer/{name}" for name in asked if "relevance" not in name}


def test_rows_become_items(wheel, tmp_path):
    suites.fetch_bfcl(tmp_path / "bfcl")
    examples, about = suites.build("bfcl_multiple", suites.bfcl_records(tmp_path / "bfcl", "multiple"))
    assert about["faulty"] == ["multiple_2"]
    assert [entry["rule"] for entry in about["left_out"]] == ["no_tools"]
    first = next(example for example in examples if example.id == "multiple_0")
    # `how` may be left out; `note` may not, though nothing is right for it but an empty string.
    assert first.calls == [{"name": "math.add", "arguments": {"x": 1, "note": ""}}]
    assert first.possible == [{"x": [1, 1.5], "how": ["", 3], "note": [""]}]
    properties = first.tools[0]["function"]["parameters"]["properties"]
    assert properties == {"x": {"type": "number"}, "how": {}, "note": {"type": "string"}}
    relevant, _ = suites.build("s", suites.bfcl_records(tmp_path / "bfcl", "live_relevance"))
    assert {(example.tags, len(example.calls)) for example in relevant} == {((ANY_CALL,), 0)}
    irrelevant, _ = suites.build("s", suites.bfcl_records(tmp_path / "bfcl", "irrelevance"))
    assert {(example.stratum, example.possible) for example in irrelevant} == {("abstain:no_tool", None)}


def refusal(folder):
    with pytest.raises(CallwrightError) as caught:
        suites.fetch_bfcl(folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    return str(caught.value)


def test_a_wheel_of_another_hash_is_refused(wheel, tmp_path, monkeypatch):
    monkeypatch.setitem(suites.BFCL, "sha256", "0" * 64)
    message = refusal(tmp_path / "bfcl")
    assert "callwright.evals.suites.BFCL.sha256 is 0000" in message
    assert sha256_file(wheel) in message


@pytest.mark.slow
def test_offline(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "bfcl-eval==1.0 cannot be downloaded: the package index is not reachable" in refusal(tmp_path / "bfcl")


def tool(name):
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def example(identifier, calls, tools):
    made = [{"name": "t0", "arguments": {"x": n}} for n in range(calls)]
    offered = [tool(f"t{n}") for n in range(tools)]
    return Example(identifier, [{"role": "user", "content": "Do."}], offered, made, "test")


def test_any_first_so_many_are_a_stratified_sample():
    strata = {(1, 1): 60, (1, 4): 30, (2, 2): 9, (0, 2): 1}
    examples = [
        example(f"{calls}-{tools}-{n}", calls, tools)
        for (calls, tools), size in strata.items()
        for n in range(size)
    ]  # fmt: skip
    ordered = suites.in_order(examples)
    assert sorted(e.id for e in ordered) == sorted(e.id for e in examples)
    assert ordered == suites.in_order(examples[::-1]), "the order of the file decides nothing"
    for first in (10, 20, 50, 77):
        found = Counter((len(e.calls), len(e.tools)) for e in ordered[:first])
        for stratum, size in strata.items():
            assert abs(found[stratum] - first * size / 100) <= 1, (first, stratum)
    numbers = [int(e.id.rsplit("-", 1)[1]) for e in ordered if len(e.tools) == 1]
    assert numbers != sorted(numbers), "within a stratum the order is drawn"


def test_a_file_of_anybodys_records_is_a_suite(tmp_path):
    row = {"query": "Do.", "tools": [{"name": "t0", "description": "", "parameters": {"x": {"type": "int"}}}]}
    rows = [{**row, "answers": [{"name": "t0", "arguments": {"x": n}}]} for n in range(3)] + [{"query": "broken"}]
    (tmp_path / "mine.jsonl").write_text(lines(*rows))
    examples, about = suites.build("mine", read_records(tmp_path / "mine.jsonl"))
    assert sorted(e.calls[0]["arguments"]["x"] for e in examples) == [0, 1, 2]
    assert (about["items"], len(about["left_out"])) == (3, 1)
    assert about["left_out"][0]["reason"]


def test_what_is_no_suite_is_refused():
    with pytest.raises(CallwrightError, match="no item that can be asked: 1 records were left out"):
        suites.build("mine", [("a", RecordError("missing_field", "…"))])
    double = example("a", 1, 1)
    with pytest.raises(CallwrightError, match="two items with the id 'a'"):
        suites.build("mine", [("a", double), ("b", double)])


def test_every_category_has_a_title_and_a_name_in_the_schema(root):
    names = {f"bfcl_{category}" for category in suites.CATEGORIES}
    assert names == {name for name in SUITE_TITLES if name.startswith("bfcl_")}
    schema = yaml.safe_load((root / "workflow" / "schemas" / "config.schema.yaml").read_text(encoding="utf-8"))
    known = schema["properties"]["evaluation"]["properties"]["suites"]["items"]["anyOf"][0]["enum"]
    assert names == {name for name in known if name.startswith("bfcl_")}
