"""The summary's numbers: comparisons that were planned, robustness, cost, and the answer in words."""

import copy
from types import SimpleNamespace

import pytest
import yaml

from callwright.chat.formats import encode_calls
from callwright.data.records import Example
from callwright.evals import stored
from callwright.evals.scoring import score
from callwright.evals.statistics import holm, mcnemar_exact
from callwright.report import comparisons, summary
from callwright.report.cost import cost
from callwright.runtime.config import fill_defaults
from callwright.runtime.files import write_jsonl

STAGES = dict.fromkeys((*score.STAGES, "lenient_ast"), False)


def suite(n, tools=0, prefix="i"):
    """Items about `tools` tools in turn; 0: each about its own."""
    return [
        SimpleNamespace(id=f"{prefix}{k}", calls=[{"name": f"t{k % (tools or n)}", "arguments": {}}], tool_names=(),
                        tags=())
        for k in range(n)
    ]  # fmt: skip


def marks(items, right, **other):
    """Score rows of items of which the first `right` (or those at the given places) are correct."""
    places = range(right) if isinstance(right, int) else right
    return [{"id": item.id, **STAGES, "ast": k in places, **other} for k, item in enumerate(items)]


ITEMS = suite(20)
EVALUATION = {"primary": {"suite": "test_seen", "metric": "ast", "from": "base", "to": "tuned"},
              "comparisons": [["base", "tuned"], ["base_grammar", "tuned"], ["tuned", "fused"]]}  # fmt: skip
ROWS = {
    "test_seen": {"base": marks(ITEMS, 2), "base_grammar": marks(ITEMS, 6), "tuned": marks(ITEMS, 14)},
    "mine": {"base": marks(ITEMS, 3), "tuned": marks(ITEMS, 5)},
}
EXAMPLES = {"test_seen": ITEMS, "mine": ITEMS}


def compared(evaluation=EVALUATION, rows=ROWS, examples=EXAMPLES, contaminated=None):
    found = comparisons.compare_all(evaluation, rows, examples, contaminated or {})
    return {(entry["suite"], entry["from"], entry["to"]): entry for entry in found}


def test_planned_pairs_are_compared_where_both_were_answered():
    found = compared()
    assert {key: entry["planned"] for key, entry in found.items()} == {
        ("test_seen", "base", "tuned"): True,
        ("test_seen", "base_grammar", "tuned"): True,
        ("test_seen", "base", "base_grammar"): False,
        ("mine", "base", "tuned"): True,
    }
    entry = found["test_seen", "base", "tuned"]
    assert (entry["n"], entry["won"], entry["lost"], entry["clusters"]) == (20, 12, 0, 20)
    assert (entry["before"], entry["after"], entry["difference"]) == pytest.approx((0.1, 0.7, 0.6))
    assert entry["ci95"][0] < 0.6 < entry["ci95"][1]
    assert (entry["metric"], entry["clustered_by"], entry["clean"]) == ("ast", "tool component", None)


def test_holm_is_over_all_planned_comparisons_of_the_run():
    found = compared()
    raw = [mcnemar_exact(12, 0), mcnemar_exact(8, 0), mcnemar_exact(2, 0)]
    keys = [("test_seen", "base", "tuned"), ("test_seen", "base_grammar", "tuned"), ("mine", "base", "tuned")]
    assert [found[key]["p_value"] for key in keys] == raw
    assert [found[key]["p_holm"] for key in keys] == holm(raw)
    assert found["test_seen", "base", "base_grammar"]["p_holm"] is None


def test_the_primary_comparison_counts_as_planned_on_its_own_suite_alone():
    aim = {"suite": "mine", "metric": "exact", "from": "tuned", "to": "base"}
    found = compared({"primary": aim, "comparisons": []})
    assert [key for key, entry in found.items() if entry["planned"]] == [("mine", "tuned", "base")]
    assert all(entry["metric"] == "exact" and entry["after"] == 0 for entry in found.values())


def test_a_configuration_from_before_has_the_schemas_defaults(root):
    schema = yaml.safe_load((root / "workflow" / "schemas" / "config.schema.yaml").read_text())
    config = fill_defaults({}, schema)["evaluation"]
    assert config["primary"] == comparisons.PRIMARY == comparisons.primary({})
    assert [tuple(pair) for pair in config["comparisons"]] == list(comparisons.PLANNED)
    assert compared({}) == compared(config)


def test_the_clean_comparison_leaves_contaminated_items_out():
    dirty = {"test_seen": ["i0", "i1", "i2", "i19"], "mine": []}
    found = compared(contaminated=dirty)
    clean = found["test_seen", "base", "tuned"]["clean"]
    assert (clean["n"], clean["won"], clean["lost"]) == (16, 11, 0)
    assert clean["before"] == 0
    assert clean["after"] == pytest.approx(11 / 16)
    same = found["mine", "base", "tuned"]
    assert same["clean"].items() <= {**same, "p_holm": same["clean"]["p_holm"]}.items()
    cleaned = [entry["clean"] for entry in found.values() if entry["planned"]]
    assert [entry["p_holm"] for entry in cleaned] == holm([entry["p_value"] for entry in cleaned])
    every = compared(contaminated={"mine": [item.id for item in ITEMS]})
    assert every["mine", "base", "tuned"]["clean"] is None


def test_items_that_one_condition_lacks_are_left_out():
    made = comparisons.compare(marks(ITEMS, 2)[:10], marks(ITEMS, 14)[1:], ITEMS)
    assert (made["n"], made["won"], made["before"]) == (9, 8, pytest.approx(1 / 9))
    assert comparisons.compare([], marks(ITEMS, 1), ITEMS) is None


def test_items_about_common_tools_are_drawn_together():
    items = suite(20, tools=4)
    made = comparisons.compare(marks(items, 0), marks(items, [k for k in range(20) if k % 4 < 2]), items)
    alone = comparisons.compare(marks(ITEMS, 0), marks(ITEMS, 10), ITEMS)
    assert (made["clusters"], alone["clusters"]) == (4, 20)
    assert made["ci95"][1] - made["ci95"][0] > 1.5 * (alone["ci95"][1] - alone["ci95"][0])


def changed(items, change):
    return [
        SimpleNamespace(id=f"{e.id}@{change}", calls=e.calls, tool_names=(), tags=(f"robust:{change}", f"clean:{e.id}"))
        for e in items
    ]


def test_robustness_pairs_each_changed_item_with_its_clean_one():
    shuffled = changed(ITEMS[:10], "shuffled")
    rows = {
        "robust_shuffled": {"tuned": marks(shuffled, [0, 1, 2, 3, 8]), "base": marks(shuffled, 0)},
        "test_seen": {"tuned": marks(ITEMS, 6), "base": marks(ITEMS, 0)},
        "mine": {"tuned": marks(ITEMS, 0)},
    }
    examples = {**EXAMPLES, "robust_shuffled": shuffled}
    tuned, base = comparisons.robustness(rows, examples)
    assert (tuned["change"], tuned["suite"], tuned["condition"]) == ("shuffled", "robust_shuffled", "tuned")
    assert (tuned["n"], tuned["clean"], tuned["changed"]) == (10, 0.6, 0.5)
    assert tuned["drop"] == pytest.approx(0.1)
    assert tuned["ci95"][0] < 0.1 < tuned["ci95"][1]
    assert tuned["consistency"] == pytest.approx(0.7), "4, 5 and 8 changed"
    assert tuned["kept"] == pytest.approx(4 / 6)
    assert tuned["p_value"] == mcnemar_exact(2, 1)
    assert (base["drop"], base["consistency"], base["kept"]) == (0, 1, None)
    assert [tuned["p_holm"], base["p_holm"]] == holm([tuned["p_value"], base["p_value"]])
    compared_suites = {key[0] for key in compared(rows=rows, examples=examples)}
    assert compared_suites == {"test_seen"}, "changed items are no comparison of their own"


def test_robustness_needs_the_clean_items():
    shuffled = changed(ITEMS, "shuffled")
    rows = {"robust_shuffled": {"tuned": marks(shuffled, 3)}, "mine": ROWS["mine"]}
    assert comparisons.robustness(rows, {"robust_shuffled": shuffled, "mine": ITEMS}) == []


def answered(n, **changes):
    """Generation rows; changes are lists of a value for each."""
    rows = [{"id": f"i{k}", "finish_reason": "stop", "prompt_tokens": 100, "output_tokens": 10, "seconds": float(k)}
            for k in range(n)]  # fmt: skip
    for key, values in changes.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return rows


def test_cost_adds_up():
    rows = answered(5, output_tokens=[10, 20, 30, 40, 0], finish_reason=["stop", "stop", "length", "stop", "too_long"])
    scores = [{"calls": {"made": made}} for made in (1, 3, 0, 1, 0)]
    about = {"device": "cpu", "batch_size": 4, "peak_memory_gb": 1.5, "seconds": 8.0, "versions": {"mlx": "1"}}
    found = cost(rows, scores, about, seconds=99.0)
    assert found == {
        "n": 4, "prompt_tokens_per_item": 100, "output_tokens_per_item": 25, "prompt_tokens_per_call": 80,
        "output_tokens_per_call": 20, "latency_p50": 1.5, "latency_p95": pytest.approx(2.85), "tokens_per_second": 12.5,
        "seconds": 8.0, "length_stops": 1, "length_stop_share": 0.25, "peak_memory_gb": 1.5, "batch_size": 4,
        "device": "cpu", "versions": {"mlx": "1"},
    }  # fmt: skip


def test_cost_of_an_older_run_says_what_is_known():
    rows = [{"id": "i0", "finish_reason": "stop", "output_tokens": 5}]
    found = cost(rows, [{"ast": True}], None, seconds=2.0)
    assert (found["output_tokens_per_item"], found["tokens_per_second"]) == (5, 2.5)
    unknown = ("prompt_tokens_per_item", "output_tokens_per_call", "latency_p50", "latency_p95", "peak_memory_gb")
    assert [found[key] for key in unknown] == [None] * 5
    assert cost([])["tokens_per_second"] is None


TOOL = {"type": "function", "function": {"name": "t", "description": "A tool.", "parameters": {"type": "object"}}}


@pytest.fixture
def made(tmp_path):
    """The summary of a run of six items; the base model answers in prose, the tuned one calls five times."""
    (tmp_path / "generate_test_seen_tuned.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t1000.0\n")
    (tmp_path / "split.tsv").write_text("s\th:m:s\tmax_rss\n0.1\t0:00:00\tNA\n")
    call = {"name": "t", "arguments": {}}
    items = [Example(f"i{k}", [{"role": "user", "content": "Do it."}], [TOOL], [call], "x") for k in range(6)]
    texts = {"base": ["No."] * 6, "tuned": [encode_calls([call])] * 5 + ["No."]}
    generations = {
        condition: [{**row, "suite": "test_seen", "condition": condition, "text": text}
                    for row, text in zip(answered(6), said, strict=True)]
        for condition, said in texts.items()
    }  # fmt: skip
    for condition, rows in generations.items():
        write_jsonl(tmp_path / "test_seen" / condition / "generations.jsonl", rows)
    read = stored.evaluation_rows(sorted(tmp_path.rglob("*.jsonl")))
    scores = {condition: score.score_all(items, rows) for condition, rows in read["test_seen"].items()}
    return summary.summarize(
        config={"runs": ["tiny"], "evaluation": {"batch_size": 3}},
        model={
            "name": "tiny",
            "license": "Apache-2.0",
            "parameters": 135_000_000,
            "source": {"kind": "folder"},
            "files": {"config.json": "1", "needle.py": "2"},
        },
        split={"sizes": {"train": 80}, "kinds": {}, "held_out_tools": [], "audit": {}},
        ledger={"records_in": 100},
        training={"device": {"device": "cpu", "cores": 2}, "final_loss": 0.5},
        scores={"test_seen": {condition: score.summarize(rows) for condition, rows in scores.items()}},
        rows={"test_seen": scores},
        examples={"test_seen": items},
        benchmarks=sorted(tmp_path.glob("*.tsv")),
        generations=read,
        audits={"test_seen": {"findings": [], "contaminated": ["i0", "i1"]}},
    )


def test_the_summary_holds_what_its_contract_names(made):
    assert made["run"] == "tiny"
    assert made["device"] == {"device": "cpu", "cores": 2}
    assert made["training"] == {"final_loss": 0.5}
    assert made["seconds"] == {"generate_test_seen_tuned": 12.5, "split": 0.1}
    assert made["process_memory_gb"] == {"generate_test_seen_tuned": 1.049, "split": 0}
    assert {"mlx", "mlx-lm", "python", "callwright"} <= made["versions"].keys()
    assert made["evaluation"]["test_seen"]["tuned"]["counts"]["ast"] == 5
    assert made["primary"] == comparisons.PRIMARY
    [entry] = made["comparisons"]
    assert (entry["won"], entry["lost"], entry["n"], entry["clean"]["n"]) == (5, 0, 6, 4)
    assert entry["p_value"] == entry["p_holm"] == pytest.approx(2 / 2**5)
    assert made["audit"]["test_seen"]["contaminated"] == ["i0", "i1"]
    assert made["model"]["model_file"] == "needle.py"
    assert made["robustness"] == []
    tuned = made["cost"]["test_seen"]["tuned"]
    assert (tuned["seconds"], tuned["tokens_per_second"], tuned["batch_size"]) == (12.5, 60 / 12.5, 3)
    assert tuned["output_tokens_per_call"] == 60 / 5
    assert made["cost"]["test_seen"]["base"]["output_tokens_per_call"] is None


FOUND = {"suite": "test_seen", "from": "base", "to": "tuned", "metric": "ast", "planned": True, "n": 50,
         "before": 0.56, "after": 0.96, "difference": 0.4, "ci95": [0.1, 0.4], "won": 20, "lost": 0,
         "p_value": 0.0001, "p_holm": 0.0003, "clusters": 30, "clustered_by": "tool component",
         "clean": None}  # fmt: skip


def said(*changes):
    made = [{**FOUND, **more} for more in changes]
    return {"primary": comparisons.PRIMARY, "comparisons": made}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ci95": [0.1, 0.4]}, "raised"),
        ({"ci95": [-0.4, -0.1]}, "lowered"),
        ({"ci95": [-0.1, 0.2]}, "did not measurably change"),
        ({"ci95": [0.0, 0.2]}, "did not measurably change"),
        ({"ci95": [0.1, 0.4], "p_value": 0.01, "p_holm": 0.06}, "did not measurably change"),
    ],
)
def test_the_answer_says_no_more_than_interval_and_p_value_allow(changes, words):
    text = summary.answer(said(changes))
    low, high = (f"{100 * bound:+.1f}" for bound in changes["ci95"])
    assert f"On 50 items of test_seen (known tools, new requests), fine-tuning {words} the share" in text
    assert "56.0 % before, 96.0 % after, a difference of +40.0 points" in text
    assert f"95 % interval {low} to {high}" in text
    assert ("p = 0.010" if "p_value" in changes else "p < 0.001") in text
    assert text.count(". ") == 0, "one sentence"


def test_the_answer_tells_what_grammar_alone_does_and_what_is_clean():
    grammar = {"to": "base_grammar", "after": 0.7, "difference": 0.14, "planned": False, "p_holm": None}
    learned = {"from": "base_grammar", "before": 0.7, "difference": 0.26, "p_value": 0.004, "p_holm": 0.012}
    clean = {**FOUND, "n": 44, "difference": 0.39}
    text = summary.answer(said({"clean": clean}, grammar, learned))
    assert "the grammar alone, without training, gets 70.0 %, +14.0 points" in text
    assert "leaves +26.0 points" in text
    assert "p = 0.004, by Holm for 2 planned comparisons p = 0.012" in text
    assert "on the 44 items" in text
    assert "+39.0 points" in text
    alone = summary.answer(said({"clean": {**clean, "n": 50}}))
    assert "grammar" not in alone
    assert "on the" not in alone, "nothing was contaminated"


def test_the_answer_admits_that_the_primary_comparison_is_missing():
    text = summary.answer(said({"suite": "mine"}))
    assert text.startswith("The primary comparison, base against tuned on test_seen, was not made")


def test_each_suite_has_a_sentence_of_its_own():
    other = {"from": "base_grammar", "suite": "mine"}
    first, second = summary.sentences(said({}, {"suite": "mine", "p_value": 0.5, "p_holm": 0.5}, other))
    assert "On 50 items of test_seen" in first
    assert "On 50 items of mine (a file), fine-tuning did not measurably change" in second
    stage = said({"from": "base_grammar", "metric": "names"})
    stage["primary"] = {**comparisons.PRIMARY, "from": "base_grammar"}
    assert "going from base_grammar to tuned raised the share of answers that pass `names`" in summary.answer(stage)


def test_the_summary_leaves_its_inputs_as_they_are():
    before = copy.deepcopy((EVALUATION, ROWS))
    compared(contaminated={"test_seen": ["i0"]})
    assert before == (EVALUATION, ROWS)


def test_what_a_user_gets_is_said_where_it_was_measured():
    found = {"evaluation": {"a": {"tuned": {"ast": 0.1}, "tuned_served": {"ast": 0.5}}, "b": {"tuned": {"ast": 0.2}}}}
    said = summary.as_served(found)
    assert said.endswith("correct for 50.0 % on a.")
    del found["evaluation"]["a"]["tuned_served"]
    assert summary.as_served(found) == ""
