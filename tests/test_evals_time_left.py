"""The time left of a generation against schedules that are known to the end."""

import random
import statistics

import pytest

from callwright.decoding.engine import Spent
from callwright.evals.time_left import LOOSE, TimeLeft

READ, FIXED, WRITE = 0.003, 0.06, 0.005  # seconds for a prompt's token, for a step, and for each row in it


def lengths_of(kind: str, items: int, limit: int, seed: int = 7) -> list[int]:
    """Tokens of answers as models give them: `tuned` ones all end, of `base` ones a third runs to the limit."""
    rng = random.Random(seed)
    if kind == "tuned":
        return [min(limit, max(3, round(rng.lognormvariate(3.8, 0.35)))) for _ in range(items)]
    if kind == "base":
        return [limit if rng.random() < 0.37 else min(limit, round(rng.expovariate(1 / 40)) + 3) for _ in range(items)]
    return [limit] * items


def schedule(lengths, prompt_tokens, limit, expected, running, workers, loose):
    """(clock, estimate of the seconds left) at each step of `workers` engines, each with a clock of its own."""
    left = TimeLeft(prompt_tokens * len(lengths), expected, limit, running, workers, loose)
    waiting = list(lengths)
    rows = [[] for _ in range(workers)]  # [length so far, length at the end]
    clocks, spent, seen = [0.0] * workers, Spent(), []
    while waiting or any(rows):
        worker = min((n for n in range(workers) if waiting or rows[n]), key=lambda n: clocks[n])
        growing = rows[worker]
        if waiting and len(growing) < running:
            growing.append([0, waiting.pop(0)])
            seconds = prompt_tokens * READ
            spent += Spent(read=prompt_tokens, read_seconds=seconds)
        else:
            seconds = FIXED + WRITE * len(growing)
            spent += Spent(written=len(growing), steps=1, written_seconds=seconds)
            for row in growing:
                row[0] += 1
            for row in [row for row in growing if row[0] == row[1]]:
                growing.remove(row)
                left.end(row[0], stopped=row[1] < limit)
        clocks[worker] += seconds
        seen.append((clocks[worker], left.left(spent, [row[0] for growing in rows for row in growing])[1]))
    return seen, max(clocks)


@pytest.mark.parametrize("kind", ["base", "tuned"])
@pytest.mark.parametrize(("running", "workers"), [(25, 2), (50, 2), (25, 1)])
@pytest.mark.parametrize("prompt_tokens", [120, 230, 900])
def test_the_end_is_foretold_within_30_percent_after_a_tenth_of_the_work(kind, running, workers, prompt_tokens):
    expected = lengths_of("tuned", 100, 192, seed=1)
    seen, total = schedule(
        lengths_of(kind, 100, 192), prompt_tokens, 192, expected, running, workers, LOOSE[kind == "tuned"]
    )
    late = [(clock, estimate) for clock, estimate in seen if clock > 0.1 * total]
    assert len(late) > 50
    assert max(abs(clock + estimate - total) / total for clock, estimate in late) < 0.3
    left = [abs(estimate / (total - clock) - 1) for clock, estimate in late if clock < 0.8 * total]
    assert statistics.median(left) < 0.3
    assert seen[-1][1] == pytest.approx(0, abs=0.1)


def test_nothing_is_promised_before_anything_is_known():
    left = TimeLeft(1000, [20] * 10, 50, 5, 1, 0.5)
    assert left.left(Spent(), [])[1] == float("inf")
    assert 0 < left.left(Spent(read=100, read_seconds=1.0), [])[1] < 60


def test_answers_that_go_on_count_as_much_as_those_that_have_ended():
    """Ten answers ended after 5 tokens; that the others go on is known only from themselves."""
    early, late = (TimeLeft(0, [20] * 30, 100, 30, 1, 0.5) for _ in range(2))
    for left in (early, late):
        for _ in range(10):
            left.end(5, stopped=True)
    waiting_early, waiting_late = early.left(Spent(), [5] * 10)[0], late.left(Spent(), [90] * 10)[0]
    grown = late.left(Spent(), [90] * 20)[0]
    assert grown < 20 * 10
    assert waiting_late - grown / 2 > waiting_early / 3


def test_an_answer_at_the_limit_is_no_stop():
    stops, cuts = (TimeLeft(0, [20] * 20, 100, 20, 1, 0.5) for _ in range(2))
    for _ in range(10):
        stops.end(40, stopped=True)
        cuts.end(100, stopped=False)
    assert cuts.left(Spent(), [])[0] > 1.5 * stops.left(Spent(), [])[0]
