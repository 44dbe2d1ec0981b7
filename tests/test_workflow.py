"""The whole workflow on the real model, few items and few steps; then what an edit reruns, by real dry-runs."""

import re
from pathlib import Path

import orjson
import pytest
import yaml
from fixtures_workflow import SMOKE, snakemake, xlam_rows

from callwright.evals.tool_encoder import FILE, WEIGHT
from callwright.runtime.files import read_json, read_jsonl


def planned(folder, *arguments):
    """The rules that a dry-run would run, each once."""
    output = snakemake(folder, "-n", *SMOKE, *arguments).stdout
    return set(re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE)) - {"all"}


@pytest.fixture
def edit():
    """Edits files and puts their bytes back after the test."""
    before = {}

    def change(path: Path, old: str, new: str) -> None:
        before.setdefault(path, path.read_bytes())
        text = path.read_text()
        assert old in text, f"{path} no longer contains {old!r}"
        path.write_text(text.replace(old, new, 1))

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def test_every_product_is_there(finished):
    run = finished / "results" / "smoke"
    summary = read_json(run / "summary.json")
    assert summary["run"] == "smoke"
    assert summary["training"]["iterations"] == 4
    for suite in ["test_seen", "test_unseen_tools"]:
        for condition in ["base", "tuned"]:
            result = summary["evaluation"][suite][condition]
            assert result["n"] == 4
            assert 0 <= result["ast"] <= 1
            low, high = result["ast_ci95"]
            assert 0 <= low <= result["ast"] <= high <= 1
    assert (run / "adapter" / "adapters.safetensors").stat().st_size > 0
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r'(?:src|href)="https?://', page), "the page must need no network"
    assert list((run / "figures").glob("*.png"))
    assert 'href="data/report.html"' in page
    assert "examples as the model sees them" in (run / "data" / "report.html").read_text()


def test_base_and_tuned_saw_byte_identical_prompts(finished):
    for suite in ["test_seen", "test_unseen_tools"]:
        prompts = [
            [(row["id"], row["prompt_sha256"]) for row in read_jsonl(path)]
            for path in sorted((finished / "results/smoke/evaluation" / suite).glob("*/generations.jsonl"))
        ]
        assert len(prompts) == 3  # the fine-tuned model's also as it is served
        assert prompts[0] == prompts[1] == prompts[2]


def test_records_in_are_examples_kept_plus_rejections(finished):
    data = finished / "results/smoke/data"
    ledger = read_json(data / "ledger.json")
    assert ledger["records_in"] == ledger["kept"] + sum(ledger["rejected"].values())
    assert ledger["kept"] == sum(1 for _ in read_jsonl(data / "examples.jsonl"))
    assert sum(ledger["rejected"].values()) == sum(1 for _ in read_jsonl(data / "rejections.jsonl"))


def test_each_rule_has_a_log_and_the_console_shows_progress(finished):
    logs = {path.stem for path in (finished / "results").rglob("*.log")}
    assert {"fetch_model", "convert_model", "curate", "split", "train", "generate", "score"} <= logs
    console = (finished / "console.txt").read_text()
    assert "GFLOP/s" in console
    assert re.search(r"train: \d+ of 4", console)


def test_nothing_is_left_to_do(finished):
    assert planned(finished) == set()


def test_a_touch_reruns_nothing(finished):
    for path in [*(finished / "workflow/scripts").rglob("*.py"), *(finished / "config").rglob("*.yaml")]:
        path.touch()
    assert planned(finished) == set()


def test_an_edit_of_the_logging_reruns_nothing(finished, edit):
    edit(finished / "workflow/scripts/callwright/runtime/logs.py", '"""', '"""Edited. ')
    assert planned(finished) == set()


ANSWERED = {"generate", "audit", "score", "summarize", "figures", "report", "model_card"}
AFTER_TRAINING = {"decide"} | ANSWERED


def test_a_training_setting_reruns_the_training_and_what_follows(finished, edit):
    edit(finished / "config/smoke.yaml", "iterations: 4", "iterations: 5")
    assert planned(finished) == {"frozen_prefix", "train"} | AFTER_TRAINING
    jobs = snakemake(finished, "-n", *SMOKE).stdout
    assert "condition=tuned" in jobs
    assert "generate_test_seen_base" not in jobs.replace("\n", " ").split("rule summarize")[0]


def test_swapping_two_settings_is_noticed(finished):
    betas = "training={betas: [0.999, 0.9]}"
    assert "train" in planned(finished, "--config", betas)


SCORED = {"audit", "score", "summarize", "figures", "report", "model_card"}
DATA = {"curate", "split", "tokenize_examples", "data_report", "frozen_prefix", "train"} | AFTER_TRAINING


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("evals/scoring/failure_labels.py", SCORED),
        ("evals/scoring/match.py", SCORED),
        ("evals/generate.py", ANSWERED),
        ("data/curate.py", DATA),
        ("chat/template.py", DATA | {"convert_model"}),
        ("lora/loss.py", {"frozen_prefix", "train"} | AFTER_TRAINING),
        ("report/summary.py", {"summarize", "figures", "report", "model_card"}),
        ("report/page.py", {"report"}),
        ("report/templates/style.html.jinja", {"summarize", "data_report", "figures", "report", "model_card"}),
    ],
)
def test_an_edit_reruns_what_it_decides_and_no_model_without_need(finished, edit, module, rules):
    path = finished / "workflow/scripts/callwright" / module
    path.write_bytes(path.read_bytes())
    edit(path, "\n", "\n\n" if path.suffix == ".jinja" else "\n# edited\n")
    assert planned(finished) == rules


def test_another_suite_reruns_no_answers_to_those_there_are(finished, tmp_path):
    (tmp_path / "mine.jsonl").write_bytes(b"\n".join(map(orjson.dumps, xlam_rows(3))))
    more = f"evaluation={{suites: [test_seen, test_unseen_tools, {{mine: {tmp_path / 'mine.jsonl'}}}]}}"
    jobs = snakemake(finished, "-n", *SMOKE, "--config", more).stdout
    wildcards = set(re.findall(r"wildcards: run=smoke, suite=(\w+), condition", jobs))
    assert wildcards == {"mine"}
    after = ANSWERED | {"suite"}
    assert planned(finished, "--config", more) == after
    snakemake(finished, *SMOKE, "--config", more, "--until", "suite")
    assert len(list(read_jsonl(finished / "results/suites/mine.jsonl"))) == 3


def test_a_setting_of_the_audit_reruns_no_answer(finished):
    """An answer that was cut is kept when its user allows more of them."""
    again = planned(finished, "--config", "evaluation={max_length_stops: 0.5}")
    assert {"audit", "score"} <= again
    assert again & {"train", "generate"} == set()


def test_changed_items_are_made_from_the_runs_own_and_asked_of_each_condition(finished):
    suites = "evaluation={suites: [test_seen, test_unseen_tools, robust_shuffled, robust_distractors_16]}"
    jobs = snakemake(finished, "-n", *SMOKE, "--config", suites).stdout
    made = set(re.findall(r"output: (results/smoke/suites/\w+\.jsonl)", jobs))
    assert made == {f"results/smoke/suites/robust_{name}.jsonl" for name in ("shuffled", "distractors_16")}
    answered = re.findall(r"output: results/smoke/evaluation/(robust_\w+)/(\w+)/generations.jsonl", jobs)
    assert set(answered) == {(f"robust_{name}", condition) for name in ("shuffled", "distractors_16")
                             for condition in ("base", "tuned", "tuned_served")}  # fmt: skip
    snakemake(finished, *SMOKE, "--config", suites, "--until", "robust")
    assert len(list(read_jsonl(finished / "results/smoke/suites/robust_distractors_16.jsonl"))) == 4


def test_no_score_is_written_before_a_failed_audit_and_no_answer_is_lost(finished):
    """Here all answers of the fine-tuned model are cut."""
    folder = finished / "results/smoke/evaluation/test_seen"
    path = folder / "tuned/generations.jsonl"
    before = path.read_bytes()
    rows = [{**row, "finish_reason": "length"} for row in map(orjson.loads, before.splitlines())]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    audit = "results/smoke/evaluation/test_seen/audit.json"
    result = snakemake(finished, audit, *SMOKE, "--config", "evaluation={max_length_stops: 0.01}", check=False)
    assert result.returncode != 0
    assert "tuned 4 of 4 (100.0%)" in result.stdout
    assert "set evaluation.max_length_stops to 1.0 or more" in result.stdout
    assert not (folder / "audit.json").exists()
    found = {finding["check"]: finding for finding in read_json(folder / "audit-failed.json")["findings"]}
    assert [name for name, finding in found.items() if finding["verdict"] == "failed"] == ["length"]
    assert len(list(read_jsonl(path))) == 4
    path.write_bytes(before)
    snakemake(finished, *SMOKE)
    assert not (folder / "audit-failed.json").exists()
    assert planned(finished) == set()


def test_an_edit_of_the_data_file_reruns_the_data(finished, edit):
    edit(finished / "config/toolsets/everyday.yaml", "\n", "\n# edited\n")
    assert {"curate", "split", "tokenize_examples", "train", "generate"} <= planned(finished)
    assert planned(finished) & {"fetch_model", "convert_model"} == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "training={learning_rat: 1}"], "training.learning_rat is not known"),
        (["--config", "training={learning_rate: 1e4}"], "training.learning_rate is 10000.0"),
        (["--config", "toolset=nowhere.yaml"], "nowhere.yaml"),
        (["--config", "data={source: examples, path: none.jsonl}"], "none.jsonl"),
    ],
)
def test_a_wrong_setting_stops_with_its_name(checkout, arguments, words):
    result = snakemake(checkout, "-n", *arguments, check=False)
    assert result.returncode != 0
    assert words in result.stdout.splitlines()[-1], "the last line is the one to act on"
    assert "Traceback" not in result.stdout


def test_a_mistake_in_a_file_is_said_in_the_last_line(finished, tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("domains:\n  shop:\n    tools: 3\n")
    result = snakemake(finished, *SMOKE, "--config", f"toolset={path}", "--until", "curate", check=False)
    assert result.returncode != 0
    assert f"{path}, line 3: domains.shop.tools: found 3" in result.stdout.splitlines()[-1]


def test_the_console_shows_a_job_in_eight_lines(finished):
    output = snakemake(finished, "-n", *SMOKE, "--forceall").stdout
    blocks = re.findall(r"^(?:local)?rule \w+:\n((?:    .*\n)+)", output, flags=re.MULTILINE)
    assert len(blocks) > 10
    assert max(block.count("\n") for block in blocks) <= 8


def test_the_scores_can_be_recomputed_from_the_stored_generations(finished):
    before = {path: path.read_bytes() for path in (finished / "results/smoke/evaluation").rglob("scores.json*")}
    assert len(before) == 12
    snakemake(finished, *SMOKE, "--forcerun", "score", "--until", "score")
    assert {path: path.read_bytes() for path in before} == before
    snakemake(finished, *SMOKE)


def test_environment_yml_gives_the_pins_of_the_lock(root):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-r requirements.lock"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    names = {re.split(r"[=<>]", entry)[0] for entry in environment["dependencies"] if isinstance(entry, str)}
    assert names == {"python", "pip", "libopenblas"}, "a package pinned by conda too could differ from the lock"


def test_the_lock_covers_every_direct_dependency_and_platform(root):
    lock = (root / "requirements.lock").read_text()
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    direct = re.findall(r"^([a-z][A-Za-z0-9_.-]*)", (root / "requirements.in").read_text(), flags=re.MULTILINE)
    assert set(direct) <= pinned
    assert {"mlx-metal", "mlx-cpu"} <= pinned
    assert "torch" not in pinned
    assert lock.count("--hash=sha256:") > len(pinned)


def test_a_tool_encoder_lies_beside_the_decision_and_a_damaged_one_is_refused(finished, root, tmp_path):
    decision, encoder = (finished / "results/smoke" / name for name in ("decision.json", FILE))
    before = read_json(decision)
    (tmp_path / FILE).write_bytes(b"no tensors")
    target = ["results/smoke/decision.json", *SMOKE, "--config"]
    told = snakemake(finished, *target, f"evaluation={{tool_encoder: {tmp_path}}}", check=False)
    assert told.returncode != 0
    assert "not a tool encoder" in told.stdout
    released = root / "adapters/tool-encoder"
    snakemake(finished, *target, f"evaluation={{tool_encoder: {released}}}")
    assert read_json(decision) == {**before, "tool_encoder": {"weight": WEIGHT, "offered": None}}
    assert encoder.read_bytes() == (released / FILE).read_bytes()
    snakemake(finished, *SMOKE)
    assert read_json(decision) == before
