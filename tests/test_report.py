"""The summary, the figures and the page, made from small hand-written results."""

import re
from html.parser import HTMLParser

import pytest

from callsmith.data.records import ANY_CALL, Example
from callsmith.evals import score
from callsmith.report import comparisons, drawing, figures, page, summary
from callsmith.report import html as markup

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
RIGHT = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
HOSTILE = "<script>alert(1)</script> & </pre>"


@pytest.fixture
def examples():
    call = {"name": "get_weather", "arguments": {"city": "Rome"}}
    asked = [{"role": "user", "content": f"Weather in Rome, {HOSTILE}?"}]
    called = [Example(f"item-{number}", asked, [TOOL], [call], "test") for number in range(6)]
    return [*called, Example("item-6", [{"role": "user", "content": "Thanks!"}], [TOOL], [], "test", answer="Welcome.")]


@pytest.fixture
def generations(examples):
    def rows(condition, texts):
        return [
            {"id": example.id, "suite": "test_seen", "condition": condition, "finish_reason": "stop", "text": text,
             "output_tokens": 5}
            for example, text in zip(examples, texts, strict=True)
        ]  # fmt: skip

    return {
        "test_seen": {
            "base": rows("base", [HOSTILE] * 6 + ["You are welcome."]),
            "tuned": rows("tuned", [RIGHT] * 5 + ["Which city?", "Welcome."]),
        }
    }


@pytest.fixture
def scores(examples, generations):
    return {
        suite: {condition: score.score_all(examples, rows) for condition, rows in by_condition.items()}
        for suite, by_condition in generations.items()
    }


TRAINING = {
    "device": {"device": "cpu", "cores": 2},
    "iterations": 4, "window": 2, "initial_loss": 2.0, "final_loss": 0.5, "loss_reduction": 0.75,
    "initial_validation_loss": 1.8, "final_validation_loss": 0.7, "best_validation_loss": 0.65, "best_iteration": 2,
    "convergence_iteration": 3, "coefficient_of_variation": 0.1, "iterations_per_second": 1.5, "tokens": 12345,
    "trained_tokens": 678, "tokens_per_second": 99.0, "peak_memory_gb": 0.7, "process_memory_gb": 1.2,
    "train_seconds": 3.0, "seconds": 75.0, "workers": 1, "stopped_early": None,
    "kept": {"step": 2, "by": "validation_loss", "validation_loss": 0.65, "correct": None, "asked": None},
    "sgemm_gflops": 120.0, "sgemm_share": {"forward": 0.61, "all": 0.55},
    "plan": {"rows": [{"what": "weights", "predicted_gb": 0.5381, "measured_gb": 0.552},
                      {"what": "at most during the run", "predicted_gb": 0.8148, "measured_gb": None}]},
}  # fmt: skip
MEMORY = {"active_gb": 0.5, "peak_gb": 0.6, "cache_gb": 0.1, "process_gb": 1.0}
HISTORY = [
    {"event": "validation", "step": 0, "loss": 1.8, "seconds": 1.0, **MEMORY},
    *({"event": "step", "step": n, "loss": 2 / n, "lr": 1e-3, "grad_norm": 0.5, "tokens": 10, **MEMORY}
      for n in range(1, 5)),
    {"event": "validation", "step": 4, "loss": 0.7, "seconds": 1.0, **MEMORY},
    *({"event": "memory", "step": 1, "phase": phase, "seconds": 1.0, **MEMORY} for phase in ("forward", "backward")),
]  # fmt: skip


@pytest.fixture
def made(examples, scores, tmp_path):
    benchmark = tmp_path / "train.tsv"
    benchmark.write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t1000.0\n")
    moment = tmp_path / "split.tsv"
    moment.write_text("s\th:m:s\tmax_rss\n0.1\t0:00:00\tNA\n")
    sizes = {"train": 80, "valid": 10, "test_seen": 7, "test_unseen_tools": 0}
    return summary.summarize(
        config={"runs": ["tiny"], "data": {"seed": 42}},
        model={"name": "tiny", "licence": "Apache-2.0", "parameters": 135_000_000, "source": {"kind": "folder"}},
        split={
            "sizes": sizes,
            "kinds": {name: {"one": size, "several": 0, "none": 0} for name, size in sizes.items()},
            "held_out_tools": [],
            "audit": {"tools": dict.fromkeys(sizes, 1)},
        },
        ledger={"records_in": 100, "kept": 97, "rejected": {"too_long": 3}},
        training=TRAINING,
        scores={s: {c: score.summarize(rows) for c, rows in of.items()} for s, of in scores.items()},
        rows=scores,
        examples={"test_seen": examples},
        benchmarks=[benchmark, moment],
    )


def draw(made, scores, folder, suffix):
    folder.mkdir(parents=True, exist_ok=True)
    figures.draw_all(made, HISTORY, scores, lambda name, drawn: drawing.save_as(drawn, folder / f"{name}{suffix}"))
    return {path.stem: path.read_bytes() for path in folder.glob(f"*{suffix}")}


def test_the_same_numbers_draw_the_same_bytes(made, scores, tmp_path):
    first, second = draw(made, scores, tmp_path / "a", ".svg"), draw(made, scores, tmp_path / "b", ".svg")
    assert first == second
    assert first.keys() == {"training", "memory", "evaluation", "items"}
    assert all(b"currentColor" in svg for svg in first.values())


def test_figures_name_their_axes_and_units(made, scores, tmp_path):
    drawn = draw(made, scores, tmp_path, ".svg")
    for name, texts in {
        "training": ["nats", "learning rate", "gradient norm", "optimizer step", "converged at step 3"],
        "memory": ["memory (GB)", "optimizer step", "most predicted", "backward"],
        "evaluation": ["share of items (%)", "n = 7", "base", "tuned"],
        "items": ["last stage reached"],
    }.items():
        for text in texts:
            assert text in drawn[name].decode(), (name, text)


def test_png_figures_are_pictures(made, scores, tmp_path):
    assert all(content.startswith(b"\x89PNG") for content in draw(made, scores, tmp_path, ".png").values())


def test_the_smoothed_loss_weighs_tokens():
    assert figures.smoothed([1, 2, 3], [1, 1, 2], 2).tolist() == pytest.approx([1, 1.5, 8 / 3])


@pytest.fixture
def html(made, scores, examples, generations, tmp_path):
    svg = {name: content.decode() for name, content in draw(made, scores, tmp_path, ".svg").items()}
    rejected = [{"id": f"r{n}", "rule": "too_long", "reason": "900 tokens"} for n in range(5)]
    return page.render(made, svg, {"test_seen": examples}, scores, generations, rejected)


def test_suites_from_elsewhere_are_shown_beside_the_runs_own(made, scores, examples, generations, tmp_path):
    """A category of BFCL where some call is right, and a file of one's own; each has its rows, nothing is summed."""
    asked = [Example(f"any-{n}", [{"role": "user", "content": "?"}], [TOOL], [], "bfcl", (ANY_CALL,)) for n in range(3)]
    items = {"test_seen": examples, "bfcl_live_relevance": asked, "mine": examples}
    generations = {**generations, "mine": generations["test_seen"]}
    generations["bfcl_live_relevance"] = {
        condition: [
            {"id": example.id, "suite": "bfcl_live_relevance", "condition": condition, "finish_reason": "stop",
             "text": text, "output_tokens": 5}
            for example in asked
        ]
        for condition, text in (("base", "No."), ("tuned", RIGHT))
    }  # fmt: skip
    scores = {
        suite: {condition: score.score_all(items[suite], rows) for condition, rows in of.items()}
        for suite, of in generations.items()
    }
    evaluation = {suite: {c: score.summarize(rows) for c, rows in of.items()} for suite, of in scores.items()}
    found = {**made, "evaluation": evaluation, "comparisons": comparisons.compare_all({}, scores, items, {})}
    svg = {name: content.decode() for name, content in draw(found, scores, tmp_path, ".svg").items()}
    html = page.render(found, svg, items, scores, generations, [])
    assert "On 3 items of bfcl_live_relevance (BFCL v4, from users: some call is right, whichever)" in html
    assert "On 7 items of mine (a file)" in html
    assert "a call, whichever" in html
    assert "expects any" in html
    assert "any" in re.findall(r">\s*(\w+)\s*</text>", svg["evaluation"])
    parser = Balance()
    parser.feed(html)
    assert parser.open == []


class Balance(HTMLParser):
    """Notes tags that are closed in another order than they were opened."""

    VOID = {"meta", "br", "img", "link"}

    def __init__(self):
        super().__init__()
        self.open, self.scripts, self.references = [], 0, []

    def handle_starttag(self, tag, attrs):
        self.scripts += tag == "script"
        self.references += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network(html):
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert all(re.match("#|data:|[^:/]+/", reference) for reference in parser.references), "nothing is fetched"
    assert not re.search(r"url\((?!#)", html)
    assert html.count("<svg") == 4


def test_what_models_and_users_write_stays_text(html):
    parser = Balance()
    parser.feed(html)
    assert parser.scripts == 0
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_shows_the_measured_numbers(html):
    assert "6 of 7" in html
    assert "85.7 % [48.7, 97.4]" in html
    assert "did not measurably change" not in html
    assert "14.3 % before, 85.7 % after" in html
    assert "abstained when should call" in html
    assert "12,345" in html
    assert "forward 61 %, all 55 %" in html
    assert '<td>weights</td><td class="number">0.538</td><td class="number">0.552</td>' in html
    assert html.count("900 tokens") == markup.REJECTIONS_SHOWN
    for number in range(7):
        assert f"item-{number}" in html


def test_the_page_says_which_adapter_was_kept_and_why(html):
    assert "of step 2: the lowest validation loss" in html
    assert page.kept({"step": 9, "by": "last", "correct": None, "asked": None}) == "of step 9: the last"
    found = {"step": 5, "by": "tool_calls", "correct": 11, "asked": 16}
    assert page.kept(found) == "of step 5: the most correct tool calls on validation examples, 11 of 16"
    assert "Stopped early" not in html
    stopped = {**TRAINING, "stopped_early": {"step": 3, "reason": "no lower validation loss since step 1"}}
    assert ("Stopped early at step 3", "no lower validation loss since step 1") in page.training_rows(stopped)
