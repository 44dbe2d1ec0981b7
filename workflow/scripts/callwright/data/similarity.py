"""Near copies of texts: MinHash finds the candidates, the exact Jaccard similarity decides.

A text is the set of its character 5-grams, without case, punctuation and spacing (`records.normalize`). Two
texts are near copies when these sets have a Jaccard similarity of at least a threshold. Candidates come from
locality-sensitive hashing of MinHash signatures (Broder 1997; Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", chapter 3), so that a set of n texts costs about n comparisons instead of n². The bands
are chosen so that a pair at the threshold is a candidate with a chance of 99 % or more.
"""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from callwright.data.records import normalize

THRESHOLD = 0.8  # as a default; about one word in fifteen differs
SHINGLE = 5  # characters
PERMUTATIONS = 120
RECALL = 0.99

# Multiply-add hashes modulo 2**64 stand for the permutations. The constants come from SHAKE-256, since NumPy
# does not promise the same random numbers in its next version.
_CONSTANTS = np.frombuffer(hashlib.shake_256(b"minhash").digest(16 * PERMUTATIONS), dtype="<u8").astype(np.uint64)
_MULTIPLIERS, _ADDENDS = _CONSTANTS[:PERMUTATIONS] | np.uint64(1), _CONSTANTS[PERMUTATIONS:]
_MIX = np.uint64(0x9E3779B97F4A7C15)


@lru_cache(maxsize=4096)
def shingles(text: str) -> frozenset[str]:
    """The character 5-grams of a text; of a shorter one itself."""
    plain = normalize(text)
    return frozenset(plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1)))


def jaccard(one: str, other: str) -> float:
    """The share of their shingles that two texts have in common, from 0 to 1."""
    first, second = shingles(one), shingles(other)
    shared = len(first & second)
    return shared / (len(first) + len(second) - shared)


def signature(text: str) -> np.ndarray:
    """The MinHash signature of a text, uint32 [120]."""
    plain = normalize(text)
    codes = np.frombuffer(plain.ljust(SHINGLE).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
    hashes = np.zeros(len(codes) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = (hashes ^ codes[offset : offset + len(hashes)]) * _MIX
        hashes ^= hashes >> np.uint64(29)
    hashes = np.unique(hashes)
    permuted = hashes[:, None] * _MULTIPLIERS + _ADDENDS  # [shingles, permutations], wraps around
    return (permuted.min(axis=0) >> np.uint64(32)).astype(np.uint32)


def bands(threshold: float) -> tuple[int, int]:
    """Number of bands and rows of each: the widest bands that find a pair at the threshold with 99 %."""
    for rows in (12, 10, 8, 6, 5, 4, 3, 2):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count, rows
    return PERMUTATIONS, 1


class Index:
    """The texts that are known, to be asked for near copies of another. Takes about 0.5 kB a text, and the text.

    The buckets are a hash table in arrays, with a chain of entries for each slot: as a dictionary of lists they
    would take ten times the room.
    """

    def __init__(self, threshold: float = THRESHOLD):
        self.threshold = threshold
        self.bands, self.rows = bands(threshold)
        self.texts: list[str] = []
        self.names: list[str] = []
        self._hashes = array("Q")  # of each text's bands, one after the other
        self._next = array("q")  # entry -> the next one in its slot, or -1
        self._heads = array("q", [-1]) * 4096  # slot -> its first entry

    def add(self, text: str, name: str) -> None:
        """Make a text known under a name."""
        if len(self._next) + self.bands > len(self._heads):
            self._grow()
        for value in _band_hashes(text, self.bands, self.rows):
            slot = value % len(self._heads)
            self._next.append(self._heads[slot])
            self._heads[slot] = len(self._hashes)
            self._hashes.append(value)
        self.texts.append(text)
        self.names.append(name)

    def candidates(self, text: str) -> Iterator[int]:
        """Numbers (in the order of `add`) of the known texts that share a band with this one, each once."""
        seen: set[int] = set()
        for value in _band_hashes(text, self.bands, self.rows):
            entry = self._heads[value % len(self._heads)]
            while entry >= 0:
                number = entry // self.bands
                if self._hashes[entry] == value and number not in seen:
                    seen.add(number)
                    yield number
                entry = self._next[entry]

    def near(self, text: str) -> Iterator[tuple[int, float]]:
        """Numbers (in the order of `add`) and similarities of the known texts that this is a near copy of."""
        for number in self.candidates(text):
            if (similarity := jaccard(text, self.texts[number])) >= self.threshold:
                yield number, similarity

    def _grow(self) -> None:
        self._heads = array("q", [-1]) * (4 * len(self._heads))
        for entry, value in enumerate(self._hashes):
            slot = value % len(self._heads)
            self._next[entry] = self._heads[slot]
            self._heads[slot] = entry


@lru_cache(maxsize=64)  # a text is looked up and then added
def _band_hashes(text: str, count: int, rows: int) -> list[int]:
    values = signature(text)[: count * rows].astype(np.uint64).reshape(count, rows)
    hashes = np.arange(count, dtype=np.uint64)
    for row in range(rows):
        hashes = (hashes ^ values[:, row]) * _MIX
        hashes ^= hashes >> np.uint64(29)
    return hashes.tolist()


class Union:
    """Sets that are joined step by step (union-find)."""

    def __init__(self) -> None:
        self.parent: dict[Hashable, Hashable] = {}

    def root(self, name: Hashable) -> Hashable:
        """The name that stands for the set of this one."""
        while self.parent.setdefault(name, name) != name:
            self.parent[name] = self.parent[self.parent[name]]
            name = self.parent[name]
        return name

    def join(self, one: Hashable, other: Hashable) -> None:
        """Make one set of the two that these names are in."""
        self.parent[self.root(one)] = self.root(other)


def near_groups(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each text the number of the first text of its group; near copies of near copies are one group."""
    index, union = Index(threshold), Union()
    first: dict[str, int] = {}
    for number, text in enumerate(texts):
        plain = normalize(text)
        if plain in first:  # the same text is looked up once
            union.join(number, first[plain])
            continue
        first[plain] = number
        for found in index.candidates(text):
            other = int(index.names[found])  # one that is in the same set already needs no comparison
            if union.root(other) != union.root(number) and jaccard(text, index.texts[found]) >= threshold:
                union.join(number, other)
        index.add(text, str(number))
    lowest: dict[Hashable, int] = {}
    return [lowest.setdefault(union.root(number), number) for number in range(len(texts))]


def components(lists: Iterable[Sequence[Hashable]]) -> list[list[int]]:
    """Indices of lists that are connected by shared names, component by component, in order of their first."""
    union, firsts = Union(), []
    for names in lists:
        firsts.append(names[0])
        for name in names[1:]:
            union.join(name, names[0])
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index, name in enumerate(firsts):
        found[union.root(name)].append(index)
    return list(found.values())
