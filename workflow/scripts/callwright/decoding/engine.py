"""Continuous batching: answers grow together, a token each at every step; a place that is given up is taken at once.

One engine for evaluation and server. Prompts are read one by one, what was read before (`beginnings`) not again; their
last token joins the next step of the answers under way, so that no prompt costs a pass of its own for one token. Most
answers want the likeliest token: that saves the log-probabilities of the whole vocabulary, and where a constraint
allows the likeliest token of all, its mask too.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.decoding.beginnings import Beginnings
from callwright.decoding.constrain import Constraint, masked
from callwright.decoding.decision import Decision
from callwright.decoding.name_preference import NamePreference
from callwright.decoding.places import Places, Prompt, windows
from callwright.runtime import device

# Tokens of a prompt in one forward pass: between two passes the caller has the word.
READ_TOKENS = 512
# Tokens that the places may hold, each counted as long as the longest prompt: what bounds the memory.
PLACE_TOKENS = 16_384

Processor = Callable[[mx.array, mx.array], mx.array]
Sampler = Callable[[mx.array], mx.array]


@dataclass(eq=False, slots=True)
class Request:
    """An answer to be generated, and what there is of it.

    prompt         token ids, not empty
    max_tokens     after so many the answer ends ("length")
    constraint     fresh; the answer keeps to what it allows
    processor      changes the logits [1, vocabulary], knowing all tokens before [n]
    sampler        draws from log-probabilities [1, vocabulary]; None takes the likeliest token
    decision       a call or words: of its first token, or of a later one
    preference     weighs the names of the tools in its first call
    keep           how much of the prompt is worth keeping for later ones; None: all
    ids            the answer's tokens without the stop token
    finish_reason  "stop", "length" or "error" at the end
    seconds        from the first look at the prompt to the end
    """

    prompt: Sequence[int]
    max_tokens: int
    constraint: Constraint | None = None
    processor: Processor | None = None
    sampler: Sampler | None = None
    decision: Decision | None = None
    preference: NamePreference | None = None
    keep: int | None = None
    ids: list[int] = field(default_factory=list)
    finish_reason: str = ""
    seconds: float = 0.0
    error: Exception | None = None
    begun: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether the likeliest token of all is what comes next."""
        return self.free and not self.deciding and not self.preferring

    @property
    def free(self) -> bool:
        """Whether nothing but a decision has a say in its tokens."""
        return self.constraint is None and self.processor is None and self.sampler is None

    @property
    def deciding(self) -> bool:
        """Whether its decision is still to come: each token must be known before the next one is asked for."""
        return self.decision is not None and self.decision.probability is None

    @property
    def preferring(self) -> bool:
        """Whether tools' names may still be weighed."""
        return self.preference is not None and len(self.ids) < self.preference.longest

    @property
    def undecided(self) -> bool:
        """Whether its next token decides."""
        return self.decision is not None and self.decision.due(self.ids[-1] if self.ids else None)

    def start(self) -> None:
        """Somebody looks at the prompt for the first time."""
        self.begun = time.monotonic()

    def end(self, reason: str) -> None:
        """The answer is complete."""
        self.finish_reason, self.seconds = reason, time.monotonic() - self.begun


@dataclass(slots=True)
class Spent:
    """Tokens of prompts (those known from before among them) and of answers that are behind, and seconds for each."""

    read: int = 0
    written: int = 0
    steps: int = 0
    read_seconds: float = 0.0
    written_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.read + other.read,
            self.written + other.written,
            self.steps + other.steps,
            self.read_seconds + other.read_seconds,
            self.written_seconds + other.written_seconds,
        )


class Engine:
    """Answers requests, at most `running` at once; `read` and `advance` are called in turn, by one thread.

    Only for models whose layers keep keys and values (`places.windows`).
    """

    def __init__(
        self,
        model: nn.Module,
        stop_ids: set[int],
        running: int,
        beginnings: Beginnings | None = None,
        ahead: bool | None = None,
    ):
        """ahead: queue a step before the last one's tokens are looked at; None: on an accelerator."""
        self.model, self.stop_ids, self.running, self.beginnings = model, stop_ids, running, beginnings
        self.windows = windows(model)
        if self.windows is None:
            raise ValueError("a model that keeps more than keys and values, or keeps them in another way")
        self.ahead = not device.on_cpu() if ahead is None else ahead
        self.waiting: deque[Request] = deque()
        self.rows: list[Request] = []  # in the order of their places
        self.spent = Spent()
        self._places = Places(self.windows)
        self._reading: tuple[Request, list[Prompt], int] | None = None
        # What each row is fed next [rows]; where `_unseen`, nobody has looked at it yet.
        self._feed = mx.array([], dtype=mx.int32)
        self._unseen: list[bool] = []

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.waiting or self.rows or self._reading)

    @property
    def hungry(self) -> bool:
        """Whether another request would be read at once."""
        return not self.waiting and self._reading is None and len(self.rows) < self.running

    def submit(self, request: Request) -> None:
        """Answer a request when its turn comes."""
        self.waiting.append(request)

    def close(self) -> None:
        """Let go of all keys and values."""
        self.waiting.clear()
        self.rows, self._unseen, self._reading = [], [], None
        self._places = Places(self.windows)

    def cancel(self, request: Request) -> None:
        """Forget a request, wherever it is."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif self._reading is not None and self._reading[0] is request:
            self._reading = None
        elif request in self.rows:
            self._leave([self.rows.index(request)])

    # -- prompts -----------------------------------------------------------------------------------

    def read(self) -> int | None:
        """Read some of a prompt; returns how many tokens were computed, None where no prompt can be read now."""
        begun = time.monotonic()
        if self._reading is None:
            if not self.waiting or not self._room(self.waiting[0]):
                return None
            request = self.waiting.popleft()
            request.start()
            prompt = [Prompt(window) for window in self.windows]
            known = self.beginnings.find(request.prompt[:-1], prompt) if self.beginnings else 0
            self.spent.read += known
            self._reading = request, prompt, known
        request, prompt, start = self._reading
        piece = request.prompt[start : min(start + READ_TOKENS, len(request.prompt) - 1)]
        if piece:
            self.model(mx.array([piece]), cache=prompt)
            mx.eval([(one.keys, one.values) for one in prompt])
            self.spent.read += len(piece)
        self._reading = request, prompt, start + len(piece)
        if start + len(piece) == len(request.prompt) - 1:
            self._join(request, prompt)
        self.spent.read_seconds += time.monotonic() - begun
        return len(piece)

    def _room(self, request: Request) -> bool:
        if not self.rows:
            return True
        longest = max(len(other.prompt) for other in [request, *self.rows])
        return len(self.rows) < self.running and (len(self.rows) + 1) * longest <= PLACE_TOKENS

    def _join(self, request: Request, prompt: list[Prompt]) -> None:
        """A prompt is read but for its last token, which is what the row is fed next."""
        self._reading = None
        if self.beginnings is not None:
            kept = len(request.prompt) - 1 if request.keep is None else min(request.keep, len(request.prompt) - 1)
            self.beginnings.keep(request.prompt[:kept], prompt)
        self._places.add(prompt)
        self.spent.read += 1
        self.rows.append(request)
        self._feed = mx.concatenate([self._feed, mx.array([request.prompt[-1]], dtype=mx.int32)])
        self._unseen.append(False)

    # -- answers -----------------------------------------------------------------------------------

    def advance(self) -> list[Request]:
        """One step; returns the requests that have a token more, or have ended."""
        if not self.rows:
            return []
        begun = time.monotonic()
        moved = self._advance()
        self.spent.steps += 1
        self.spent.written_seconds += time.monotonic() - begun
        return moved

    def _advance(self) -> list[Request]:
        if self.ahead and all(request.plain for request in self.rows):
            following = likeliest(self._forward())
            mx.async_eval(following)
            moved, left = self._look()
            keep = self._leave(left)
            self._feed = following if keep is None else following[mx.array(keep, dtype=mx.int32)]
            self._unseen = [True] * len(self.rows)
            return moved
        if any(self._unseen):  # queued by the branch above, before a request came that is not plain
            moved, left = self._look()
            self._leave(left)
            self._unseen = [False] * len(self.rows)
            if moved:
                return moved
        tokens = self._choose(self._forward())
        self._feed = mx.array(tokens, dtype=mx.int32)
        self._unseen = [True] * len(self.rows)
        moved, left = self._look(tokens)
        self._leave(left)
        self._unseen = [False] * len(self.rows)
        return moved

    def _forward(self) -> mx.array:
        """Read what the rows are fed; returns the logits [rows, vocabulary] of what follows."""
        self._places.begin()
        logits = self.model(self._feed[:, None], cache=self._places.layers)[:, -1, :]
        self._places.end()
        return logits

    def _choose(self, logits: mx.array) -> list[int]:
        """The next token of each row. The error of a request's own processor ends this request alone."""
        for row, request in enumerate(self.rows):
            try:
                if request.undecided:
                    logits[row : row + 1] = request.decision(logits[row : row + 1])
                if request.preferring and request.preference.due(request.ids):
                    logits[row : row + 1] = request.preference(request.ids, logits[row : row + 1])
            except Exception as error:
                request.error = error
        tokens = likeliest(logits).tolist()
        outside = []
        for row, request in enumerate(self.rows):
            if request.free:
                continue
            try:
                if request.processor is None and request.sampler is None:
                    if not request.constraint.accept(tokens[row]):
                        outside.append(row)
                else:
                    tokens[row] = drawn(request, logits[row : row + 1])
            except Exception as error:
                request.error = error
        if outside:
            words = np.stack([self.rows[row].constraint.mask() for row in outside])
            allowed = likeliest(masked(logits[mx.array(outside)], words)).tolist()
            for row, token in zip(outside, allowed, strict=True):
                self.rows[row].constraint.accept(token)
                tokens[row] = token
        return tokens

    def _look(self, tokens: list[int] | None = None) -> tuple[list[Request], list[int]]:
        """Hand the rows' new tokens out; returns the requests that moved, and the rows that have ended."""
        moved, ended = [], []
        tokens = self._feed.tolist() if tokens is None else tokens
        for row, (request, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if not self._unseen[row]:
                continue
            moved.append(request)
            if request.error is not None:
                request.end("error")
            elif token in self.stop_ids:
                request.end("stop")
            else:
                request.ids.append(token)
                self.spent.written += 1
                if len(request.ids) == request.max_tokens:
                    request.end("length")
            if request.finish_reason:
                ended.append(row)
        return moved, ended

    def _leave(self, ended: list[int]) -> list[int] | None:
        """Free the places of some rows, the last rows move there; returns which rows are left, None for all."""
        if not ended:
            return None
        order = list(range(len(self.rows)))
        for row in sorted(ended, reverse=True):
            self._places.leave(row)
            last = order.pop()
            if row != len(order):
                order[row] = last
        self.rows = [self.rows[row] for row in order]
        self._unseen = [self._unseen[row] for row in order]
        self._feed = self._feed[mx.array(order, dtype=mx.int32)]
        return order


def likeliest(logits: mx.array) -> mx.array:
    """The likeliest token of each row of logits [rows, vocabulary], as int32 [rows]."""
    return mx.argmax(logits, axis=-1).astype(mx.int32)


def drawn(request: Request, logits: mx.array) -> int:
    """The next token of a request with a processor or sampler, from its logits [1, vocabulary]."""
    if request.processor is not None:
        logits = request.processor(mx.array([*request.prompt, *request.ids]), logits)
    if request.constraint is not None:
        logits = masked(logits, request.constraint.mask()[None])
    if request.sampler is None:
        token = likeliest(logits).item()
    else:
        token = request.sampler(logits - mx.logsumexp(logits, axis=-1, keepdims=True)).item()
    if request.constraint is not None:
        request.constraint.accept(token)
    return token
