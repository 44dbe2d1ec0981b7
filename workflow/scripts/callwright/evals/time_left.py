"""How long a generation will still take: tokens of prompts are known, those of answers are estimated as they come.

Answers that end early are seen first, and say little of those that run to the limit. So the estimate follows how often
answers ended at each length, among all that came so far, the unfinished ones too (as survival analysis does).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from callwright.chat.formats import answer_text
from callwright.chat.tokens import encode
from callwright.decoding.decode import Answer
from callwright.decoding.engine import Spent
from callwright.decoding.limits import ROOM
from callwright.runtime.logs import Progress

BIN = 16  # lengths, in tokens, with one rate of ending
PRIOR_TOKENS = 64  # tokens that the overall rate weighs in each
# A token of an answer costs as much as so many of a prompt: what is assumed before any was written.
WRITE_TO_READ = 2.5


class TimeLeft:
    """The estimate for `items` answers of at most `limit` tokens.

    prompt_tokens: of all prompts. expected: tokens of an answer on average, as far as one can tell beforehand.
    """

    def __init__(self, items: int, prompt_tokens: int, limit: int, expected: float):
        self.items, self.prompt_tokens, self.limit = items, prompt_tokens, limit
        self.expected = max(expected, 1.0)
        self.ended: list[int] = []  # the lengths of the answers that have ended
        self._stopped: Counter[int] = Counter()  # of those that stopped by themselves, by bin

    def end(self, length: int, stopped: bool) -> None:
        """An answer of so many tokens has ended, by itself or at the limit."""
        self.ended.append(length)
        if stopped:
            self._stopped[length // BIN] += 1

    def tokens(self, growing: Sequence[int]) -> float:
        """Tokens still to be written, where these unfinished answers have so many."""
        rest = self._rest(growing)
        waiting = self.items - len(self.ended) - len(growing)
        return waiting * rest[0] + sum(rest[min(length, self.limit)] for length in growing)

    def seconds(self, spent: Spent, growing: Sequence[int], workers: int = 1) -> float:
        """Seconds still to go; infinity before anything was done."""
        if not spent.read or not spent.read_seconds:
            return float("inf")
        read = spent.read_seconds / spent.read
        prior = PRIOR_TOKENS * self.items / 10
        write = (spent.written_seconds + prior * WRITE_TO_READ * read) / (spent.written + prior)
        return (max(self.prompt_tokens - spent.read, 0) * read + self.tokens(growing) * write) / workers

    def _rest(self, growing: Sequence[int]) -> list[float]:
        """How many more tokens an answer of each length from 0 to `limit` will get, on average."""
        exposed: Counter[int] = Counter()
        for length in [*self.ended, *growing]:
            for start in range(0, length + 1, BIN):
                exposed[start // BIN] += min(BIN, length + 1 - start)
        overall = (sum(self._stopped.values()) + 1) / (sum(exposed.values()) + self.expected)
        rest = [0.0] * (self.limit + 1)
        for length in range(self.limit - 1, -1, -1):
            place = length // BIN
            ends = (self._stopped[place] + overall * PRIOR_TOKENS) / (exposed[place] + PRIOR_TOKENS)
            rest[length] = (1 - min(ends, 1.0)) * (1 + rest[length + 1])
        return rest


class Watch:
    """Progress lines of a generation: tokens from the first second on, and a time left that follows the answers."""

    def __init__(self, what: str, items: int, done: int, workers: int):
        self.what, self.items, self.complete, self.workers = what, items, done, workers
        self.cut, self.limit = 0, 0

    def start(self, lengths: Sequence[int], limit: int, expected: float) -> None:
        """Prompts of so many tokens are to be answered with at most `limit` each, `expected` on average."""
        self.limit = limit
        self.prompt_tokens = sum(lengths)
        self.left = TimeLeft(len(lengths), self.prompt_tokens, limit, expected)
        self.progress = Progress(self.what, 0, "tokens", first=1.0)

    def ended(self, answer: Answer) -> None:
        """An answer is complete."""
        self.complete += 1
        self.cut += answer.finish_reason == "length"
        self.left.end(len(answer.ids), answer.finish_reason == "stop")

    def counted(self, spent: Spent, growing: list[int]) -> None:
        """Log a line if one is due."""
        if self.progress.due:
            count = spent.read + spent.written
            rest = self.prompt_tokens - spent.read + self.left.tokens(growing)
            note = f"{self.complete} of {self.items} items, {self.cut} cut at {self.limit} tokens"
            seconds = self.left.seconds(spent, growing, self.workers)
            self.progress.reach(count, max(count + round(rest), 1), note, seconds)

    def done(self) -> None:
        """Log the whole time."""
        self.progress.done()


def expected_tokens(tokenizer: Any, examples: Sequence[Any], style: str) -> float:
    """Tokens of an answer on average, as far as one can tell beforehand: those of the expected ones, and some more."""
    lengths = [len(encode(tokenizer, answer_text(example, style))) for example in examples]
    return ROOM * sum(lengths) / len(lengths)
