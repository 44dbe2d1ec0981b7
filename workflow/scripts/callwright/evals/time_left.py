"""How long a generation will still take: tokens of prompts are known, those of answers are estimated as they come.

Answers that end early are seen first, and say little of those that run to the limit. So the estimate follows how often
answers ended at each length, among all that came so far, the unfinished ones too (as survival analysis does); before
any came, it takes some of them to be as long as the expected answers, others to go on. With that, what is left is
played through.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from callwright.decoding.decode import Answer
from callwright.decoding.engine import Spent
from callwright.decoding.limits import length_of
from callwright.runtime.logs import Progress

BIN = 16  # lengths, in tokens, with one rate of ending
PRIOR = 32  # tokens that the expectation weighs in each
# What a step costs beside its rows, in rows: it reads all weights once. Measured on a CPU (SmolLM2, float32).
STEP_ROWS = 12
# A row of a step costs as much as so many tokens of a prompt: what is assumed before any was written.
ROW_TO_READ = 1.7


LOOSE = {True: 0.03, False: 0.6}  # by whether the model was trained for these answers


class TimeLeft:
    """The estimate for prompts of `prompt_tokens` in all, one for each number in `expected`.

    These are the tokens of the answers as they are expected; none gets more than `limit`. running, workers: answers
    that grow at once in each of so many engines. loose: the share of answers whose length has nothing to do with the
    expected one, as those of a base model.
    """

    def __init__(
        self, prompt_tokens: int, expected: Sequence[int], limit: int, running: int, workers: int, loose: float
    ):
        self.prompt_tokens, self.items, self.limit = prompt_tokens, len(expected), limit
        self.running, self.workers = running, max(min(workers, len(expected)), 1)
        self.ended: list[int] = []  # the lengths of the answers that have ended
        self._stopped = np.zeros(limit // BIN + 1)  # of those that stopped by themselves, by bin
        lengths = np.arange(limit + 1)
        longer = 1 - np.searchsorted(np.sort(expected), lengths, side="right") / max(len(expected), 1)
        alive = (1 - loose) * longer + loose * np.exp(-lengths / limit)
        self._expected = 1 - alive[1:] / alive[:-1]  # share that ends at each length [limit]

    def end(self, length: int, stopped: bool) -> None:
        """An answer of so many tokens has ended, by itself or at the limit."""
        self.ended.append(length)
        if stopped:
            self._stopped[length // BIN] += 1

    def left(self, spent: Spent, growing: Sequence[int]) -> tuple[float, float]:
        """(tokens still to be written, seconds still to go); `growing`: lengths of the unfinished answers.

        Before anything was read the time is infinite.
        """
        rest = self.prompt_tokens - spent.read
        read = spent.read_seconds / spent.read if spent.read else float("inf")
        known = PRIOR * self.workers
        row = (spent.written_seconds + known * ROW_TO_READ * (read if spent.read else 0)) / (
            spent.written + STEP_ROWS * spent.steps + known
        )
        tokens, steps = self._play(growing)
        return tokens, (max(rest, 0) * read if rest else 0) / self.workers + row * (tokens / self.workers + steps)

    def _play(self, growing: Sequence[int]) -> tuple[float, float]:
        """Tokens that are still to be written, and what the steps cost beside their rows, in rows."""
        ends = self._ends(growing)
        rows = (
            np.bincount(np.minimum(growing, self.limit - 1), minlength=self.limit).astype(float)
            if growing
            else (np.zeros(self.limit))
        )  # how many answers have each length
        waiting = float(self.items - len(self.ended) - len(growing))
        tokens = steps = 0.0
        while True:
            more = min(waiting, self.running * self.workers - rows.sum())
            if more > 0:
                rows[0] += more
                waiting -= more
            alive = rows.sum()
            if alive < 0.02:
                return tokens, steps
            steps += STEP_ROWS * min(alive / self.workers, 1.0)
            stay = rows * (1 - ends)
            tokens += stay.sum()
            rows = np.concatenate([[0.0], stay[:-1]])

    def _ends(self, growing: Sequence[int]) -> np.ndarray:
        """The share of answers of each length that end there [limit]."""
        exposed: Counter[int] = Counter()
        for length in [*self.ended, *growing]:
            for place in range(length // BIN + 1):
                exposed[place] += min(BIN, length + 1 - place * BIN)
        place = np.arange(self.limit) // BIN
        seen = np.array([exposed[n] for n in range(self.limit // BIN + 1)])[place]
        return np.minimum((self._stopped[place] + self._expected * PRIOR) / (seen + PRIOR), 1.0)


class Watch:
    """Progress lines of a generation: tokens from the first second on, and a time left that follows the answers."""

    def __init__(self, what: str, items: int, done: int, limit: int, left: TimeLeft):
        self.what, self.items, self.complete, self.limit, self.left = what, items, done, limit, left
        self.cut = 0
        self.progress = Progress(what, 0, "tokens", first=1.0)

    def ended(self, answer: Answer) -> None:
        """An answer is complete."""
        self.complete += 1
        self.cut += answer.finish_reason == "length"
        self.left.end(len(answer.ids), answer.finish_reason == "stop")

    def counted(self, spent: Spent, growing: list[int]) -> None:
        """Log a line if one is due."""
        if self.progress.due:
            tokens, seconds = self.left.left(spent, growing)
            count = spent.read + spent.written
            total = max(self.left.prompt_tokens + spent.written + round(tokens), count, 1)
            note = f"{self.complete} of {self.items} items, {self.cut} cut at {self.limit} tokens"
            self.progress.reach(count, total, note, seconds)

    def done(self) -> None:
        """Log the whole time."""
        self.progress.done()


def expected_tokens(tokenizer: Any, examples: Sequence[Any], style: str) -> list[int]:
    """Tokens of each example's expected answer."""
    return [length_of(tokenizer, example, style) for example in examples]
