"""Token rows that begin alike, as requests under one list of tools do."""

from typing import Any

import numpy as np


def rows_of(lists: list[tuple[int, list[int]]], seed: int = 0, vocabulary: int = 500) -> list[dict[str, Any]]:
    """Token rows: for each (length of a list, lengths of what follows it), so many records that begin with the list."""
    generator = np.random.default_rng(seed)
    rows = []
    for number, (length, own) in enumerate(lists):
        first = generator.integers(1, vocabulary, length).tolist()
        for place, size in enumerate(own):
            tokens = first + generator.integers(1, vocabulary, size).tolist()
            middle = length + max(1, size // 2)
            rows.append({"id": f"{number}/{place}", "input_ids": tokens, "spans": [[middle, length + size]]})
    return rows
