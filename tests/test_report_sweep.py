"""The sweep's table and figure say what the points' summaries say."""

import csv
import io
import math

import pytest
from matplotlib import pyplot as plt

from callwright.evals.statistics import wilson
from callwright.report import drawing
from callwright.report.seeds import as_rows
from callwright.report.sweep import TRAINING, as_csv, as_markdown, axis, collect, draw, written

N = 20


def answers(correct):
    return {"n": N, "ast": correct / N, "ast_ci95": list(wilson(correct, N)), "names": 1.0}


def summary(values, correct, loss):
    return {
        "config": {"training": {"examples": values.get("training.examples")}},
        "data": {"sizes": {"train": 160}},
        "training": {key: 1.0 for key in TRAINING} | {"best_validation_loss": loss, "tokens_per_second": 333.4},
        "evaluation": {"test_seen": {"base": answers(2), "tuned": answers(correct)}},
        "primary": {"suite": "test_seen", "metric": "ast", "from": "base", "to": "tuned"},
        "comparisons": [
            {"suite": "test_seen", "from": "base", "to": "tuned", "difference": (correct - 2) / N},
            {"suite": "test_seen", "from": "base", "to": "fused", "difference": 0.9},
        ],
    }


def swept(*points):
    """A sweep of points given as (values, correct answers of 20, validation loss)."""
    keys = list(points[0][0])
    names = {f"r.{number}": values for number, (values, _, _) in enumerate(points)}
    summaries = {name: summary(*point) for name, point in zip(names, points, strict=True)}
    return collect("s", keys, names, summaries)


@pytest.fixture
def two_ranks_two_seeds():
    return swept(
        *[
            ({"training.lora.rank": rank, "training.seed": seed}, rank + seed, 1 / rank)
            for rank in (4, 8)
            for seed in (1, 2)
        ]
    )


def test_a_row_for_each_point(two_ranks_two_seeds):
    rows = two_ranks_two_seeds["points"]
    assert [row["run"] for row in rows] == ["r.0", "r.1", "r.2", "r.3"]
    assert rows[3]["settings"] == {"training.lora.rank": 8, "training.seed": 2}
    assert rows[3]["records"] == 160
    assert rows[3]["evaluation"]["test_seen"]["tuned"] == {"n": N, "ast": 0.5, "ast_ci95": list(wilson(10, N))}
    assert rows[3]["best_validation_loss"] == 1 / 8
    assert set(TRAINING) <= rows[3].keys()


def test_the_csv_has_the_same_numbers(two_ranks_two_seeds):
    lines = list(csv.DictReader(io.StringIO(as_csv(two_ranks_two_seeds))))
    assert len(lines) == 4
    for line, row in zip(lines, two_ranks_two_seeds["points"], strict=True):
        assert line["training.lora.rank"] == str(row["settings"]["training.lora.rank"])
        assert float(line["test_seen_tuned_ast"]) == row["evaluation"]["test_seen"]["tuned"]["ast"]
        assert float(line["test_seen_tuned_high"]) == row["evaluation"]["test_seen"]["tuned"]["ast_ci95"][1]
        assert float(line["best_validation_loss"]) == row["best_validation_loss"]


def test_the_table_for_people(two_ranks_two_seeds):
    table = as_markdown(two_ranks_two_seeds).split("## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    low, high = (100 * bound for bound in wilson(10, N))
    assert lines[-1].startswith("| 8 | 2 | 1.000 | 0.125 |")
    assert f"50.0 % [{low:.1f}, {high:.1f}]" in lines[-1]
    assert "| 333 |" in lines[-1]


def test_runs_that_differ_in_the_seed_alone_are_summed_up(two_ranks_two_seeds):
    seeds = two_ranks_two_seeds["seeds"]
    assert (seeds["keys"], seeds["others"]) == (["training.seed"], ["training.lora.rank"])
    first, second = seeds["groups"]
    assert (first["settings"], first["runs"]) == ({"training.lora.rank": 4}, 2)
    # Five and six of twenty; nine and ten with the other rank.
    sd = 0.05 / math.sqrt(2)
    assert first["metrics"]["test_seen_tuned_ast"] == pytest.approx({"mean": 0.275, "sd": sd, "min": 0.25, "max": 0.3})
    assert second["metrics"]["test_seen_gain"] == pytest.approx({"mean": 0.375, "sd": sd, "min": 0.35, "max": 0.4})
    assert second["metrics"]["best_validation_loss"] == {"mean": 0.125, "sd": 0.0, "min": 0.125, "max": 0.125}
    lines = list(csv.DictReader(io.StringIO(written(as_rows(seeds)))))
    assert [line["training.lora.rank"] for line in lines] == ["4", "8"]
    assert float(lines[1]["test_seen_tuned_ast_sd"]) == second["metrics"]["test_seen_tuned_ast"]["sd"]
    text = as_markdown(two_ranks_two_seeds).split("## ")[1]
    assert "| 4 | 2 | 1.000 ± 0.000 (1.000 to 1.000) | 0.250 ± 0.000 (0.250 to 0.250) | 10.0 ± 0.0 % " in text
    assert "| 47.5 ± 3.5 % (45.0 to 50.0) | +37.5 ± 3.5 points (+35.0 to +40.0) |" in text


def test_three_seeds_alone_are_one_group_with_a_band_in_the_figure():
    sweep = swept(*[({"training.seed": seed}, correct, 0.5) for seed, correct in ((1, 8), (2, 10), (3, 9))])
    [group] = sweep["seeds"]["groups"]
    assert (group["settings"], group["runs"]) == ({}, 3)
    assert group["metrics"]["test_seen_tuned_ast"]["sd"] == pytest.approx(0.05)
    answered, _ = drawn(sweep)
    mean = answered.lines[0]
    assert list(mean.get_ydata()) == pytest.approx([45, 45])
    [band] = answered.patches
    assert [band.get_y(), band.get_y() + band.get_height()] == pytest.approx([40, 50])


def test_seeds_of_data_and_split_count_too():
    grid = [(data, split) for data in (1, 2) for split in (1, 2)]
    sweep = swept(*[({"data.seed": d, "split.seed": s}, 4 + d + s, 0.5) for d, s in grid])
    [group] = sweep["seeds"]["groups"]
    assert (group["runs"], sweep["seeds"]["keys"]) == (4, ["data.seed", "split.seed"])
    assert axis(sweep) == "data.seed"
    assert drawn(sweep)


def test_one_run_has_no_spread_and_no_seed_no_table():
    [group] = swept(({"training.seed": 1}, 8, 0.5))["seeds"]["groups"]
    assert group["metrics"]["final_loss"] == {"mean": 1.0, "sd": None, "min": 1.0, "max": 1.0}
    sweep = swept(({"training.lora.rank": 4}, 5, 0.5), ({"training.lora.rank": 8}, 10, 0.4))
    assert "seeds" not in sweep
    assert "## " not in as_markdown(sweep)


def drawn(sweep):
    figure = draw(sweep)
    plt.close(figure)
    return figure.axes


def test_seeds_are_points_with_their_spread_and_a_line_through_their_means(two_ranks_two_seeds):
    answered, validation = drawn(two_ranks_two_seeds)
    mean, first, second = (line.get_xydata().tolist() for line in answered.lines[:3])
    assert mean == [[4.0, 100 * 5.5 / N], [8.0, 100 * 9.5 / N]]
    assert first == [[4.0, 25.0], [4.0, 30.0]]
    assert second == [[8.0, 45.0], [8.0, 50.0]]
    bars = [part.get_segments()[0].tolist() for part in answered.collections]
    assert bars == [[[4.0, 25.0], [4.0, 30.0]], [[8.0, 45.0], [8.0, 50.0]]]
    assert answered.get_xlabel() == "rank of the update"
    assert "%" in answered.get_ylabel()
    assert "nats" in validation.get_ylabel()
    assert validation.lines[0].get_xydata().tolist() == [[4.0, 0.25], [8.0, 0.125]]


def test_one_seed_has_its_wilson_interval(two_ranks_two_seeds):
    answered, _ = drawn(swept(({"training.lora.rank": 4}, 5, 0.5), ({"training.lora.rank": 8}, 10, 0.4)))
    low, high = wilson(5, N)
    assert answered.collections[0].get_segments()[0][:, 1] == pytest.approx([100 * low, 100 * high])


def test_data_size_lies_along_the_axis_and_null_is_all_records():
    grid = [(rank, examples) for rank in (4, 8) for examples in (10, 40, None)]
    sweep = swept(*[({"training.lora.rank": r, "training.examples": e}, 5, 0.5) for r, e in grid])
    assert axis(sweep) == "training.examples"
    answered, _ = drawn(sweep)
    assert answered.get_xscale() == "log"
    assert answered.get_xticks().tolist() == [10, 40, 160]
    labels = [text.get_text() for text in answered.get_legend().get_texts()]
    assert labels == ["rank of the update 4", "rank of the update 8", "base model"]
    colours = {line.get_color() for line in answered.lines if line.get_label().startswith("rank")}
    assert colours <= {drawing.BLUE, drawing.ORANGE}
    assert len(colours) == 2


def test_words_lie_side_by_side():
    sweep = swept(({"training.schedule": "cosine"}, 5, 0.5), ({"training.schedule": "linear"}, 6, 0.5))
    answered, _ = drawn(sweep)
    assert [text.get_text() for text in answered.get_xticklabels()] == ["cosine", "linear"]
    assert axis(swept(({"training.seed": 1}, 5, 0.5), ({"training.seed": 2}, 5, 0.5))) == "training.seed"


def test_the_same_numbers_give_the_same_picture(two_ranks_two_seeds, tmp_path):
    for name in ("a.svg", "b.svg"):
        figure = draw(two_ranks_two_seeds)
        drawing.save_as(figure, tmp_path / name)
        plt.close(figure)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
