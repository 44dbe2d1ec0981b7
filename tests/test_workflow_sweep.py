"""A sweep of two points through the whole workflow, on a tiny model; then what a larger grid computes, by dry-runs."""

import json
import re
import shutil

import pytest
import yaml
from fixtures_gemma import make_gemma
from fixtures_workflow import run_in, snakemake, xlam_rows

from callwright.runtime.files import read_json, write_jsonl


def jobs(folder, *arguments):
    """The jobs that a dry-run would run, as (rule, run), each once; the model's and the sweep's own have no run."""
    output = snakemake(folder, "-n", *arguments).stdout
    blocks = re.split(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
    found = set()
    for rule, block in zip(blocks[1::2], blocks[2::2], strict=True):
        wildcards = re.search(r"wildcards: .*?run=([^\s,]+)", block)
        found.add((rule, wildcards[1] if wildcards else ""))
    return {job for job in found if job[0] != "all"}


@pytest.fixture(scope="module")
def checkout(root, tmp_path_factory):
    """A copy of the repository's own files, with a tiny model and a file of records, and a sweep of two ranks."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ["rules", "profiles", "workflow", "config"]:
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["Snakefile", "environment.yml"]:
        shutil.copy(root / name, folder / name)
    make_gemma(folder / "gemma")
    write_jsonl(folder / "rows.jsonl", xlam_rows(40))
    config = {
        "runs": ["tiny"],
        "sweep": {"grid": {"training.lora.rank": [2, 4]}},
        "model": {"name": "tiny-gemma", "source": {"kind": "folder", "path": "gemma"}},
        "data": {"source": "xlam", "path": "rows.jsonl", "examples": 30, "max_tokens": 2000},
        "split": {"unseen_tools": 0},
        "training": {
            "iterations": 8,
            "batch_size": 4,
            "share_prefix": "off",
            "lora": {"layers": 2, "projections": ["q_proj", "v_proj"]},
        },
        "evaluation": {
            "suites": ["test_seen"],
            "conditions": ["base", "tuned"],
            "items": 2,
            "max_output_tokens": 96,
        },
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    return folder


SWEEP = ["--configfile", "config/smoke.yaml", "sweep.yaml"]


def grid(**values):
    """A `--config` argument with another grid."""
    text = json.dumps({"grid": {key.replace("__", "."): value for key, value in values.items()}})
    return ["--config", f"sweep={text}"]


@pytest.fixture(scope="module")
def finished(checkout):
    """The checkout after the sweep."""
    return run_in(checkout, *SWEEP)


def test_points_share_data_tokens_frozen_prefix_and_base_answers(finished):
    results = finished / "results"
    console = (finished / "console.txt").read_text()
    for rule, count in {"curate": 1, "split": 1, "frozen_prefix": 1, "train": 2, "generate": 3, "sweep": 1}.items():
        assert len(re.findall(rf"^(?:local)?rule {rule}:$", console, flags=re.MULTILINE)) == count, rule
    assert not (results / "tiny" / "adapter").exists()
    for rank in (2, 4):
        run = results / f"tiny.rank-{rank}"
        assert {path.name for path in run.iterdir()} >= {"adapter", "summary.json", "training", "evaluation"}
        assert not (run / "data").exists()
        assert not (run / "evaluation" / "test_seen" / "base").exists()
        config = read_json(run / "adapter" / "adapter_config.json")
        assert config["lora_parameters"]["rank"] == rank
        summary = read_json(run / "summary.json")
        assert summary["run"] == run.name
        assert set(summary["evaluation"]["test_seen"]) == {"base", "tuned"}
        assert {"curate", "frozen_prefix", "train", "generate_test_seen_base"} <= summary["seconds"].keys()


def test_both_trainings_read_one_store_that_was_filled_before(finished):
    index = read_json(finished / "results" / "tiny" / "training" / "frozen_prefix.json")
    assert index["train"]["use"]
    assert index["train"]["computed"] == index["train"]["records"] == 24
    store = finished / index["store"]
    assert store.parent == finished / "results" / "models" / "tiny-gemma" / "frozen_prefix"
    lines = (store / "index.jsonl").read_text().splitlines()
    assert len(lines) == index["train"]["computed"] + index["validation"]["computed"], "training had to add none"
    assert (store / "frozen_prefix.bin").stat().st_size == index["train"]["bytes"] + index["validation"]["bytes"]


def test_one_table_and_one_figure_come_out(finished):
    folder = finished / "results" / "tiny"
    found = read_json(folder / "sweep.json")
    assert [row["settings"] for row in found["points"]] == [{"training.lora.rank": 2}, {"training.lora.rank": 4}]
    for row in found["points"]:
        summary = read_json(finished / "results" / row["run"] / "summary.json")
        assert row["best_validation_loss"] == summary["training"]["best_validation_loss"]
        assert row["evaluation"]["test_seen"]["tuned"]["ast"] == summary["evaluation"]["test_seen"]["tuned"]["ast"]
    assert len((folder / "sweep.csv").read_text().splitlines()) == 3
    assert "tiny" in (folder / "sweep.md").read_text()
    assert (folder / "figures" / "sweep.png").stat().st_size > 0
    assert (folder / "figures" / "sweep.svg").read_text().startswith("<?xml")


def test_new_points_are_computed_alone(finished):
    """One in front of the others, one behind them."""
    rules = ("train", "generate", "audit", "score", "summarize", "model_card")
    new = {(rule, f"tiny.rank-{rank}") for rule in rules for rank in (1, 8)}
    assert jobs(finished, *SWEEP, *grid(training__lora__rank=[1, 2, 4, 8])) == new | {("sweep", "")}


def test_another_frozen_prefix_is_computed_once_for_the_points_that_need_it(finished):
    found = jobs(finished, *SWEEP, *grid(training__lora__rank=[2, 4], training__lora__layers=[1, 3]))
    assert {run for rule, run in found if rule == "frozen_prefix"} == {"tiny.layers-1", "tiny.layers-3"}
    assert {run for rule, run in found if rule == "generate"} == {
        f"tiny.rank-{rank}.layers-{layers}" for rank in (2, 4) for layers in (1, 3)
    }
    assert {rule for rule, _ in found} & {"curate", "split", "tokenize_examples"} == set()


def test_a_changed_training_setting_reruns_each_training(finished):
    """Also where the prefix runs again above it: of an `ancient` index Snakemake would not look at parameters."""
    found = jobs(finished, *SWEEP, "--config", "training={learning_rate: 0.003}")
    assert {run for rule, run in found if rule == "train"} == {"tiny.rank-2", "tiny.rank-4"}
    assert {rule for rule, _ in found} & {"curate", "split", "tokenize_examples"} == set()


def test_two_runs_of_one_config_share_what_their_settings_allow(finished):
    runs = 'runs=["one", {"two": {"training": {"seed": 7}}}, {"three": {"evaluation": {"items": 1}}}]'
    output = snakemake(finished, "-n", *SWEEP, "--config", runs, "sweep=null").stdout
    made = re.findall(r"output: results/(\w+)/(\S+?)(?:, |\n)", output)
    for product in ("data/examples.jsonl", "data/train.jsonl", "tokens/train.jsonl", "training/frozen_prefix.json"):
        assert [run for run, path in made if path == product] == ["one"], product
    answers = {(run, path.split("/")[2]) for run, path in made if path.endswith("generations.jsonl")}
    assert answers == {("one", "base"), ("three", "base"), ("one", "tuned"), ("two", "tuned"), ("three", "tuned")}
