"""A small Needle for tests: a weight file of random numbers, and the same model once more in plain NumPy.

`write_cact` writes the file format down a second time, `NumpyNeedle` the architecture, token by token and without
caches: neither uses the code that it tests.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "vocab": 300, "width": 768, "heads": 4, "kv_heads": 2, "layers": 3, "key": 16, "value": 64, "context": 128,
    "mlp": 1024, "lanes": 2, "window": 5, "taps": 3, "slots": 32, "tables": 6, "memory_taps": 4, "dilation": 3,
    "orders": (2, 3), "memory_layers": (1,), "global_layers": (2,), "theta": 100.0,
}  # fmt: skip
MARKERS = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tools>", "</tools>", "<tool_call>", "</tool_call>"]
CODEBOOKS = {
    2: np.array([-0.13, -0.04, 0.04, 0.13], np.float32),
    4: np.linspace(-0.24, 0.24, 16, dtype=np.float32),
}


def walsh(size: int) -> np.ndarray:
    """The Walsh-Hadamard matrix [size, size] from its definition: the sign is the parity of the common bits."""
    index = np.arange(size)
    parity = np.array([[bin(i & j).count("1") % 2 for j in index] for i in index])
    return np.where(parity, -1.0, 1.0) / np.sqrt(size)


def write_cact(path: Path, seed: int = 0, heads: bool = False) -> dict[str, np.ndarray]:
    """Write a file of random weights; returns them by the names of `callwright.models.cact`, in float64.

    heads: whether it has a head for the confidence, as the published file does.
    """
    rng = np.random.default_rng(seed)
    tensors: list[tuple[int, tuple[int, ...], bytes, int, int]] = []
    values: dict[str, np.ndarray] = {}

    def half(name: str, array: np.ndarray) -> None:
        array = np.asarray(array, np.float16)
        tensors.append((1, array.shape, array.tobytes(), 0, 0))
        values[name] = array.astype(np.float64)

    def coded(name: str, rows: int, columns: int, bits: int, size: float = 1.0) -> None:
        codes = rng.integers(0, 2**bits, (rows, columns))
        norms = (rng.uniform(0.5, 1.5, (rows, columns // 128)) * size * np.sqrt(128 / columns)).astype(np.float16)
        shifted = codes.reshape(rows, -1, 8 // bits) << (bits * np.arange(8 // bits))
        packed = shifted.sum(-1).astype(np.uint8)
        tensors.append((3, (rows, columns), packed.tobytes() + norms.tobytes(), 128, bits))
        units = CODEBOOKS[bits].astype(np.float64)[codes].reshape(rows, -1, 128)
        values[name] = (units @ walsh(128) * norms.astype(np.float64)[..., None]).reshape(rows, columns)

    s = SIZES
    width, n, lanes = s["width"], s["mlp"], s["lanes"]
    coded("embedding", s["vocab"], width, 4)
    for layer in range(s["layers"]):
        name = f"layer{layer}."
        half(name + "norm_in", rng.normal(0, 0.1, width))
        coded(name + "q_proj", s["heads"] * s["key"], width, 2)
        coded(name + "k_proj", s["kv_heads"] * s["key"], width, 2)
        coded(name + "v_proj", s["kv_heads"] * s["value"], width, 2)
        for kind, count in (("q", "heads"), ("k", "kv_heads"), ("v", "kv_heads")):
            half(f"{name}{kind}_taps", rng.normal(0, 0.5, (s["taps"], s[count] * s["value" if kind == "v" else "key"])))
        half(name + "q_norm", rng.normal(0, 0.1, s["key"]))
        half(name + "k_norm", rng.normal(0, 0.1, s["key"]))
        coded(name + "gate_proj", s["heads"] * s["value"], width, 2)
        coded(name + "out_proj", width, s["heads"] * s["value"], 2)
        half(name + "post_norm", rng.normal(0, 0.1, width))
        half(name + "attn_gate", rng.normal(0, 1, 1))
        half(name + "pre_hada", rng.normal(0, 0.1, width))
        for kind in ("d1", "d2", "b2", "d3", "d4"):
            half(name + kind, rng.normal(0, 0.7, n))
        for kind in ("w1", "w2", "w3"):
            half(f"{name}{kind}a", rng.normal(0, 0.18, (32, 32)))
            half(f"{name}{kind}b", rng.normal(0, 0.18, (32, 32)))
        half(name + "cond_v", rng.normal(0, 0.05, (width, 8)))
        half(name + "cond_u", rng.normal(0, 0.5, (8, n)))
    for kind in ("a_pre", "a_post", "a_res"):
        half(f"lanes.{kind}", rng.normal(0.5, 0.1, s["layers"]))
    half("lanes.b_pre", rng.normal(0, 1, (s["layers"], lanes)))
    half("lanes.b_post", rng.normal(0, 1, (s["layers"], lanes)))
    half("lanes.b_res", rng.normal(0, 2, (s["layers"], lanes, lanes)))
    for kind, rows in (("pre", lanes), ("post", lanes), ("res", lanes * lanes)):
        coded(f"lanes.phi_{kind}", s["layers"] * rows, width * lanes, 4)
    for number in (1, 2):
        order = rng.permutation(n).astype(np.float32)
        tensors.append((2, order.shape, order.tobytes(), 0, 0))
        values[f"mlp_order{number}"] = order.astype(int)
    for site in range(len(s["memory_layers"])):
        coded(f"memory{site}.tables", s["tables"] * s["slots"], 128, 2)
        coded(f"memory{site}.key_proj", width, width, 2, 10)
        coded(f"memory{site}.value_proj", width, width, 2, 10)
        half(f"memory{site}.taps", rng.normal(0, 0.5, (s["memory_taps"], width)))
    half("final_norm", rng.normal(0, 0.1, width))
    if heads:
        half("heads", np.array([2.0]))
        coded("confidence_head.probes", (s["layers"] + 1) * 4, width, 4)
        half("confidence_head.gain", rng.normal(0, 1, (s["layers"] + 1, 4)))
        coded("confidence_head.query", 2, width, 4)
        half("confidence_head.row_bias", rng.normal(0, 1, (2, s["layers"] + 1, 4)))
        coded("confidence_head.proj", 1, 2 * width, 4)
        half("confidence_head.bias", rng.normal(0, 1, 1))
    tensors.append((4, (), tokenizer_bytes(), 0, 0))
    path.write_bytes(file_bytes(tensors))
    return values


def file_bytes(tensors: list[tuple[int, tuple[int, ...], bytes, int, int]]) -> bytes:
    """Header, codebooks, directory and the tensors' bytes, each from a multiple of 64 on."""
    s = SIZES
    books = np.concatenate([CODEBOOKS[2], np.zeros(8, np.float32), CODEBOOKS[4]])
    header = [
        0x05E12A84, len(tensors), books.size, 0, 8, s["vocab"], s["vocab"], s["width"], s["heads"], s["kv_heads"],
        s["layers"], s["key"], s["value"], s["context"], s["mlp"], s["lanes"], s["window"],
        sum(1 << layer for layer in s["global_layers"]), 0, s["taps"], s["slots"], 128, s["tables"], s["memory_taps"],
        s["dilation"], 0, len(s["orders"]), *s["orders"], *[0] * (4 - len(s["orders"])), len(s["memory_layers"]),
        *s["memory_layers"], *[0] * (16 - len(s["memory_layers"])),
    ]  # fmt: skip
    data = struct.pack("<48If", *header, s["theta"]) + books.tobytes()
    record = struct.Struct("<BBHIIIIQQII")
    at = len(data) + record.size * len(tensors)
    directory, body = b"", b""
    for kind, shape, blob, group, bits in tensors:
        gap = -at % 64
        at += gap
        body += bytes(gap) + blob
        directory += record.pack(kind, len(shape), 0, *(*shape, 0, 0, 0, 0)[:4], at, len(blob), group, bits)
        at += len(blob)
    return data + directory + body


def pieces() -> list[tuple[str, int]]:
    """(piece, type) of the tokenizer: special tokens, markers, all bytes, letters and some of their joins."""
    found = [("<pad>", 2), ("</s>", 2), ("<s>", 2), ("<unk>", 1), *((marker, 3) for marker in MARKERS)]
    found += [(f"<0x{byte:02X}>", 4) for byte in range(256)]
    joined = ["ab", "abc", "▁a", "cd", "▁ab", "bcd", "aa", "aaa"]
    return found + [(piece, 0) for piece in joined] + [(letter, 0) for letter in "▁abcde\n:"]


def tokenizer_bytes() -> bytes:
    """The tokenizer's part of the file: pieces made earlier are the better ones."""
    known = pieces() + [(f"unused{n}", 0) for n in range(SIZES["vocab"] - len(pieces()))]
    data = struct.pack("<IIIIIBBH", len(known), 0, 1, 2, 3, 0, 1, 0)
    for number, (piece, kind) in enumerate(known):
        text = piece.encode()
        data += struct.pack("<fBH", -float(number) if kind == 0 else 0.0, kind, len(text)) + text
    return data


def logistic(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) over its sum along the last axis."""
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def norm(x: np.ndarray, weight: Any = 0.0) -> np.ndarray:
    """x over its root mean square along the last axis, times 1 + weight."""
    return (1 + weight) * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


class NumpyNeedle:
    """The architecture in float64 on the weights of `write_cact`, one sequence at a time."""

    def __init__(self, weights: dict[str, np.ndarray], sizes: dict[str, Any] = SIZES):
        self.w, self.s = weights, sizes

    def logits(self, tokens: list[int]) -> np.ndarray:
        """[length, vocabulary]."""
        s = self.s
        x = self.w["embedding"][tokens] * np.sqrt(s["width"])
        lanes = np.repeat(x[:, None], s["lanes"], axis=1)  # [length, lanes, width]
        for layer in range(s["layers"]):
            lanes = self.block(lanes, layer, tokens)
        return norm(lanes.mean(1), self.w["final_norm"]) @ self.w["embedding"].T

    def block(self, lanes: np.ndarray, n: int, tokens: list[int]) -> np.ndarray:
        w, count = self.w, self.s["lanes"]
        flat = norm(lanes.reshape(len(lanes), -1))

        def part(kind: str, rows: int) -> np.ndarray:
            matrix = w[f"lanes.phi_{kind}"][n * rows : (n + 1) * rows]
            return w[f"lanes.a_{kind}"][n] * flat @ matrix.T + w[f"lanes.b_{kind}"][n].reshape(-1)

        own = np.arange(count) == n % count
        read = logistic(part("pre", count) + np.where(own, 4, -4))
        write = 2 * logistic(part("post", count) + np.where(own, 0, -4))
        mix = np.exp(part("res", count * count).reshape(-1, count, count))
        for _ in range(20):
            mix = mix / mix.sum(-1, keepdims=True)
            mix = mix / mix.sum(-2, keepdims=True)
        x = np.einsum("tl,tlc->tc", read, lanes)
        out = self.layer(x, n, tokens) - x
        return np.einsum("tij,tjc->tic", mix, lanes) + write[..., None] * out[:, None]

    def layer(self, x: np.ndarray, n: int, tokens: list[int]) -> np.ndarray:
        w = {name.split(".")[1]: array for name, array in self.w.items() if name.startswith(f"layer{n}.")}
        if n in self.s["memory_layers"]:
            key, value = self.memory(self.s["memory_layers"].index(n), tokens)
            fit = logistic((norm(x) * norm(key)).sum(-1) / np.sqrt(x.shape[-1]))
            x = x + fit[:, None] * value
        attended = self.attention(norm(x, w["norm_in"]), w, None if n in self.s["global_layers"] else self.s["window"])
        x = x + logistic(w["attn_gate"]) * norm(attended, w["post_norm"])
        return x + self.mlp(norm(x, w["pre_hada"]), w)

    def attention(self, x: np.ndarray, w: dict[str, np.ndarray], window: int | None) -> np.ndarray:
        s, length = self.s, len(x)

        def projected(kind: str, count: int, width: int) -> np.ndarray:
            raw = x @ w[f"{kind}_proj"].T
            taps, out = w[f"{kind}_taps"], np.zeros_like(raw)
            for t in range(length):
                for back in range(min(s["taps"], t + 1)):
                    out[t] += taps[back] * raw[t - back]
            return out.reshape(length, count, width)

        q = rotated(norm(projected("q", s["heads"], s["key"]), w["q_norm"]), s["theta"])
        k = rotated(norm(projected("k", s["kv_heads"], s["key"]), w["k_norm"]), s["theta"])
        v = projected("v", s["kv_heads"], s["value"])
        out = np.zeros((length, s["heads"], s["value"]))
        for head in range(s["heads"]):
            shared = head // (s["heads"] // s["kv_heads"])
            for t in range(length):
                first = 0 if window is None else max(0, t - window + 1)
                weights = softmax(k[first : t + 1, shared] @ q[t, head] / np.sqrt(s["key"]))
                out[t, head] = weights @ v[first : t + 1, shared]
        return (out.reshape(length, -1) * logistic(x @ w["gate_proj"].T)) @ w["out_proj"].T

    def mlp(self, x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
        condition = 1 + softmax(x @ w["cond_v"]) @ w["cond_u"]
        z = np.zeros((len(x), self.s["mlp"]))
        z[:, : x.shape[1]] = x
        z = (w["d1"] * z) @ np.kron(w["w1a"], w["w1b"])
        z = w["d2"] * condition * z[:, self.w["mlp_order1"]] + w["b2"]
        z = (z * logistic(z)) @ np.kron(w["w2a"], w["w2b"])
        z = (w["d3"] * z[:, self.w["mlp_order2"]]) @ np.kron(w["w3a"], w["w3b"])
        return (w["d4"] * z)[:, : x.shape[1]]

    def memory(self, site: int, tokens: list[int]) -> tuple[np.ndarray, np.ndarray]:
        s, w = self.s, {name.split(".")[1]: a for name, a in self.w.items() if name.startswith(f"memory{site}.")}
        heads = s["tables"] // len(s["orders"])
        found = np.zeros((len(tokens), s["width"]))
        for t in range(len(tokens)):
            for table in range(s["tables"]):
                order = s["orders"][table // heads]
                if t < order - 1:
                    continue
                value = 0x9E3779B9 * (table + 1) % 2**32
                for back in range(order):
                    value = (value ^ tokens[t - back]) * 0x01000193 % 2**32
                row = (value ^ value >> 15) % s["slots"]
                found[t, 128 * table : 128 * (table + 1)] = w["tables"][table * s["slots"] + row]
        value = found @ w["value_proj"].T
        mixed = np.zeros_like(value)
        for t in range(len(tokens)):
            for tap in range(s["memory_taps"]):
                if t >= tap * s["dilation"]:
                    mixed[t] += w["taps"][tap] * value[t - tap * s["dilation"]]
        return found @ w["key_proj"].T, mixed


def rotated(x: np.ndarray, theta: float) -> np.ndarray:
    """x [length, heads, width], each position's pairs (i, i + width / 2) turned by position / theta^(2 i / width)."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None, None] / theta ** (np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)
