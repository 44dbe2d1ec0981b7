"""The figure of results against the number of training records."""

import pytest
from matplotlib import pyplot as plt

from callwright.evals.statistics import wilson
from callwright.report import drawing, scaling


def answers(correct, n=20):
    return {"n": n, "ast": correct / n, "ast_ci95": list(wilson(correct, n))}


def swept(sizes=(40, 160, 640), seeds=(1, 2), ranks=(4,)):
    rows = [
        {
            "run": f"r{rank}.{size}.{seed}",
            "settings": {"training.lora.rank": rank, "training.examples": size, "training.seed": seed},
            "records": size,
            "best_validation_loss": 2.0 * size**-0.5,
            "evaluation": {"test_seen": {"base": answers(2), "tuned": answers(4 + seed)}},
        }
        for rank in ranks
        for size in sizes
        for seed in seeds
    ]
    return {"name": "s", "keys": list(rows[0]["settings"]), "points": rows}


def drawn(sweep):
    figure = scaling.draw(sweep)
    plt.close(figure)
    return figure.axes


def test_seeds_are_points_around_a_line_through_their_means():
    seen, loss = drawn(swept())
    lines = {line.get_label(): line for line in seen.lines}
    means = [line.get_xydata().tolist() for line in seen.lines if len(line.get_xdata()) == 3]
    assert means == [[[40, 27.5], [160, 27.5], [640, 27.5]]]
    assert {"rank 4", "base model"} <= lines.keys()
    assert [part.get_segments()[0][:, 1].tolist() for part in seen.collections] == [[25.0, 30.0]] * 3
    assert loss.get_xscale() == loss.get_yscale() == "log"
    assert [tick.get_text() for tick in loss.get_xticklabels()] == ["40", "160", "640"]
    assert "%" in seen.get_ylabel()
    assert "nats" in loss.get_ylabel()


def test_a_power_law_is_found_and_written_from_three_sizes_on():
    assert scaling.power_law([10, 100, 1000], [3 * x**-0.3 for x in (10, 100, 1000)]) == pytest.approx((3, 0.3))
    labels = [text.get_text() for text in drawn(swept())[-1].get_legend().get_texts()]
    assert "2 · records^-0.500" in labels
    few = [text.get_text() for text in drawn(swept(sizes=(40, 160)))[-1].get_legend().get_texts()]
    assert few == ["rank 4"]


def test_one_seed_has_its_wilson_interval_and_other_settings_are_lines():
    seen, _ = drawn(swept(seeds=(1,), ranks=(4, 8)))
    low, high = (100 * bound for bound in wilson(5, 20))
    assert len(seen.collections) == 6
    assert seen.collections[0].get_segments()[0][:, 1] == pytest.approx([low, high])
    labels = [text.get_text() for text in seen.get_legend().get_texts()]
    assert labels == ["rank 4", "rank 8", "base model"]


def test_the_same_numbers_give_the_same_picture():
    figures = [scaling.draw(swept()) for _ in range(2)]
    first, second = map(drawing.svg_bytes, figures)
    for figure in figures:
        plt.close(figure)
    assert first == second
