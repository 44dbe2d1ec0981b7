"""The generated parts of the documents: the manual's tables of config keys, and those of `architecture`.

    python -m callwright.report.manual

writes them between their markers, `<!-- generated: config -->` and `<!-- generated: end -->`; a test keeps them in
step.
"""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from callwright.report import architecture
from callwright.runtime.config import fill_defaults, merge

ROOT = Path(__file__).resolve().parents[4]
MANUAL = Path("docs") / "TECHNICAL_MANUAL.md"
SCHEMA = Path("workflow") / "schemas" / "config.schema.yaml"
_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- generated: end -->)", re.DOTALL)
# A pattern that lists words; the last of them may be a beginning alone.
_WORDS = re.compile(r"\^\(?([\w|]+)(?:\[[^\]]+\]\+)?\)?\$")
MISSING = object()


def config_tables(root: Path = ROOT) -> str:
    """A table for each part of the configuration: key, default, what it may be, meaning."""
    schema = yaml.safe_load((root / SCHEMA).read_text(encoding="utf-8"))
    default_run = yaml.safe_load((root / "config" / "config.yaml").read_text(encoding="utf-8"))
    values = merge(fill_defaults({}, schema), fill_defaults(default_run, schema))
    parts: list[str] = []
    whole = []
    for name, part in schema["properties"].items():
        rows = list(_rows(name, part, values.get(name, MISSING)))
        if len(rows) == 1:
            whole += rows
            continue
        parts.append("\n".join([f"### {name}", "", part["description"], "", *_table(rows[1:])]))
    return "\n\n".join(["\n".join(["### Keys by themselves", "", *_table(whole)]), *parts])


def _table(rows: list[tuple[str, str, str, str]]) -> list[str]:
    cells = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return ["| key | default | may be | meaning |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in cells)]


def _rows(key: str, part: dict[str, Any], value: Any) -> Any:
    """The rows of a key and of all below it."""
    inner = part.get("properties", {})
    nested = inner and "null" not in part.get("type", ())
    shown = "" if value is MISSING or nested else f"`{_short(value)}`"
    yield f"`{key}`", shown, "a mapping of the keys below" if nested else _may_be(part), part.get("description", "")
    for name, below in inner.items():
        found = (
            value.get(name, below.get("default", MISSING)) if isinstance(value, dict) else below.get("default", MISSING)
        )
        yield from _rows(f"{key}.{name}", below, found)
    further = part.get("additionalProperties")
    for name, below in further.get("properties", {}).items() if isinstance(further, dict) else ():
        yield from _rows(f"{key}.NAME.{name}", below, below.get("default", MISSING))


def _short(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _may_be(part: dict[str, Any]) -> str:
    """The type and range of a key, in words."""
    if "enum" in part:
        return "one of " + ", ".join(f"`{_short(value)}`" for value in part["enum"])
    if "anyOf" in part and "type" not in part:
        return " or ".join(_may_be(choice) for choice in part["anyOf"])
    kinds = part.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    names = {"string": "text", "number": "number", "integer": "whole number", "boolean": "`true` or `false`"}
    names |= {"object": "mapping", "null": "`null`"}
    told = []
    for kind in kinds:
        if kind == "array":
            told.append(f"list of {_may_be(part['items'])}".replace("of one of", "of") if "items" in part else "list")
        elif kind in ("number", "integer"):
            told.append(names[kind] + _range(part))
        elif kind == "string" and (found := _WORDS.fullmatch(part.get("pattern", ""))):
            told.append(", ".join(f"`{word}…`" if word.endswith("_") else f"`{word}`" for word in found[1].split("|")))
        else:
            told.append(names[kind])
    return " or ".join(told)


def _range(part: dict[str, Any]) -> str:
    bounds = [
        f"{word} {part[name]}"
        for name, word in (("minimum", "at least"), ("exclusiveMinimum", "more than"))
        if name in part
    ]
    bounds += [
        f"{word} {part[name]}"
        for name, word in (("maximum", "at most"), ("exclusiveMaximum", "less than"))
        if name in part
    ]
    if "not" in part:
        bounds.append(f"not {part['not']['const']}")
    return " " + ", ".join(bounds) if bounds else ""


def generated(root: Path = ROOT) -> dict[str, str]:
    """The manual's generated parts by the names that their markers have."""
    return {"config": config_tables(root)}


def renewed(text: str, parts: dict[str, str]) -> str:
    """A document's text with these parts between their markers."""
    return _PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n\n{found[3]}", text)


def main() -> int:
    """Write the generated parts anew; says whether anything has changed."""
    for name, parts in ((MANUAL, generated()), (architecture.PAGE, architecture.generated(ROOT))):
        before = (ROOT / name).read_text(encoding="utf-8")
        after = renewed(before, parts)
        (ROOT / name).write_text(after, encoding="utf-8")
        print(f"{name}: {'unchanged' if after == before else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
