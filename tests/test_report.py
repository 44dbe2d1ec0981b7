"""The figures and the page, made from small hand-written results."""

import base64
import hashlib
import itertools
import re

import numpy as np
import pytest
from fixtures_report import Balance

from callwright.data.records import ANY_CALL, Example
from callwright.evals.conditions import CONDITIONS
from callwright.evals.scoring import score
from callwright.evals.threshold import fit
from callwright.lora import convergence
from callwright.report import comparisons, drawing, figures, page, results, study, summary
from callwright.report import html as markup
from callwright.report.cost import cost
from callwright.report.tables import Cell, Table, arranged

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
RIGHT = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(1)</script> & </pre>\u202e"


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
    *({"event": "step", "step": n, "loss": 2 / n, "lr": 1e-3, "grad_norm": 0.5, "tokens": 10,
       "processed_tokens": 30, "seconds": 0.5, **MEMORY}
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
        config={"runs": ["tiny"], "data": {"seed": 42}, "evaluation": {}, "report": {"study": True}},
        model={"name": "tiny", "license": "Apache-2.0", "parameters": 135_000_000, "source": {"kind": "folder"}},
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


@pytest.fixture
def full(made, scores, examples, generations):
    """A summary with all that a run may have."""
    robust = [
        {"change": "opaque", "suite": "robust_opaque", "condition": "tuned", "n": 7, "clean": 0.8, "changed": 0.4,
         "drop": 0.4, "ci95": [0.1, 0.6], "consistency": 0.6, "p_value": 0.0004, "p_holm": 0.03}
    ]  # fmt: skip
    share = {"n": 4, "success": 0.25, "count": 1, "ci95": [0.1, 0.7]}
    findings = [
        {"check": "leak", "verdict": "ok", "about": "no prompt holds its answer", "items": []},
        {"check": "contamination", "verdict": "failed", "about": "2 were trained", "items": ["item-1", HOSTILE]},
    ]
    decision = fit([0.9, 0.8, 0.7, 0.3, 0.4, 0.2, 0.1], [True, True, True, True, False, False, False])
    return {
        **made,
        "robustness": robust,
        "decision": {**decision, "tool_encoder": {"weight": 10.0}},
        "audit": {"test_seen": {"findings": findings, "contaminated": ["item-1"]}},
        "cost": {"test_seen": {c: cost(rows, scores["test_seen"][c], {"peak_memory_gb": 1.25, "batch_size": 25}, 14.0)
                               for c, rows in generations["test_seen"].items()}},
        "executed": {"tuned": {**share, "by_domain": {"clock": share}, "by_wants": {}, "by_tools": {},
                               "failures": {"other_world": 3}}, "comparison": None},
        "judge": {
            "trusted": False,
            "calibration": {"same": {"n": 9, "right": 9}, "different": {"n": 9, "right": 2}},
            "agreement": {"n": 3, "share": 0.5, "kappa": None},
            "suites": {"test_seen": {"tuned": {"n": 7, "ast": 6, "asked": 1, "same": 1, "different": 0, "undecided": 0,
                                               "with_judge": 1.0}}},
            "items": [],
        },
    }  # fmt: skip


def draw(made, scores, folder, suffix):
    folder.mkdir(parents=True, exist_ok=True)
    figures.draw_all(made, HISTORY, scores, lambda name, drawn: drawing.save_as(drawn, folder / f"{name}{suffix}"))
    return {path.stem: path.read_bytes() for path in folder.glob(f"*{suffix}")}


ALWAYS = {"training", "convergence", "performance", "memory", "funnel", "items"}


def test_the_same_numbers_draw_the_same_bytes(full, scores, tmp_path):
    first, second = draw(full, scores, tmp_path / "a", ".svg"), draw(full, scores, tmp_path / "b", ".svg")
    assert first == second
    assert first.keys() == {*ALWAYS, "robustness", "decision"}
    assert all(b"currentColor" in svg for svg in first.values())


def test_figures_name_their_axes_and_units(full, scores, tmp_path):
    drawn = draw(full, scores, tmp_path, ".svg")
    for name, texts in {
        "training": ["nats", "learning rate", "gradient norm", "optimizer step", "validation", "adapter kept, step 2"],
        "convergence": ["converged at step 3", "Convergence iteration (step 3)", "coefficient of variation", "nats"],
        "performance": ["AST match (%)", "n = 7", "MLX arrays (GB)", "plan: at most 0.81 GB", "tokens per second"],
        "memory": ["memory (GB)", "optimizer step", "process (resident)", "planned", "measured"],
        "funnel": ["share of items (%)", "native parse", "base", "tuned"],
        "items": ["last stage reached", "test seen (n = 7)"],
        "robustness": ["drop in accuracy (points)", "consistent (%)", "opaque"],
        "decision": ["called where one is (% of 4)", "called where no call is wanted (% of 3)", "taken: "],
    }.items():
        for text in texts:
            assert text in drawn[name].decode(), (name, text)


def test_png_figures_are_pictures(made, scores, tmp_path):
    drawn = draw(made, scores, tmp_path, ".png")
    assert drawn.keys() == ALWAYS
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())


def test_a_figure_that_was_asked_for_is_drawn_even_without_numbers(made, scores):
    found = {}
    figures.draw_all(made, HISTORY, scores, found.__setitem__, ["robustness", "decision"])
    assert found.keys() == {"robustness", "decision"}


def test_the_figures_smooth_as_the_summary_does():
    steps = [{"step": n, "loss": float(n), "tokens": n} for n in range(1, 41)]
    at, values, size = figures.smoothed(steps)
    measured = convergence.measure(*([row[key] for row in steps] for key in ("loss", "tokens", "step")))
    assert size == measured["window"] == 4
    assert (at[0], at[-1]) == (4, 40)
    assert values[0] == measured["initial_loss"] == pytest.approx((1 + 4 + 9 + 16) / 10)
    assert values[-1] == measured["final_loss"]


def test_every_condition_has_its_own_colour_and_marker():
    assert list(drawing.CONDITION_STYLES) == list(CONDITIONS)
    colours, markers = zip(*drawing.CONDITION_STYLES.values(), strict=True)
    assert len(set(colours)) == len(set(markers)) == len(CONDITIONS)
    of_peers, peers_markers = zip(*drawing.PEER_STYLES, strict=True)
    assert not set(colours) & set(of_peers)
    assert not {*markers, drawing.UNKNOWN_STYLE[1]} & set(peers_markers)
    assert drawing.UNKNOWN_STYLE[1] not in markers


def test_peers_keep_their_style_and_none_has_anothers():
    names = [f"peer_{number}" for number in range(len(drawing.PEER_STYLES))]
    alone = {name: drawing.condition_styles([name])[name] for name in names}
    styles = drawing.condition_styles(["base", *names, "gone", *CONDITIONS])
    assert len({tuple(style.values()) for style in styles.values()}) == len(styles) == len(names) + 1 + len(CONDITIONS)
    assert len({tuple(style.values()) for style in alone.values()}) < len(names), "two names lead to the same style"
    assert styles == drawing.condition_styles(["gone", *reversed(names), *CONDITIONS])
    few = drawing.condition_styles(["base", "peer_needle", "tuned"])
    assert few["peer_needle"] == drawing.condition_styles(["peer_needle", "peer_mine"])["peer_needle"]
    assert len(drawing.condition_styles([*names, "peer_one_more"])) == len(names) + 1


# Machado, Oliveira and Fernandes (2009), severity 1: what linear RGB looks like without red or green cones.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    """Linear RGB of a `#RRGGBB`."""
    rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear RGB under D65."""
    xyz = XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_of_conditions_stay_apart_for_colour_blind_readers(blindness):
    """A difference of 2.3 is just noticed; of Okabe and Ito's own, grey and pink are the nearest, 8.5 apart."""
    colours = [colour for colour, _ in drawing.CONDITION_STYLES.values()]
    seen = [lab(BLINDNESS[blindness] @ linear(colour)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 8
    of_peers = {colour for colour, _ in drawing.PEER_STYLES}
    theirs = [lab(BLINDNESS[blindness] @ linear(colour)) for colour in of_peers]
    assert min(np.linalg.norm(a - b) for a, b in itertools.product(seen, theirs)) > 8


def test_colours_can_be_seen_on_the_page_by_day_and_by_night():
    style = (markup.TEMPLATES / "style.html.jinja").read_text(encoding="utf-8")
    grounds = [
        XYZ[1] @ linear({"#fff": "#ffffff"}.get(ground, ground)) for ground in re.findall("--ground: (#\\w+)", style)
    ]
    assert len(grounds) == 2
    for colour, _ in [*drawing.CONDITION_STYLES.values(), *drawing.PEER_STYLES, drawing.UNKNOWN_STYLE]:
        for ground in grounds:
            dark, light = sorted([ground, XYZ[1] @ linear(colour)])
            assert (light + 0.05) / (dark + 0.05) > 2, colour


# -- the page --------------------------------------------------------------------------------------


def rendered(made, scores, examples, generations, tmp_path):
    svg = {name: content.decode() for name, content in draw(made, scores, tmp_path, ".svg").items()}
    rejected = [{"id": f"r{n}", "rule": "too_long", "reason": "900 tokens"} for n in range(5)]
    return page.render(made, svg, {"test_seen": examples}, scores, generations, rejected)


@pytest.fixture
def html(full, scores, examples, generations, tmp_path):
    return rendered(full, scores, examples, generations, tmp_path)


@pytest.fixture
def bare(made, scores, examples, generations, tmp_path):
    """The page of a run that has not measured anything beside the least."""
    left_out = ("comparisons", "robustness", "audit", "cost", "executed", "judge", "primary")
    made = {key: value for key, value in made.items() if key not in left_out}
    made["config"] = {key: value for key, value in made["config"].items() if key != "report"}
    return rendered(made, scores, examples, generations, tmp_path)


SECTIONS = ("results", "errors", "training", "cost", "data", "provenance")
OPTIONAL = ("robustness", "executed", "judge", "audit", "study")


def test_each_section_is_there_when_its_data_is(html):
    for name in (*SECTIONS, *OPTIONAL):
        assert f'<h2 id="{name}">' in html, name
        assert name == "results" or f'href="#{name}"' in html, name
    for text in ("Planned comparisons", "Funnel", "Format or task", "Calls and arguments", "When no call is right"):
        assert text in html, text
    for text in ("From which probability on it calls", "tool encoder: weight"):
        assert text in html, text


def test_what_was_not_measured_leaves_no_section(bare):
    for name in OPTIONAL:
        assert f'id="{name}"' not in bare, name
        assert f'href="#{name}"' not in bare, name
    for name in SECTIONS:
        assert f'<h2 id="{name}">' in bare, name
    for text in (
        "Planned comparisons",
        "Comparisons that were not planned",
        "latency p50",
        "Holm",
        "calibration",
        "From which",
    ):
        assert text not in bare, text
    assert not re.search(r"<tbody>\s*</tbody>", bare)
    assert "not both evaluated" in bare


def test_a_peer_stands_beside_the_runs_own_model(full, scores, examples, generations, html, tmp_path):
    peer = [{**row, "condition": "peer_mine"} for row in generations["test_seen"]["base"]]
    generations = {"test_seen": {**generations["test_seen"], "peer_mine": peer}}
    scores = {"test_seen": {**scores["test_seen"], "peer_mine": score.score_all(examples, peer)}}
    made = {
        **full,
        "config": {**full["config"], "evaluation": {"peers": {"mine": {"url": "http://x/v1", "model": "big-one"}}}},
        "evaluation": {"test_seen": {name: score.summarize(rows) for name, rows in scores["test_seen"].items()}},
        "comparisons": comparisons.compare_all({}, scores, {"test_seen": examples}, {}),
    }
    shown = rendered(made, scores, examples, generations, tmp_path)
    said = "asking tuned instead of peer_mine"
    for text in ("<h3>Against peers</h3>", "peer_mine → tuned", "big-one", said, "prompts of their own"):
        assert text in shown, text
        assert text not in html, text
    assert shown.index(said) < shown.index('<h2 id="results">')
    assert "http://x" not in re.sub(r"<pre.*?</pre>", "", shown, flags=re.DOTALL)


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
    assert "<td>some call, whichever</td>" in html
    parser = Balance()
    parser.feed(html)
    assert parser.open == []


def test_the_page_is_whole_and_needs_no_network(html, bare):
    for text in (html, bare):
        parser = Balance()
        parser.feed(text)
        assert parser.open == []
        assert all(re.match("#|data:|[^:/]+/", reference) for reference in parser.references), "nothing is fetched"
        assert not re.search(r"url\((?!#)|@import", text)
    assert html.count("<svg") == 8
    assert bare.count("<svg") == 6
    ids = re.findall(r' id="([^"]+)"', html)
    assert len({name for name in ids if ids.count(name) > 1 and not name.startswith(tuple(page.FIGURES))}) == 0


def test_the_one_script_is_the_only_one_that_may_run(html):
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(", script)


def test_what_models_and_users_write_stays_text(html):
    parser = Balance()
    parser.feed(html)
    assert parser.scripts == 1
    assert parser.images == 0
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&lt;script&gt;alert(1)" in html
    assert "\u202e" not in html


def test_the_page_shows_the_measured_numbers(html):
    assert "6 of 7" in html
    assert "85.7 % [48.7, 97.4]" in html
    assert "14.3 % before, 85.7 % after" in html
    assert "1 check of the audit failed" in html
    assert "abstained when should call" in html
    assert "12,345" in html
    assert "forward 61 %, all 55 %" in html
    assert '<td>weights</td><td class="number">0.538</td><td class="number">0.552</td>' in html
    assert html.count("900 tokens") == markup.REJECTIONS_SHOWN
    for number in range(7):
        assert f"item-{number}" in html


def test_items_carry_the_words_that_the_filter_asks_for(html):
    found = re.findall(r'class="item" data-o="([^"]*)"', html)
    assert [words.split() for words in found].count(["-base", "+tuned", "abstained_when_should_call", "gained"]) == 5
    for value in ("+base", "-base", "+tuned", "-tuned", "gained", "lost", "abstained_when_should_call"):
        assert f'<option value="{value}">' in html


def test_long_tables_are_folded(made, scores, examples, generations, tmp_path):
    finding = {"check": "leak", "verdict": "ok", "about": "", "items": []}
    audits = {"test_seen": {"findings": [finding] * 17, "contaminated": []}}
    html = rendered({**made, "audit": audits}, scores, examples, generations, tmp_path)
    assert "<summary>Every check of every suite: 17 rows</summary>" in html


def test_a_table_has_as_many_cells_as_headings():
    with pytest.raises(ValueError, match="row 1 has 1 cells, the table 2"):
        Table(["a", "b"], [["1", "2"], ["3"]])


def test_results_stand_in_the_order_of_the_configuration():
    config = {"evaluation": {"suites": ["z", {"mine": "m.jsonl"}, "a"]}}
    found = {"a": {"tuned": 1, "base": 2, "other": 3}, "mine": {}, "more": {}, "z": {}}
    ordered = arranged(found, config)
    assert list(ordered) == ["z", "mine", "a", "more"]
    assert list(ordered["a"]) == ["base", "tuned", "other"]


def test_planned_and_other_comparisons_are_kept_apart(made):
    entry = made["comparisons"][0]
    assert results.comparisons([entry], planned=False) is None
    planned = results.comparisons([entry], planned=True)
    assert "p, Holm" in planned.head
    other = results.comparisons([{**entry, "planned": False, "p_holm": None}], planned=False)
    assert "p, Holm" not in other.head
    assert Cell("+71.4", "[+42.9, +100.0]").text in [getattr(cell, "text", cell) for cell in planned.rows[0]]


def test_this_run_stands_beside_the_study(made):
    rows = {row[0]: row for row in study.beside(made).rows}
    assert rows["valid calls, base"][1:3] == ["56 % (28 of 50)", "14.3 % [2.6, 51.3] (1 of 7)"]
    assert rows["training loss"][1:3] == ["2.100 → 0.783", "2.000 → 0.500"]
    assert rows["stable from iteration"][1:3] == ["150", "3"]
    assert rows["coefficient of variation"][1:3] == ["34.25 %", "10.00 %"]
    for published in ("8.35 GB", "0.606", "507,059", "62.7 %", "2.211 → 0.840", "96 % (48 of 50)"):
        assert any(row[1] == published for row in rows.values()), published
    assert all(row[3].note for row in rows.values()), "each row says why they may differ"
    first = {"first_items": made["evaluation"]}
    (row,) = [row for row in study.beside({**made, **first}).rows if "first 7 items" in row[0]]
    assert row[2].endswith("85.7 % [48.7, 97.4] (6 of 7)")
    alone = {**made, "evaluation": {"test_seen": {"tuned": made["evaluation"]["test_seen"]["tuned"]}}}
    assert next(row for row in study.beside(alone).rows if row[0] == "valid calls, base")[2] == "–"


def test_jobs_of_all_suites_are_added_up(made):
    made = {**made, "seconds": {"train": 5.0, "generate_a_base": 1.5, "generate_b_base": 2.5},
            "process_memory_gb": {"generate_a_base": 1.0, "generate_b_base": 2.0}}  # fmt: skip
    rows = page.job_table(made).rows
    assert rows[1] == ["generate (2 jobs)", "4.0 s", "2.00 GB"]
    assert rows[-1][:2] == ["together", "9.0 s"]


def test_the_page_says_which_adapter_was_kept_and_why(html):
    assert "of step 2: the lowest validation loss" in html
    assert page.kept({"step": 9, "by": "last", "correct": None, "asked": None}) == "of step 9: the last"
    found = {"step": 5, "by": "tool_calls", "correct": 11, "asked": 16}
    assert page.kept(found) == "of step 5: the most correct tool calls on validation examples, 11 of 16"
    assert "Stopped early" not in html
    stopped = {**TRAINING, "stopped_early": {"step": 3, "reason": "no lower validation loss since step 1"}}
    assert ("Stopped early at step 3", "no lower validation loss since step 1") in page.training_rows(stopped)


def test_the_page_says_what_the_base_knew_of_markers(made, scores, examples, generations):
    """The lengths of their rows, who lent some of them one, and the base's loss by kind of token."""
    facts = {
        "<tool_call>": {"norm": 0.3219, "loss": 23.45, "untrained": True, "lender": "```", "loss_after": 1.47},
        "</tool_call>": {"norm": 0.3, "loss": 20.7, "untrained": True},
        "<|im_end|>": {"norm": 0.3422, "loss": 6.63, "untrained": False},
    }
    losses = {"markers": {"tokens": 8, "loss": 12.3456}, "names": {"tokens": 16, "loss": 0.5}}
    known = {
        **made,
        "model": {**made["model"], "marker_rows": {"median_norm": 0.5146, "tokens": facts}},
        "training": {**made["training"], "base_loss": losses},
    }
    html = page.render(known, {}, {"test_seen": examples}, scores, generations, [])
    assert "marker &lt;tool_call&gt;" in html
    assert "row of length 0.322 (median 0.515), loss 23.45" in html
    assert "looked untrained: row borrowed from ```, loss 1.47 with it" in html
    assert "looks untrained, kept as it is" in html
    assert "markers 12.35, names 0.50" in html
    assert page.marker_rows(None) == page.base_loss_rows({}) == []


def test_the_page_says_which_license_is_not_free_for_all_uses(made):
    def license_of(name):
        table = page.provenance_table({**made, "model": {**made["model"], "license": name}})
        return table.rows[0][1].note

    assert license_of("Apache-2.0") == "license Apache-2.0"
    assert license_of("gemma") == "license gemma: not free for all uses, read its terms first"
    assert license_of(None) == "license not known"
