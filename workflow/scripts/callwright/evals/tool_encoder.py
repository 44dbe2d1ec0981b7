"""Which tool is meant, by a dual encoder: the tool that lies nearest to the request.

A request and a tool in plain words (`data.tool_texts`) are each read once by a small sentence encoder
(`models.sentence_encoder`), which an adapter has taught to put a request where the tool lies that it means, as in
Karpukhin et al., "Dense Passage Retrieval for Open-Domain Question Answering" (EMNLP 2020,
https://arxiv.org/abs/2004.04906). What counts is how near their vectors lie, and each word of one to the nearest of the
other, as in Khattab and Zaharia, "ColBERT" (SIGIR 2020, https://arxiv.org/abs/2004.12832). It is one for all answering
models. Tools are read once: naming one of a hundred tools costs one pass over the request.
"""

import hashlib
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from callwright.chat.formats import to_json
from callwright.data.completed_calls import Said
from callwright.data.spans import enumeration_of
from callwright.data.tool_texts import described, words
from callwright.evals.value_spans import ask, asked_about, read, readable
from callwright.lora.layers import adapter_parameters, attach, merge, save_arrays
from callwright.models.encoder_heads import FAR, EncoderHeads
from callwright.models.sentence_encoder import NAME, SentenceEncoder, grouped, open_encoder
from callwright.runtime.errors import CallwrightError

FILE = "tool_encoder.safetensors"  # beside decision.json
WEIGHT = 4.0  # of a nat of it beside one of the model's own choice of a tool
REMEDY = "make it again, or take `tool_encoder` out of decision.json"
CODE = 2  # letters of a value that is no word
KEPT = 4096  # texts whose vectors are kept
READ = 256  # parameters of which is kept what requests say
HEADS = "heads."  # before the names of their arrays in a file
LORA = {
    "layers": -1,
    "projections": ["query", "key", "value", "out", "up", "down"],
    "rank": 16,
    "scale": 2.0,
    "dropout": 0.0,
}


Known = tuple[np.ndarray, np.ndarray]  # the vectors of a text and of its tokens [tokens, width]


@dataclass(frozen=True)
class Scales:
    """What cosines count in nats, as it was learned.

    tools: a tool's, where it is asked whether any fits. nothing: the score that a tool must have there, so as not to be
    less likely than that none does. values, unsaid: the same for the values of an enumeration, and for none of them
    being said. whole, tool_words, request_words: where it is asked which tool is meant, the cosine of whole texts, the
    mean over a tool's words of that with the nearest of the request, and the other way round.
    """

    tools: float
    nothing: float
    values: float
    unsaid: float
    whole: float
    tool_words: float
    request_words: float


class ToolEncoder:
    """A dual encoder at work.

    encoder, tokenizer, heads, scales: as `open_tuned` gives them. weight: what a nat of it counts beside one of the
    answering model's own choice of a tool. digest: of the file.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        tokenizer: Any,
        heads: EncoderHeads,
        scales: Scales,
        weight: float = 1.0,
        digest: str = "",
    ):
        self.encoder, self.tokenizer, self.heads, self.scales = encoder, tokenizer, heads, scales
        self.weight, self.identity = weight, ["tool encoder", digest, weight]
        self._lock, self._known, self._read = threading.Lock(), {}, {}

    @classmethod
    def load(cls, path: str | Path, weight: float = 1.0) -> "ToolEncoder":
        """That of a file which `save` wrote. Raises CallwrightError as `open_tuned` does."""
        return cls(*open_tuned(path), weight, hashlib.sha256(Path(path).read_bytes()).hexdigest())

    def meant(self, functions: Sequence[dict[str, Any]], request: str) -> dict[str, float]:
        """The log-probability of each tool, by name, to be the one that a request means."""
        found = log_softmax(self._tool_scores(request, [described(one) for one in functions]))
        return {one["name"]: float(score) for one, score in zip(functions, found, strict=True)}

    def fitting(self, functions: Sequence[dict[str, Any]], request: str) -> float:
        """The log-odds that one of the tools fits a request.

        Without what is said of parameters: whole sentences there, as docstrings have them, draw a tool's vector away
        from all requests alike, which tells tools apart and says nothing of whether one fits.
        """
        scores = self._scores(request, [described(one, parameters=False) for one in functions], self.scales.tools)
        return float(np.logaddexp.reduce(scores) - self.scales.nothing)

    def said(self, function: Mapping[str, Any], name: str, request: str) -> Said | None:
        """What a request for this tool says of one of its parameters; None for one of a kind that is not read."""
        if name in (chosen := enumerations(function)):
            return self._chosen(*chosen[name], request)
        if name not in (names := readable(function)):
            return None
        key = asked_about(function, name), to_json(function["parameters"]["properties"][name]), request
        with self._lock:
            if key not in self._read:
                self._read_all(function, names, request)
            return self._read[key]

    def _read_all(self, function: Mapping[str, Any], names: Sequence[str], request: str) -> None:
        """Read what a request says of a tool's parameters, all at once; None of one that was not read to its end."""
        if len(self._read) + len(names) > READ:
            self._read = {}
        abouts = [asked_about(function, name) for name in names]
        schemas = [function["parameters"]["properties"][name] for name in names]
        asked = [ask(self.tokenizer, about, request) for about in abouts]
        found = read(self.encoder, self.heads, asked, schemas)
        for about, schema, one, said in zip(abouts, schemas, asked, found, strict=True):
            self._read[about, to_json(schema), request] = said if one.whole else None

    def _chosen(self, about: str, options: Sequence[tuple[str, Any]], request: str) -> Said:
        """What a request says of an enumeration."""
        scores = self._scores(f"{about}: {request}", [text for text, _ in options], self.scales.values)
        *found, unsaid = np.exp(log_softmax(np.append(scores, self.scales.unsaid)))
        return Said({value: float(one) for (_, value), one in zip(options, found, strict=True)}, float(unsaid))

    def nearness(self, request: str, texts: Sequence[str]) -> np.ndarray:
        """The cosine of each text's vector with the request's."""
        return self._scores(request, texts, 1.0)

    def read_ahead(self, functions: Iterable[dict[str, Any]], requests: Iterable[str]) -> None:
        """Read tools and requests of which `meant` will be asked: many at a time, which takes less than one by one."""
        texts = list(dict.fromkeys([*map(described, functions), *requests]))
        with self._lock:
            self._know(texts[:KEPT])

    def _scores(self, request: str, texts: Sequence[str], scale: float) -> np.ndarray:
        """By the vectors of whole texts alone."""
        (asked, _), known = self._vectors(request, texts)
        return scale * np.stack([vector for vector, _ in known]) @ asked

    def _tool_scores(self, request: str, texts: Sequence[str]) -> np.ndarray:
        """By the vectors of whole texts and of their words (`tool_scores`, one request)."""
        (asked, words), known = self._vectors(request, texts)
        cosines = words.astype(np.float32) @ np.concatenate([tokens for _, tokens in known]).astype(np.float32).T
        ends = np.cumsum([len(tokens) for _, tokens in known])
        starts, lengths = np.append(0, ends[:-1]), np.diff(ends, prepend=0)
        of_tools = np.add.reduceat(cosines.max(axis=0), starts) / lengths
        of_request = np.maximum.reduceat(cosines, starts, axis=1).mean(axis=0)
        whole = self.scales.whole * np.stack([vector for vector, _ in known]) @ asked
        return whole + self.scales.tool_words * of_tools + self.scales.request_words * of_request

    def _vectors(self, request: str, texts: Sequence[str]) -> tuple[Known, list[Known]]:
        with self._lock:
            self._know([request, *texts])
            return self._known[request], [self._known[text] for text in texts]

    def _know(self, texts: Sequence[str]) -> None:
        """Keep the vectors of texts, and forget others where they would be too many."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(new) > KEPT:
            self._known, new = {}, list(dict.fromkeys(texts))
        if new:
            ids = token_ids(self.tokenizer, new)
            for some in grouped(ids):  # few at a time: tokens are padded to the longest text
                vectors, tokens = map(np.array, self.encoder.encode_tokens([ids[number] for number in some]))
                for number, vector, states in zip(some, vectors, tokens, strict=True):
                    self._known[new[number]] = vector, states[: len(ids[number])].astype(np.float16)


def tool_scores(
    scales: Mapping[str, Any], requests: tuple[mx.array, mx.array], tools: tuple[mx.array, mx.array]
) -> mx.array:
    """The scores [requests, tools] of tools for requests, both as `SentenceEncoder.encode_tokens` gives them.

    scales: `whole`, `tool_words` and `request_words` of `Scales`.
    """
    (asked, words), (offered, described) = requests, tools
    said, there = ((one != 0).any(axis=-1).astype(mx.float32) for one in (words, described))
    (count, length, width), (tools_count, tool_length, _) = words.shape, described.shape
    cosines = (words.reshape(-1, width) @ described.reshape(-1, width).T).reshape(
        count, length, tools_count, tool_length
    )
    nearest = (cosines + (FAR * (1 - said))[:, :, None, None]).max(axis=1)
    of_tools = (nearest * there).sum(axis=-1) / there.sum(axis=-1)
    nearest = (cosines + FAR * (1 - there)).max(axis=3)
    of_request = (nearest * said[..., None]).sum(axis=1) / said.sum(axis=1)[:, None]
    return scales["whole"] * asked @ offered.T + scales["tool_words"] * of_tools + scales["request_words"] * of_request


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis."""
    return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)


def enumerations(function: Mapping[str, Any]) -> dict[str, tuple[str, list[tuple[str, Any]]]]:
    """Of each enumeration that a tool takes, or list of its values: what is asked of a request, and the values, each
    with its text.

    Only of words: numbers and codes of a letter or two (C, F) say nothing to a sentence encoder.
    """
    found = {}
    for name, schema in ((function.get("parameters") or {}).get("properties") or {}).items():
        values = enumeration_of(schema)
        if values and all(isinstance(one, str) and len(one) > CODE for one in values):
            options = [(f"{words(name)}: {words(value)}", value) for value in dict.fromkeys(values)]
            found[name] = asked_about(function, name), options
    return found


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of texts, an empty one as a dash."""
    return [found.ids for found in tokenizer.encode_batch([text.strip() or "-" for text in texts])]


def untrained(seed: int) -> tuple[SentenceEncoder, Any, EncoderHeads]:
    """The sentence encoder with an adapter that does nothing yet, its tokenizer, and heads that know nothing."""
    encoder, tokenizer = open_encoder()
    mx.random.seed(seed)
    attach(encoder, LORA)
    return encoder, tokenizer, EncoderHeads(encoder.norm.weight.size)


def learned(encoder: SentenceEncoder, heads: EncoderHeads) -> dict[str, mx.array]:
    """The arrays that training changes, by name."""
    return adapter_parameters(encoder) | {HEADS + name: array for name, array in tree_flatten(heads.parameters())}


def put(encoder: SentenceEncoder, heads: EncoderHeads, arrays: Mapping[str, mx.array]) -> None:
    """Give them other values."""
    encoder.load_weights([pair for pair in arrays.items() if not pair[0].startswith(HEADS)], strict=False)
    heads.load_weights([(name[len(HEADS) :], array) for name, array in arrays.items() if name.startswith(HEADS)])


def save(path: str | Path, encoder: SentenceEncoder, heads: EncoderHeads, scales: Scales) -> None:
    """Write the adapter and the heads in half precision, and the scales."""
    arrays = {name: array.astype(mx.float16) for name, array in learned(encoder, heads).items()}
    save_arrays(Path(path), arrays, {"encoder": NAME, **{name: repr(value) for name, value in asdict(scales).items()}})


def check(path: str | Path) -> tuple[dict[str, mx.array], Scales]:
    """The arrays and the scales of a file which `save` wrote, in float32.

    Raises CallwrightError for a file that is missing, damaged or another.
    """
    if not Path(path).is_file():
        raise CallwrightError(
            f"{path}: the tool encoder that decision.json speaks of is not there: copy it from where that file "
            "comes from, or take `tool_encoder` out of it"
        )
    try:
        arrays, about = mx.load(str(path), format="safetensors", return_metadata=True)
        if about.get("encoder") != NAME:
            raise ValueError(f"it is none of {NAME}")
        arrays = {name: array.astype(mx.float32) for name, array in arrays.items()}
        about = {"whole": about["tools"], "tool_words": "0", "request_words": "0", **about}  # older ones know no words
        scales = Scales(**{field.name: float(about[field.name]) for field in fields(Scales)})
        finite = all(mx.isfinite(array).all().item() for array in arrays.values())
        if not finite or not all(map(math.isfinite, asdict(scales).values())):
            raise ValueError("it holds what is not finite")
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise CallwrightError(f"{path}: not a tool encoder ({str(error)[:120]}): {REMEDY}") from error
    return arrays, scales


def open_tuned(path: str | Path) -> tuple[SentenceEncoder, Any, EncoderHeads, Scales]:
    """The sentence encoder with the adapter in the file `path` folded into it, its tokenizer, heads, and the scales.

    Raises CallwrightError as `check` does, and where the sentence encoder cannot be fetched.
    """
    arrays, scales = check(path)
    encoder, tokenizer, heads = untrained(0)
    expected = {name: array.shape for name, array in learned(encoder, heads).items()}
    if expected != {name: array.shape for name, array in arrays.items()}:
        raise CallwrightError(f"{path}: not a tool encoder (its arrays are others): {REMEDY}")
    put(encoder, heads, arrays)
    merge(encoder)
    return encoder, tokenizer, heads, scales
