"""xLAM's records as examples; the gated data set without access."""

import json
import sys
from collections import Counter

import pytest

from callwright.data.formats import xlam
from callwright.data.records import Example, RecordError
from callwright.data.sources import read_records
from callwright.runtime.errors import CallwrightError


@pytest.fixture(scope="module")
def records(root):
    return [value for _, value in read_records(root / "tests" / "fixtures" / "xlam_rows.jsonl", "xlam")]


def test_rows_become_examples(records):
    rules = [value.rule if isinstance(value, RecordError) else "" for value in records]
    assert rules == [""] * 7 + ["schema", "missing_argument", "unknown_tool", "", "unknown_type"]
    first = records[0]
    assert first.id == "xlam_rows.jsonl:1"
    assert first.query == "How tall is the lighthouse in Ålesund, and the one in Brest?"
    assert first.tags == ("calls:2+",)
    assert first.tools == [
        {
            "type": "function",
            "function": {
                "name": "tower_height",
                "description": "Height of a tower.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "town": {"type": "string", "description": "Town."},
                        "kind": {"type": "string", "description": "Kind of tower.", "default": "lighthouse"},
                    },
                    "required": ["town"],
                },
            },
        }
    ]


def test_required_is_what_is_neither_optional_nor_has_a_default(records):
    required = {
        e.tool_names[0]: e.tools[0]["function"]["parameters"]["required"] for e in records if isinstance(e, Example)
    }
    assert required["integrate_function"] == ["function", "low", "high"]
    assert required["ferry_times"] == []
    assert required["dance_jig"] == []


def test_a_default_of_the_wrong_type_is_left_out(records):
    brush = records[1].tools[1]["function"]["parameters"]
    assert brush["properties"] == {"brush": {"type": "integer", "description": "A value."}}
    assert brush["required"] == []


def test_a_default_is_brought_into_its_type_and_flagged():
    def read(kind, default):
        tool = {"name": "f", "parameters": {"x": {"type": kind, "default": default}}}
        example = xlam.to_example("a", {"query": "Go", "tools": [tool], "answers": [{"name": "f", "arguments": {}}]})
        return example.tools[0]["function"]["parameters"]["properties"]["x"], example.tags[1:]

    assert read("int", "10") == ({"type": "integer", "default": 10}, ("flag:default_coerced",))
    assert read("int", 0.7) == ({"type": "integer"}, ("flag:default_dropped",))
    assert read("int", "") == ({"type": "integer"}, ())
    assert read("int, optional", 3) == ({"type": "integer", "default": 3}, ())


def test_no_answers_means_abstain(records):
    assert records[10].calls == []
    assert records[10].tags == ("calls:0", "abstain:no_tool")


def test_parameters_may_be_a_json_schema_already():
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    row = {
        "query": "Go",
        "tools": [{"name": "f", "parameters": parameters}],
        "answers": [{"name": "f", "arguments": {"x": 1}}],
    }
    assert xlam.to_example("a", row).tools[0]["function"]["parameters"] == parameters


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("missing_field", {"query": None}),
        ("missing_field", {"tools": None}),
        ("wrong_type", {"query": 3}),
        ("empty_query", {"query": " "}),
        ("invalid_json", {"tools": "[{"}),
        ("not_finite", {"answers": '[{"name": "f", "arguments": {"x": NaN}}]'}),
        ("wrong_type", {"answers": "{}"}),
        ("wrong_type", {"answers": [1]}),
        ("bad_tool", {"tools": [1]}),
        ("bad_tool", {"tools": [{"name": "f", "parameters": {"x": 5}}]}),
        ("bad_tool", {"tools": [{"name": "f", "parameters": [1]}]}),
        ("unknown_type", {"tools": [{"name": "f", "parameters": {"x": {"type": 5}}}]}),
        ("too_deep", {"tools": "[" * 900 + "]" * 900}),
    ],
)
def test_each_fault_has_its_rule(rule, change):
    row = {"query": "Go", "tools": [{"name": "f", "parameters": {"x": {"type": "int"}}}], "answers": []}
    with pytest.raises(RecordError) as caught:
        xlam.to_example("a", {**row, **change})
    assert caught.value.rule == rule


def test_all_of_the_real_sample_maps(xlam_sample):
    found = [value for _, value in read_records(xlam_sample, "xlam")]
    rules = Counter(value.rule for value in found if isinstance(value, RecordError))
    assert len(found) == 400
    assert set(rules) <= {"schema", "missing_argument", "duplicate_tool"}  # every type maps
    assert sum(rules.values()) == 13


class _Streamed:
    def __init__(self, rows, error=None):
        self.rows, self.error = rows, error

    def __iter__(self):
        yield from self.rows
        if self.error:
            raise self.error


@pytest.fixture
def hub(monkeypatch):
    """Stands in for Hugging Face: `hub(rows)` or `hub(error)` is what loading gives."""
    import datasets

    def give(outcome, after=None):
        def load_dataset(name, **options):
            assert name == "Salesforce/xlam-function-calling-60k"
            assert options["streaming"] is True
            if isinstance(outcome, Exception):
                raise outcome
            return _Streamed(outcome, after)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    return give


ROW = {
    "id": 1,
    "query": "Go",
    "tools": json.dumps([{"name": "f", "parameters": {}}]),
    "answers": '[{"name": "f", "arguments": {}}]',
}


def test_rows_come_streamed_from_the_hub(hub):
    hub([ROW, {**ROW, "query": ""}])
    found = list(xlam.read_hub())
    assert [record_id for record_id, _ in found] == ["xlam-function-calling-60k:1", "xlam-function-calling-60k:2"]
    assert found[0][1].query == "Go"
    assert found[1][1].rule == "empty_query"


@pytest.mark.parametrize("secret", [None, "hf_topsecret"])
def test_a_gated_data_set_is_answered_with_the_two_steps(hub, monkeypatch, secret):
    from datasets.exceptions import DatasetNotFoundError

    if secret:
        monkeypatch.setenv("HF_TOKEN", secret)
    else:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    hub(DatasetNotFoundError(f"Dataset is a gated dataset on the Hub. You must be authenticated. Bearer {secret}"))
    with pytest.raises(CallwrightError) as caught:
        xlam.read_hub()
    message = str(caught.value)
    assert "accept its terms on https://huggingface.co/datasets/Salesforce/xlam-function-calling-60k" in message
    assert "2. set HF_TOKEN" in message
    assert "data.path" in message
    assert "hf_topsecret" not in message
    assert caught.value.__cause__ is None
    assert "\n" not in message


def test_no_network_and_no_such_data_set(hub):
    from datasets.exceptions import DatasetNotFoundError

    hub(ConnectionError("Couldn't reach the Hub"))
    with pytest.raises(CallwrightError, match="cannot be reached: check the network"):
        xlam.read_hub()
    hub(DatasetNotFoundError("Dataset doesn't exist on the Hub"))
    with pytest.raises(CallwrightError, match="does not exist on Hugging Face"):
        xlam.read_hub()
    hub([ROW], after=TimeoutError("The read operation timed out"))
    with pytest.raises(CallwrightError, match="after 1 records, cannot be reached"):
        list(xlam.read_hub())


def test_the_package_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CallwrightError, match="needs the package `datasets`"):
        xlam.read_hub()
