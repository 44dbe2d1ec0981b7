"""The workflow's rules as text for the manual: what each reads, writes and logs, from the rule files themselves.

Snakemake's rules are read as text, not run: the files that a rule is given depend on a configuration, its patterns
do not.
"""

import ast
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

_RULE = re.compile(r"^( *)rule(?: (\w+))?:\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
_SECTION = re.compile(r"^(\w+):(.*\n(?:[ ].*\n|\n)*)", re.MULTILINE)
_FUNCTION = re.compile(r"^def (\w+)\(.*?\):\n    \"\"\"(.*?)\"\"\"", re.MULTILINE | re.DOTALL)
# What stands in paths for a function of the rule files.
_PARTS = {"data_of": "results/{run}/data", "answered_as": "{run}"}
# What a function gives, where its docstring says more than the manual needs.
_SHORT = {
    "model_of": "`results/models/{model}/mlx`",
    "tokens_of": "`results/{run}/tokens/{split}.jsonl`",
    "suite_file": "the suite's items",
    "for_suites": "the suites' items",
}


@dataclass
class Rule:
    """One rule: `inputs` and `outputs` are (name or "", what it is) each; `log` and `benchmark` paths or "".

    A target has inputs alone.
    """

    name: str
    file: str
    about: str = ""
    inputs: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[tuple[str, str]] = field(default_factory=list)
    log: str = ""
    benchmark: str = ""


def read_rules(root: str | Path) -> list[Rule]:
    """The rules of the workflow at `root`, in the order in which its Snakefile includes them; `all` is none of them."""
    root = Path(root)
    files = re.findall(r'^include: "(.*)"', (root / "Snakefile").read_text(encoding="utf-8"), re.MULTILINE)
    texts = {name: (root / name).read_text(encoding="utf-8") for name in files}
    docs = {name: _lowered(_sentence(doc)) for text in texts.values() for name, doc in _FUNCTION.findall(text)} | _SHORT
    for text in texts.values():
        docs |= _constants(text)
    found = []
    for name, text in texts.items():
        for _, rule_name, body in _RULE.findall(text):
            sections = dict(_SECTION.findall(textwrap.dedent(body)))
            if "script" not in sections:  # a target: it only names files
                about = f"a target, `snakemake --cores 1 {rule_name}`"
                found.append(Rule(rule_name, name, about, _parts(sections["input"], docs)))
                continue
            script = Path(ast.literal_eval(sections["script"].strip())).name
            rule = Rule(rule_name or script.removesuffix(".py"), name)
            module = ast.parse((root / "workflow" / "scripts" / script).read_text(encoding="utf-8"))
            rule.about = _sentence(ast.get_docstring(module)).partition(": ")[2]
            rule.inputs = [part for part in _parts(sections["input"], docs) if part[0] != "code"]
            rule.outputs = _parts(sections["output"], docs)
            rule.log = _parts(sections["log"], docs)[0][1]
            rule.benchmark = _parts(sections["benchmark"], docs)[0][1] if "benchmark" in sections else ""
            found.append(rule)
    return found


def _constants(text: str) -> dict[str, str]:
    """The paths in constants of a rule file, by the constants' names: outputs that only some configurations have."""
    try:
        module = ast.parse(_RULE.sub("", text))
    except SyntaxError:  # directives of Snakemake's beside the rules
        return {}
    assigned = [node for node in ast.walk(module) if isinstance(node, ast.Assign)]
    told = {ast.unparse(node.targets[0]): [f"`{path}`" for path in _paths(node.value)] for node in assigned}
    return {name: f"{', '.join(paths)} (where asked for)" for name, paths in told.items() if paths}


def _sentence(doc: str) -> str:
    """The first sentence, on one line, without its full stop."""
    return re.split(r"\.(?:\s|$)", " ".join(doc.split()), maxsplit=1)[0]


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:]


def _parts(section: str, docs: dict[str, str]) -> list[tuple[str, str]]:
    """The entries of a section, each with its name ("" without one): its paths, or what its function gives."""
    call = ast.parse(f"f(\n{textwrap.dedent(section)})", mode="eval").body
    assert isinstance(call, ast.Call)
    entries = [("", value) for value in call.args] + [(word.arg or "", word.value) for word in call.keywords]
    return [(name, _told(value, docs)) for name, value in entries]


def _told(value: ast.expr, docs: dict[str, str]) -> str:
    if paths := _paths(value):
        folder = isinstance(value, ast.Call) and getattr(value.func, "id", "") == "directory"
        return ", ".join(f"`{path}{'/' * folder}`" for path in paths)
    names = [node.id for node in ast.walk(value) if isinstance(node, ast.Name) and node.id in docs]
    if names:
        return docs[names[0]]
    key = re.search(r"RUNS\[wildcards\.run\]((?:\['\w+'\])+)$", ast.unparse(value))
    if key is None:
        return ast.unparse(value)
    names = re.findall(r"\w+", key[1])
    return f"the file of config key `{'.'.join(names)}`"


def _paths(value: ast.expr) -> list[str]:
    """The path patterns in an expression, each once."""
    inside = {id(piece) for node in ast.walk(value) if isinstance(node, ast.JoinedStr) for piece in node.values}
    nodes = [node for node in ast.walk(value) if id(node) not in inside]
    return list(dict.fromkeys(path for node in nodes if (path := _path(node))))


def _path(node: ast.AST) -> str | None:
    """The path pattern that a text is, if it is one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        text = "".join(_piece(part) for part in node.values)
    else:
        return None
    text = text.replace("{{", "{").replace("}}", "}")
    return text if text.startswith("results/") else None


def _piece(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    inner = part.value
    if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
        return _PARTS.get(inner.func.id, f"{{{inner.func.id}}}")
    return f"{{{ast.unparse(inner).rsplit('.', 1)[-1]}}}"


def as_markdown(rules: list[Rule]) -> str:
    """A heading and a list for each rule, grouped by file."""
    lines, last = [], ""
    for rule in rules:
        if rule.file != last:
            lines += [f"### {rule.file}", ""]
            last = rule.file
        lines += [f"**`{rule.name}`**: {rule.about}", ""]
        if not rule.outputs:
            lines += [f"- asks for {'; '.join(text for _, text in rule.inputs)}", ""]
            continue
        for title, parts in (("reads", rule.inputs), ("writes", rule.outputs)):
            told = [f"{name}: {text}" if name and not text.startswith("`results") else text for name, text in parts]
            lines += [f"- {title} {'; '.join(dict.fromkeys(told)) or 'nothing'}"]
        lines += [f"- log {rule.log}" + (f"; time and memory {rule.benchmark}" if rule.benchmark else ""), ""]
    return "\n".join(lines).strip()
