"""The configuration is complete after `resolve`, and each mistake names its key."""

import pytest
import yaml

from callwright.runtime.config import fill_defaults, merge, resolve, suites
from callwright.runtime.errors import CallwrightError


@pytest.fixture(autouse=True)
def _in_the_repository(root, monkeypatch):
    monkeypatch.chdir(root)  # paths in the configuration are relative to it


@pytest.fixture
def schema_path(root):
    return root / "workflow" / "schemas" / "config.schema.yaml"


@pytest.fixture
def config(root):
    return yaml.safe_load((root / "config" / "config.yaml").read_text())


def test_every_shipped_config_resolves(root, config, schema_path):
    for path in sorted((root / "config").glob("*.yaml")):
        runs = resolve(merge(config, yaml.safe_load(path.read_text())), schema_path)
        assert runs, path


def test_the_default_config_spells_out_every_key(config, schema_path):
    schema = yaml.safe_load(schema_path.read_text())
    optional = {"source"}  # its keys depend on the kind

    def keys(part, prefix=""):
        for key, inner in part.get("properties", {}).items():
            yield prefix + key
            if key not in optional or prefix != "model.":
                yield from keys(inner, f"{prefix}{key}.")

    def present(dotted):
        value = config
        for key in dotted.split("."):
            if value is None:
                return True  # a whole part that is left out
            if key not in value:
                return False
            value = value[key]
        return True

    assert [key for key in keys(schema) if not present(key)] == []
    assert fill_defaults(config, schema) == config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"learning_rat": 1.0}}, ["training.learning_rat is not known", "learning_rate"]),
        ({"data": {"languages": ["en", "xx"]}}, ["data.languages.1", "'xx'", "ar, bg, bn, de"]),
        ({"training": {"learning_rate": "small"}}, ["training.learning_rate", "'small'", "number"]),
        ({"training": {"learning_rate": "1e4"}}, ["training.learning_rate", "10000.0", "at most 1"]),
        ({"training": {"gradient_checkpointing": "some"}}, ["training.gradient_checkpointing", "'some'", "off|all"]),
        ({"training": {"gradient_checkpointing": 0}}, ["training.gradient_checkpointing", "0", "at least 1"]),
        ({"training": {"validation_batches": 0}}, ["training.validation_batches is 0", "anything but 0"]),
        ({"training": {"snapshot_every": True}}, ["training.snapshot_every", "True", "integer"]),
        ({"toolset": "nowhere.yaml"}, ["config key toolset", "nowhere.yaml", "no such file"]),
        ({"data": {"source": "examples"}}, ["config key data.path is missing"]),
        ({"data": {"source": "xlam", "path": "nowhere.jsonl"}}, ["config key data.path", "nowhere.jsonl"]),
        ({"model": {"source": {"kind": "folder", "path": "nowhere"}}}, ["config key model.source.path", "nowhere"]),
        ({"training": {"iterations": 0}}, ["training.iterations", "0", "at least 1"]),
        ({"training": {"from": ["previous", "a", "b"]}}, ["training.from", "at most 2 entries"]),
        ({"training": {"from": ["previous", "previous"]}}, ["training.from", "each entry once"]),
        (
            {"training": {"from": ["config", "rules"]}},
            ["training.from", "begins with one adapter", "[previous, FOLDER]"],
        ),
        ({"training": {"lora": {"projections": []}}}, ["training.lora.projections"]),
        ({"data": {"source": "xlan"}}, ["data.source", "'xlan'", "one of toolset, files, xlam"]),
        ({"model": {"source": {"kind": "hub", "id": "a/b"}}}, ["model.source.revision is missing"]),
        (
            {"model": {"call_format": "own"}, "data": {"format": "fenced"}},
            ["model.call_format", "two forms of an answer"],
        ),
        ({"model": {"call_format": "mine"}}, ["config key model.call_format is 'mine'", "auto, own, hermes"]),
        ({"evaluation": {"suites": ["bfcl_multipl"]}}, ["evaluation.suites.0 is 'bfcl_multipl'", "bfcl_<category>"]),
        ({"evaluation": {"suites": [{"bfcl": "README.md"}]}}, ["evaluation.suites.0", "begins otherwise"]),
        ({"evaluation": {"suites": [{"mine": "nowhere.jsonl"}]}}, ["evaluation.suites (mine)", "nowhere.jsonl"]),
        ({"evaluation": {"suites": [{"a": "README.md"}, {"a": "Makefile"}]}}, ["evaluation.suites", "'a'", "twice"]),
        (
            {
                "runs": ["x", {"y": {"evaluation": {"suites": [{"a": "Makefile"}]}}}],
                "evaluation": {"suites": [{"a": "README.md"}]},
            },
            ["evaluation.suites", "run 'y'", "'a'", "another file"],
        ),
        ({"modle": {}}, ["config key modle is not known", "'model'"]),
        ({"training": None}, ["training", "None", "object"]),
        ({"runs": []}, ["runs", "expected a list of names"]),
        ({"runs": ["a", "a"]}, ["runs", "twice"]),
        ({"runs": ["../a"]}, ["runs.0", "../a"]),
        ({"runs": ["models"]}, ["a run cannot be called 'models'"]),
        ({"runs": ["a", {"b": {"model": {"license": "MIT"}}}]}, ["model", "'b'", "another source"]),
        (
            {"package": {"exports": ["cact"]}},
            ["package.exports has `cact`", "model.source.member is", "smollm2"],
        ),
        (
            {"package": {"exports": ["cact", "gguf"]}, "model": {"source": {"member": "needle/needle3.cact"}}},
            ["package.exports has `gguf`", "no model like Needle", "needle/needle3.cact", "`cact` is the form"],
        ),
    ],
)
def test_a_mistake_names_its_key(config, schema_path, changes, words):
    with pytest.raises(CallwrightError) as error:
        resolve(merge(config, changes), schema_path)
    for word in words:
        assert word in str(error.value)


def test_words_are_read_where_a_number_is_wanted(config, schema_path):
    """YAML 1.1 reads 1e-4 as text and off as false; the command line gives texts only."""
    given = {
        "learning_rate": "1e-4", "iterations": "20", "betas": ["0.8", "0.99"], "memory_budget_gb": "null",
        "gradient_checkpointing": False, "prefix_cache": True, "lora": {"layers": "-1"},
    }  # fmt: skip
    training = resolve(merge(config, {"training": given}), schema_path)["default"]["training"]
    assert training["learning_rate"] == 1e-4
    assert training["iterations"] == 20
    assert training["betas"] == [0.8, 0.99]
    assert training["memory_budget_gb"] is None
    assert (training["gradient_checkpointing"], training["prefix_cache"]) == ("off", "on")
    assert training["lora"]["layers"] == -1
    again = resolve(merge(config, {"training": {"gradient_checkpointing": "2"}}), schema_path)["default"]["training"]
    assert again["gradient_checkpointing"] == 2


def test_a_run_changes_only_its_own_keys(config, schema_path):
    runs = resolve(
        merge(config, {"runs": ["plain", {"small": {"training": {"lora": {"rank": 4}}}}]}),
        schema_path,
    )
    assert list(runs) == ["plain", "small"]
    assert runs["small"]["training"]["lora"]["rank"] == 4
    assert runs["plain"]["training"]["lora"]["rank"] == config["training"]["lora"]["rank"]
    assert runs["small"]["training"]["lora"]["projections"] == config["training"]["lora"]["projections"]


def test_suites_are_names_or_named_files(config, schema_path):
    given = ["test_seen", "bfcl_multiple", {"mine": "README.md"}]
    run = resolve(merge(config, {"evaluation": {"suites": given}}), schema_path)["default"]
    assert suites(run) == {"test_seen": None, "bfcl_multiple": None, "mine": "README.md"}


def test_a_source_of_another_kind_keeps_nothing_of_the_default_one(config, schema_path):
    source = {"kind": "hub", "id": "owner/name", "revision": "main"}
    runs = resolve(merge(config, {"model": {"source": source}}), schema_path)
    assert runs["default"]["model"]["source"] == source


def test_needle_is_exported_for_its_own_engine(config, schema_path):
    needle = {"package": {"exports": ["cact"]}, "model": {"source": {"member": "needle/needle3.cact"}}}
    assert resolve(merge(config, needle), schema_path)["default"]["package"]["exports"] == ["cact"]
