"""What a docstring says of a function and of each parameter, in the style of Google, NumPy or Sphinx."""

import re

_SECTION = re.compile(
    r"^\s*(args|arguments|parameters|params|returns?|yields?|raises|attributes|examples?|notes?|see also|warnings?|"
    r"references|keyword args|keyword arguments|other parameters|todo)\s*:?\s*$",
    re.I,
)
_LISTS = {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "other parameters"}


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter, in the style of Google, NumPy or Sphinx."""
    lines = text.expandtabs().splitlines()
    about, described, at = [], {}, 0
    while at < len(lines):
        line = lines[at]
        if match := re.match(r"\s*:(?:param|parameter|arg|argument)\s+(?:[^:]*\s)?(\*{0,2}\w+)\s*:\s*(.*)", line):
            at, more = _indented(lines, at + 1, _indent(line))
            described[match[1].lstrip("*")] = _joined([match[2], *more])
        elif re.match(r"\s*:\w+[^:]*:", line):
            at, _ = _indented(lines, at + 1, _indent(line))
        elif match := _SECTION.match(line):
            underlined = at + 1 < len(lines) and re.fullmatch(r"\s*[-=]{3,}\s*", lines[at + 1]) is not None
            if not underlined and not line.rstrip().endswith(":"):
                about.append(line)  # a word of the text
                at += 1
                continue
            end, body = _section(lines, at + 1 + underlined, _indent(line), underlined)
            if match[1].casefold() in _LISTS:
                described |= _numpy(body) if underlined else _google(body)
            at = end
        else:
            about.append(line)
            at += 1
    return _joined(about), described


def _section(lines: list[str], at: int, indent: int, underlined: bool) -> tuple[int, list[str]]:
    """The lines of a section from `at` on, and where it ends."""
    start = at
    while at < len(lines):
        line = lines[at]
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if underlined and line.strip() and re.fullmatch(r"\s*[-=]{3,}\s*", following):
            break
        if not underlined and line.strip() and _indent(line) <= indent:
            break
        at += 1
    return at, lines[start:at]


def _google(body: list[str]) -> dict[str, str]:
    """`name (type): description`, longer ones indented further."""
    found, first = {}, min((_indent(line) for line in body if line.strip()), default=0)
    at = 0
    while at < len(body):
        match = re.match(r"\s*\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:\s*(.*)", body[at])
        if match and _indent(body[at]) == first:
            at, more = _indented(body, at + 1, first)
            found[match[1]] = _joined([match[2], *more])
        else:
            at += 1
    return found


def _numpy(body: list[str]) -> dict[str, str]:
    """`name : type` and, indented on the next lines, the description."""
    found, at = {}, 0
    while at < len(body):
        match = re.match(r"(\s*)(\*{0,2}\w+(?:\s*,\s*\w+)*)\s*(?::.*)?$", body[at])
        if match and body[at].strip():
            at, more = _indented(body, at + 1, len(match[1]))
            found |= {name.strip().lstrip("*"): _joined(more) for name in match[2].split(",")}
        else:
            at += 1
    return {name: about for name, about in found.items() if about}


def _indented(lines: list[str], at: int, indent: int) -> tuple[int, list[str]]:
    """The lines from `at` on that are indented further, and where they end."""
    start = at
    while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > indent):
        at += 1
    return at, lines[start:at]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())
