"""Another workflow uses this one as a module, from a folder of its own."""

import shutil

import yaml
from fixtures_workflow import checkout, finished, snakemake  # noqa: F401

from callwright.runtime.files import read_json


def test_another_workflow_uses_all_rules_under_a_prefix(finished, root, tmp_path):  # noqa: F811
    run = yaml.safe_load((finished / "config/smoke.yaml").read_text())
    run["model"] = yaml.safe_load((finished / "config/config.yaml").read_text())["model"]
    run["runs"] = ["small"]
    settings = {"callwright": str(finished / "Snakefile"), "run": run}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(root / "tests/fixtures/using_workflow.smk", tmp_path / "Snakefile")
    model = "results/models/smollm2-135m-instruct"
    for name in (
        "source",
        "source.json",
        "mlx",
        "fetch_model.tsv",
        "convert_model.tsv",
    ):  # downloaded and converted once
        source, there = finished / model / name, tmp_path / "tools" / model / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, there) if source.is_dir() else shutil.copy(source, there)
    snakemake(tmp_path, "--workflow-profile", str(finished / "profiles/default"), "--nolock")
    assert read_json(tmp_path / "answer.txt")["iterations"] == run["training"]["iterations"]
    results = tmp_path / "tools/results/small"
    assert {path.name for path in results.iterdir()} >= {"data", "tokens", "training", "adapter", "state"}
    assert not (tmp_path / "results").exists()
