"""The configuration is complete after `resolve`, and each mistake names its key."""

import pytest
import yaml

from callsmith.runtime.config import fill_defaults, merge, resolve
from callsmith.runtime.errors import CallsmithError


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
            if key not in value:
                return False
            value = value[key]
        return True

    assert [key for key in keys(schema) if not present(key)] == []
    assert fill_defaults(config, schema) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"learning_rat": 1.0}}, ["training.learning_rat is not known", "learning_rate"]),
        ({"training": {"learning_rate": "1e-4"}}, ["training.learning_rate", "'1e-4'", "number", "0.0001"]),
        ({"training": {"iterations": 0}}, ["training.iterations", "0", "at least 1"]),
        ({"training": {"lora": {"projections": []}}}, ["training.lora.projections"]),
        ({"data": {"source": "xlan"}}, ["data.source", "'xlan'", "toolset, xlam, examples"]),
        ({"model": {"source": {"kind": "hub", "id": "a/b"}}}, ["model.source.revision is missing"]),
        ({"modle": {}}, ["config key modle is not known", "'model'"]),
        ({"training": None}, ["training", "None", "object"]),
        ({"runs": []}, ["runs", "expected a list of names"]),
        ({"runs": ["a", "a"]}, ["runs", "twice"]),
        ({"runs": ["../a"]}, ["runs.0", "../a"]),
        ({"runs": ["a", {"b": {"model": {"license": "MIT"}}}]}, ["model", "'b'", "another source"]),
    ],
)
def test_a_mistake_names_its_key(config, schema_path, changes, words):
    with pytest.raises(CallsmithError) as error:
        resolve(merge(config, changes), schema_path)
    for word in words:
        assert word in str(error.value)


def test_a_run_changes_only_its_own_keys(config, schema_path):
    runs = resolve(
        merge(config, {"runs": ["plain", {"small": {"training": {"lora": {"rank": 4}}}}]}),
        schema_path,
    )
    assert list(runs) == ["plain", "small"]
    assert runs["small"]["training"]["lora"]["rank"] == 4
    assert runs["plain"]["training"]["lora"]["rank"] == config["training"]["lora"]["rank"]
    assert runs["small"]["training"]["lora"]["projections"] == config["training"]["lora"]["projections"]


def test_a_source_of_another_kind_keeps_nothing_of_the_default_one(config, schema_path):
    source = {"kind": "hub", "id": "owner/name", "revision": "main"}
    runs = resolve(merge(config, {"model": {"source": source}}), schema_path)
    assert runs["default"]["model"]["source"] == source
