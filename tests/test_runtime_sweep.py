"""A grid becomes named runs that share what their settings allow, whatever is added to it later."""

import pytest
import yaml

from callwright.runtime import sweep
from callwright.runtime.config import merge, plan
from callwright.runtime.errors import CallwrightError


@pytest.fixture(autouse=True)
def _in_the_repository(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture
def planned(root):
    config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    schema_path = root / "workflow" / "schemas" / "config.schema.yaml"

    def run(grid, runs=("r",), name=None, **changes):
        sweep_of = {"grid": grid, "name": name} if name else {"grid": grid}
        return plan(merge(config, {"runs": list(runs), "sweep": sweep_of, **changes}), schema_path)

    return run


def owners(found, kind):
    """The owners of the points, without the others."""
    every = sweep.owners(kind, found.everything)
    return {name: every[name] for name in found.runs}


def test_each_combination_is_a_run_with_its_values(planned):
    found = planned({"training.lora.rank": [4, 8], "training.learning_rate": ["1e-4", 0.002]})
    assert list(found.runs) == [
        "r.rank-4.learning_rate-0.0001", "r.rank-4.learning_rate-0.002",
        "r.rank-8.learning_rate-0.0001", "r.rank-8.learning_rate-0.002",
    ]  # fmt: skip
    run = found.runs["r.rank-8.learning_rate-0.0001"]
    assert run["training"]["lora"]["rank"] == 8
    assert run["training"]["learning_rate"] == 1e-4
    assert run["runs"] == ["r.rank-8.learning_rate-0.0001"]
    assert run["sweep"] is None, "the grid is no setting of a point: a new value must not change it"
    assert found.sweep.name == "r"
    assert found.sweep.points["r.rank-4.learning_rate-0.002"] == {
        "training.lora.rank": 4, "training.learning_rate": 0.002
    }  # fmt: skip


def test_without_a_sweep_nothing_changes(root):
    config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    changed = merge(config, {"runs": ["a", {"b": {"training": {"seed": 2}}}]})
    found = plan(changed, root / "workflow" / "schemas" / "config.schema.yaml")
    assert found.sweep is None
    assert list(found.everything) == list(found.runs) == ["a", "b"]
    assert sweep.owners("data", found.everything) == {"a": "a", "b": "a"}
    assert sweep.owners("base", found.everything) == {"a": "a", "b": "a"}


def test_runs_that_differ_in_data_or_evaluation_share_only_the_rest(root):
    config = yaml.safe_load((root / "config" / "config.yaml").read_text())
    changed = [
        "a", {"d": {"data": {"seed": 1}}}, {"e": {"evaluation": {"items": 7}}}, {"s": {"split": {"seed": 1}}},
        {"l": {"training": {"lora": {"layers": 3}}}},
    ]  # fmt: skip
    found = plan(merge(config, {"runs": changed}), root / "workflow/schemas/config.schema.yaml").everything
    assert sweep.owners("data", found) == {"a": "a", "d": "d", "e": "a", "s": "s", "l": "a"}
    assert sweep.owners("base", found) == {"a": "a", "d": "d", "e": "e", "s": "s", "l": "a"}
    assert sweep.owners("frozen_prefix", found) == {"a": "a", "d": "d", "e": "a", "s": "s", "l": "l"}


def test_points_share_everything_that_the_grid_leaves_alone(planned):
    found = planned({"training.lora.rank": [4, 8], "training.seed": [1, 2]})
    for kind in ("data", "base", "frozen_prefix"):
        assert set(owners(found, kind).values()) == {"r"}
    assert list(found.everything) == ["r", *found.runs]
    assert found.everything["r"]["training"]["lora"]["rank"] == 16, "as in the config, without the grid"


def test_who_owns_what_follows_from_the_keys_that_matter(planned):
    found = planned({"training.lora.layers": [2, 4], "evaluation.items": [5, 9], "training.lora.rank": [4]})
    for name in found.runs:
        layers, items = name.split(".")[1:3]
        assert owners(found, "data")[name] == "r"
        assert owners(found, "base")[name] == f"r.{items}"
        assert owners(found, "frozen_prefix")[name] == f"r.{layers}"


def test_the_seed_matters_to_the_frozen_prefix_only_where_it_draws_the_records(planned):
    found = planned({"training.examples": [None, 40], "training.seed": [1, 2]})
    assert owners(found, "frozen_prefix") == {
        "r.examples-null.seed-1": "r",
        "r.examples-null.seed-2": "r",
        "r.examples-40.seed-1": "r.examples-40.seed-1",
        "r.examples-40.seed-2": "r.examples-40.seed-2",
    }


@pytest.mark.parametrize(
    "grown",
    [
        {"training.lora.rank": [2, 4, 8], "data.seed": [1, 2]},
        {"training.lora.rank": [8, 4], "data.seed": [3, 2, 1]},
    ],
)
def test_a_larger_grid_leaves_each_point_and_its_owners_as_they_were(planned, grown):
    before, after = planned({"training.lora.rank": [4, 8], "data.seed": [1, 2]}), planned(grown)
    for name, run in before.runs.items():
        assert after.runs[name] == run
        for kind in ("data", "base", "frozen_prefix"):
            assert owners(after, kind)[name] == owners(before, kind)[name]


def test_several_runs_times_a_grid(planned):
    found = planned(
        {"training.seed": [1, 2]}, ["a", {"b": {"training": {"lora": {"rank": 4}}}}, {"c": {"data": {"seed": 9}}}],
        name="all",
    )  # fmt: skip
    assert list(found.runs) == ["a.seed-1", "a.seed-2", "b.seed-1", "b.seed-2", "c.seed-1", "c.seed-2"]
    assert found.sweep.name == "all"
    assert owners(found, "data")["b.seed-2"] == "a"
    assert owners(found, "data")["c.seed-2"] == "c"


def test_equal_last_parts_are_told_apart(planned):
    found = planned({"training.seed": [1], "data.seed": [2], "training.lora.rank": [4]})
    assert list(found.runs) == ["r.training-seed-1.data-seed-2.rank-4"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4, "4"), (-1, "-1"), (0.0003, "0.0003"), (1e-5, "1e-05"), (0.30000000000000004, "0.30000000000000004"),
        (True, "true"), (None, "null"), ("all", "all"), (["q_proj", "v_proj"], "q_proj-v_proj"),
        ("../a b/c", "..-a-b-c"),
    ],
)  # fmt: skip
def test_labels_are_readable_and_safe(value, text):
    assert sweep.label(value) == text


def test_a_long_label_ends_in_a_hash():
    long = [f"layer_{number}_proj" for number in range(9)]
    assert len(sweep.label(long)) <= sweep.LONGEST_LABEL
    assert sweep.label(long) != sweep.label([*long, "more"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"training.lora.rnk": [4]}, ["sweep.grid.training.lora.rnk is not known", "'training.lora.rank'"]),
        ({"rank": [4]}, ["sweep.grid.rank is not known", "dotted config key"]),
        ({"training.lora": [{"rank": 4}]}, ["sweep.grid.training.lora is not known"]),
        ({"training.lora.rank": [4, 0]}, ["sweep.grid.training.lora.rank holds 0", "at least 1"]),
        ({"training.lora.rank": ["four"]}, ["sweep.grid.training.lora.rank holds 'four'", "integer"]),
        ({"training.schedule": ["cosine", "cosin"]}, ["training.schedule holds 'cosin'", "one of cosine"]),
        ({"training.lora.rank": [4, "4"]}, ["sweep.grid.training.lora.rank", "each value once"]),
        ({"training.lora.rank": 4}, ["sweep.grid.training.lora.rank is 4", "array"]),
        ({"training.lora.rank": []}, ["sweep.grid.training.lora.rank", "at least 1 entries"]),
        ({}, ["sweep.grid"]),
        ({"device.kind": ["cpu", "gpu"]}, ["sweep.grid.device.kind", "the same for all runs"]),
        ({"runs": [["a"]]}, ["sweep.grid.runs", "the same for all runs"]),
        ({"model.name": ["a", "b"], "model.source.sha256": ["x" * 64]}, ["model.source.sha256 holds"]),
        ({"toolset": ["nowhere.yaml"]}, ["config key toolset", "nowhere.yaml"]),
    ],
)
def test_a_mistake_names_its_key(planned, grid, words):
    with pytest.raises(CallwrightError) as error:
        planned(grid)
    for word in words:
        assert word in str(error.value)


def test_a_sweep_belongs_to_all_runs(planned):
    with pytest.raises(CallwrightError, match="run 'b.seed-1' has a `sweep` of its own"):
        planned({"training.seed": [1]}, [{"b": {"sweep": {"grid": {"training.seed": [1]}}}}])
    with pytest.raises(CallwrightError, match=r"config key sweep.gird is not known; did you mean 'grid'"):
        planned({"training.seed": [1]}, sweep={"gird": {}})
