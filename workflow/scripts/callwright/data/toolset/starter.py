"""A toolset file to begin with: commented, valid as it stands, each part marked by where it came from.

Values are written out, so that they can be replaced; plain phrasings are marked as such. What is written here is what
`toolset.load_toolset` would assume of the same tools without it.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

import yaml

from callwright.data.negatives import about, content_words
from callwright.data.toolset import constraints, plain_phrasings, pools, values
from callwright.data.toolset.bases import ENCODER, Base, train_command
from callwright.data.toolset.parameter_values import Guess, guesses, recursive
from callwright.data.toolset.tool_reader import misfit
from callwright.runtime.errors import CallwrightError

WHERE = {
    "schema": "from the schema",
    "description": "from the description",
    "name": "after the name",
    "another": "as another tool describes it",
    "type": "by its type alone: replace them",
    "stand-in": "STAND-INS: nothing is known of it. Write what people say",
}
HEAD = """\
# The toolset of {files}, written by `callwright new`. It can be trained as it stands; two places are worth your
# time: the phrasings, made from the descriptions (nobody speaks like that), and the values marked STAND-INS.
#   phrasings   how people ask; {{slot}} stands for a value. Quote a text that begins with a slot: "{{city}} tomorrow"
#   [ … ]       what is in square brackets is said in half of the requests
#   missing     requests that lack a required value; the answer is its question under `ask`
# All keys: the docstring of workflow/scripts/callwright/data/toolset/toolset.py. What is wrong is told with its line.
"""
TALK = [
    ("Do you sell gift cards?", None), ("How far is it to the moon?", None), ("Can you sing me a song?", None),
    ("What's the Wi-Fi password?", None), ("Is there parking nearby?", None), ("Who won the match last night?", None),
    ("That went well, thank you.", "I'm glad I could help."),
]  # fmt: skip


def without_recursive(
    domains: dict[str, list[dict[str, Any]]],
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The domains without tools that require a value whose schema contains itself, and a line for each such tool.

    No request says such a value, unless somebody writes some under `values`. A domain may be left without tools.
    """
    named, kept, left_out = pools.builtin(), {}, []
    for domain, tools in domains.items():
        kept[domain] = []
        for tool in tools:
            name, parameters = tool["function"]["name"], tool["function"]["parameters"]
            found = (
                key
                for key in parameters.get("required", [])
                if recursive(parameters["properties"].get(key)) and fitting(key, parameters, named) is None
            )
            if (key := next(found, None)) is None:
                kept[domain].append(tool)
            else:
                left_out.append(
                    f"the tool {name!r}: its required parameter {key!r} is recursive (its schema contains itself), "
                    "and no values can be made for it"
                )
    return kept, left_out


def toolset_text(name: str, files: Sequence[str], domains: dict[str, list[dict[str, Any]]]) -> str:
    """The file's text. files: as `tools_from` takes them. domains: the tools of each file, by the file's stem.

    Raises CallwrightError for a required parameter whose type no value can be made of.
    """
    named = pools.builtin()
    names = {tool["function"]["name"] for tools in domains.values() for tool in tools}
    lines = [
        HEAD.format(files=", ".join(files)),
        f"name: {_flow(name)}",
        f"tools_from: {_flow(list(files))}",
        "",
        "domains:",
    ]
    for domain, tools in domains.items():
        lines.append(f"  {_flow(domain)}:")
        known = _described([tool["function"]["parameters"] for tool in tools], named)
        for tool in tools:
            lines += _tool(tool["function"], named, known, names - {tool["function"]["name"]})
    lines += [
        "",
        "# Real requests with their calls teach and test best. A third of their wordings is kept back as the headline",
        "# test. Inline, or the names of files of records: [my-requests.jsonl]",
        "examples: []",
        "",
        "small_talk:             # what none of the tools can do, and talk; an answer of its own, or a refusal",
        *(f"  - {_flow([text, said] if said else text)}" for text, said in _talk(domains)),
    ]
    return "\n".join(lines) + "\n"


def _talk(domains: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str | None]]:
    """The small talk that shares no word with a tool: "do you sell gift cards" may be just what one is for."""
    words = {word for tools in domains.values() for tool in tools for word in content_words(about(tool))}
    return [(text, said) for text, said in TALK if said or not words & content_words(text)]


def _described(parameters: Sequence[dict[str, Any]], named: dict[str, values.Pool]) -> dict[str, Guess]:
    """By parameter's name what some tool's description says of it: C#####@ for all cards, where one tool shows it."""
    known: dict[str, Guess] = {}
    for of_tool in parameters:
        for key in of_tool.get("properties") or {}:
            found = fitting(key, of_tool, named)
            if found is not None and found.source == "description":
                known.setdefault(key, Guess(found.spec, "another"))
    return known


def _tool(
    function: dict[str, Any], named: dict[str, values.Pool], known: dict[str, Guess], others: set[str]
) -> list[str]:
    parameters = function["parameters"]
    properties = parameters.get("properties") or {}
    slots = [key for key in properties if re.fullmatch(r"\w+", key)]
    chosen = {key: found for key in slots if (found := fitting(key, parameters, named, known.get(key))) is not None}
    for key in parameters.get("required", []):
        if key not in chosen:
            raise CallwrightError(
                f"the tool {function['name']!r}: no values can be made for its required parameter {key!r} "
                f"({properties.get(key)!r:.80}): give it a type, an enum or examples"
            )
    about = " ".join((function.get("description") or "").split())
    lines = [
        f"    {_flow(function['name'])}:" + (f"  # {about[:90]}" if about else "  # it has no description: write one")
    ]
    if chosen:
        lines.append("      values:")
        lines += [
            f"        {_flow(key)}: {_flow(_plain(found.spec))}  # {WHERE[found.source]}"
            for key, found in chosen.items()
        ]
    if ordered := constraints.guess(properties):
        lines.append(f"      constraints: {_flow([str(c) for c in ordered])}")
    whole = {"type": "object", "required": [], **parameters, "properties": properties}
    made = plain_phrasings.phrasings(function["name"], {**function, "parameters": whole}, set(chosen), others)
    lines.append("      phrasings:          # plain ones, made from the description: say it as your users do")
    lines += [f"        - {_quoted(text)}" for text in made["phrasings"]]
    if made["missing"]:
        lines.append("      ask:")
        lines += [f"        {_flow(key)}: {_quoted(text)}" for key, text in made["ask"].items()]
        lines.append("      missing:            # plain ones")
        lines += [f"        - {_quoted(text)}" for text in made["missing"]]
    return lines


def fitting(
    name: str, parameters: dict[str, Any], named: dict[str, values.Pool], elsewhere: Guess | None = None
) -> Guess | None:
    """The best guess of values for a parameter whose values its schema allows.

    elsewhere: what another tool's description says of a parameter of this name; it counts more than the name alone.
    """
    own = guesses(name, parameters["properties"][name])
    if elsewhere is not None:
        at = next((at for at, guess in enumerate(own) if guess.source in ("name", "stand-in")), len(own))
        own.insert(at, elsewhere)
    for found in own:
        try:
            pool = values.pool(name, found.spec, named)
            pool.draw(random.Random(0))
        except values.ValueSpecError:
            continue
        if misfit(name, pool, parameters) is None:
            return found
    return None


def run_text(name: str, toolset: str, corrections: str, tools: int, base: Base) -> str:
    """A run's configuration for the toolset: laid over config/config.yaml, it trains all of the tools."""
    command = train_command(f"{toolset.removesuffix('.yaml')}-run.yaml", base)
    start = f"[previous, {base.general}]" if base.general else "previous"
    iterations, general = base.iterations[tools > 4], "general, " if base.general else ""
    return f"""\
# {command}
runs: [{_flow(name)}]
toolset: {_flow(toolset)}
corrections: {_flow(corrections)}   # what the playground and the agent are told; need not be there yet
data:
  examples: {100 * min(max(tools, 3), 8)}
  no_call: null                     # as `mixture` says
  mix:                              # other tools, asked for in many ways: your phrasings alone are soon known by heart
    - {{source: toolset, path: config/toolsets/everyday.yaml, share: {base.share}}}
  variety:                          # your tools alone, under their own names, mostly all of them in the file's order
    tools_on_offer: all
    foreign: 0.0
    definitions: 0.0
    masked: 0.0
    described: 0.0
    defaults: 0.0
    slips: 0.15
    context: 0.2
    mixture: {{one: 0.56, several: 0.2, no_tool: 0.1, missing: 0.07, small_talk: 0.07}}
split: {{unseen_tools: 0}}            # every tool is taught; none is held out
training:
  iterations: {iterations}
  batch_size: {base.batch_size}
  validate_every: {base.validate_every}
  validation_batches: 8
  from: {start}   # previous: where only corrections were added, go on from the last adapter
  from_iterations: {min(60, iterations // 2)}
evaluation:
  suites: [test_seen]
  items: 40
  max_length_stops: 0.1             # answers that run to the limit count as wrong; more of them stop the run
  conditions: [base, {general}tuned, tuned_served]   # tuned_served: as `callwright serve` answers
  tool_encoder: {ENCODER}   # which tool is meant is read in another way beside the model's own
  tools_shown: 3                    # and the model is shown the likeliest ones for each part of a request
"""


def _plain(spec: Any) -> Any:
    """A list of values without `say` where that is the value itself."""
    if isinstance(spec, list):
        return [
            entry["value"] if isinstance(entry, dict) and entry["say"] == entry["value"] else entry for entry in spec
        ]
    return spec


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
        .split("\n...")[0]
        .strip()
    )


def _quoted(text: str) -> str:
    """A text in double quotes: slots and colons need no care then."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
