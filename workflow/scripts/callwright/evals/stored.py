"""What an evaluation stored, by suite and condition: files named `…/<suite>/<condition>/<name>`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from callwright.runtime.files import read_json, read_jsonl


def evaluation_rows(paths: Iterable[str | Path]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of JSON Lines files, by suite and condition."""
    return _by_suite(paths, lambda path: list(read_jsonl(path)))


def evaluation_facts(paths: Iterable[str | Path]) -> dict[str, dict[str, dict[str, Any]]]:
    """The contents of JSON files, by suite and condition; files that older runs lack are left out."""
    return _by_suite(filter(Path.exists, map(Path, paths)), read_json)


def _by_suite(paths, read):
    found = {}
    for path in map(Path, paths):
        found.setdefault(path.parts[-3], {})[path.parts[-2]] = read(path)
    return found
