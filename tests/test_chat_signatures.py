"""Tools as signatures: short, and nothing that training needs is lost, since a reader gets the schemas back."""

import json
import random
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from callwright.chat import template
from callwright.chat.template import render_prompt

ASK = [{"role": "user", "content": "Hi"}]
WORDS = [
    "city",
    "a day, as said",
    "e.g. (Oslo)",
    'He said "no"',
    '"quoted',
    "ends)",
    "YYYY-MM-DD",
    "über",
    "x = 1",
    "a or b",
]
NAMES = ["city", "unit", "q", "max-size", "a b", "x:y", "or", "any", "weird{}", "user.id", "a,b", "ä"]


@pytest.fixture(scope="module", params=["model_folder", "gemma_folder"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def shown(tokenizer, *functions):
    prompt = render_prompt(tokenizer, ASK, [{"type": "function", "function": function} for function in functions])
    return prompt.partition("<tools>\n")[2].partition("\n</tools>")[0].split("\n")


def tool(properties, required=(), **more):
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"name": "f", "description": "Does it.", "parameters": parameters, **more}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (tool({"a": {"type": "string"}}, ["a"]), "f(a: string): Does it."),
        (
            tool({"a": {"type": "string", "description": "Name"}, "b": {"enum": ["x", "y"], "default": "x"}}, ["a"]),
            'f(a: string (Name), b?: "x"|"y" = "x"): Does it.',
        ),
        (
            tool({"a": {"type": "array", "items": {"type": "integer", "description": "Pages"}}}),
            "f(a?: [integer (Pages)]): Does it.",
        ),
        (tool({"a": {"type": ["number", "null"], "minimum": 0}}), 'f(a?: number|null {"minimum": 0}): Does it.'),
        (
            tool({"a": {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}}, ["a"]),
            "f(a: {b: boolean}): Does it.",
        ),
        (
            tool({"a": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}}),
            "f(a?: string or null = null): Does it.",
        ),
        ({"name": "now", "description": "", "parameters": {"type": "object"}}, "now()"),
        ({"name": "now", "parameters": {}}, "now()"),
        ({"name": "now"}, "now()"),
        (tool({}, description="Two\nlines"), 'f(): "Two\\nlines"'),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_a_signature_looks_like(tokenizer, function, text):
    assert shown(tokenizer, function) == [text]


def test_a_schema_that_refers_to_itself_is_shown_as_json(tokenizer):
    function = tool({"tree": {"$ref": "#/$defs/node"}})
    function["parameters"]["$defs"] = {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}
    assert json.loads(*shown(tokenizer, function)) == function


def test_what_holds_for_several_parameters_is_shown_as_json(tokenizer):
    function = tool({"a": {"type": "string"}})
    function["parameters"]["dependentRequired"] = {"a": ["b"]}
    assert json.loads(*shown(tokenizer, function)) == function


def test_signatures_are_read_back_without_loss(tokenizer):
    rng = random.Random(7)
    functions = [random_function(rng) for _ in range(400)]
    for at in range(0, 400, 20):
        lines = shown(tokenizer, *functions[at : at + 20])
        for function, line in zip(functions[at : at + 20], lines, strict=True):
            assert Reader(line).function() == essence(function), line


def random_function(rng):
    properties, required = random_fields(rng, 3)
    return {
        "name": rng.choice([*NAMES, "weather.get", "get-it"]),
        "description": rng.choice([*WORDS, "", "One\nTwo", ": odd"]),
        "parameters": {"type": "object", "properties": properties, "required": required},
    }


def random_fields(rng, depth):
    names = rng.sample(NAMES, rng.randint(0, 4))
    return {name: random_schema(rng, depth) for name in names}, [name for name in names if rng.random() < 0.5]


def random_schema(rng, depth, plain=False):
    """A schema of any kind that the signatures know, and some that they put in as JSON."""
    kind = rng.choice(
        ["string", "integer", "number", "boolean", "null", "enum", "array", "object", "anyOf", "types", "any"]
    )
    schema = {"type": kind}
    if kind == "enum":
        schema = rng.choice(
            [{"type": "string", "enum": ["a", 'b"|c', "d (e)"]}, {"type": "integer", "enum": [1, 20]},
             {"enum": ["x", 2, None]}, {"type": "number", "enum": [0.5]}, {"type": "boolean", "enum": [True]}]
        )  # fmt: skip
    elif kind == "types":
        schema = {"type": rng.sample(["string", "integer", "null"], 2)}
    elif kind == "any":
        schema = {}
    elif kind == "array" and depth and rng.random() < 0.8:
        schema["items"] = random_schema(rng, depth - 1)
    elif kind == "object" and depth and rng.random() < 0.8:
        schema["properties"], schema["required"] = random_fields(rng, depth - 1)
        if rng.random() < 0.3:
            schema["additionalProperties"] = rng.choice([False, {"type": "string"}])
    elif kind == "anyOf":
        if plain or not depth:
            return {"type": "string"}
        schema = {"anyOf": [random_schema(rng, depth - 1, plain=True) for _ in range(rng.randint(1, 3))]}
    if rng.random() < 0.2:
        schema |= rng.choice([{"minimum": 1}, {"format": "date", "examples": ["{}", "(a)"]}, {"pattern": "^[a-z]+$"}])
    if rng.random() < 0.3:
        schema["default"] = rng.choice([None, 3, "x (y) = z", {"a": [1]}])
    if rng.random() < 0.5:
        schema["description"] = rng.choice(WORDS)
    return schema


def essence(value):
    """A function or schema without what says nothing: empty parts, and the type that an enumeration's values have."""
    if "parameters" in value:
        return {
            "name": value["name"],
            "description": value["description"].strip(),
            "parameters": essence(value["parameters"]),
        }
    kept = {key: part for key, part in value.items() if key not in ("required", "additionalProperties")}
    if kept.get("type") == "object":
        kept["properties"] = {name: essence(part) for name, part in value.get("properties", {}).items()}
        kept["required"] = sorted(set(value.get("required", [])) & set(kept["properties"]))
        if isinstance(value.get("additionalProperties"), dict):
            kept["additionalProperties"] = value["additionalProperties"]
    if "items" in kept:
        kept["items"] = essence(kept["items"])
    if "anyOf" in kept:
        kept["anyOf"] = [essence(part) for part in kept["anyOf"]]
    if all(isinstance(entry, str) for entry in kept.get("enum", [0])):
        kept["type"] = "string"
    return kept


class Reader:
    """Reads a signature back, by descent."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def function(self):
        name = self.name("(")
        self.take("(")
        properties, required = self.fields(")")
        description = ""
        if self.skip(": "):
            rest = self.text[self.at :]
            description = json.loads(rest) if rest.startswith('"') else rest
        parameters = {"type": "object", "properties": properties, "required": sorted(required)}
        return {"name": name, "description": description, "parameters": parameters}

    def fields(self, end):
        properties, required = {}, []
        while not self.skip(end):
            if properties:
                self.take(", ")
            name = self.name(":?")
            if not self.skip("?"):
                required.append(name)
            self.take(": ")
            properties[name] = self.schema()
        return properties, required

    def schema(self):
        schema = self.core()
        branches = [schema]
        while self.skip(" or "):
            branches.append(self.core())
        if len(branches) > 1:
            schema = {"anyOf": branches}
        if self.skip(" = "):
            schema["default"] = self.json("")
        if self.skip(" ("):
            if self.text[self.at] == '"':
                schema["description"] = self.json("")
            else:
                end = self.text.index(")", self.at)
                schema["description"], self.at = self.text[self.at : end], end
            self.take(")")
        return schema

    def core(self):
        if self.text[self.at] == '"' or self.text[self.at].isdigit():
            values = [self.json("")]
            while self.skip("|"):
                values.append(self.json(""))
            return self.rest({"type": "string" if isinstance(values[0], str) else "integer", "enum": values})
        if self.skip("["):
            items = self.schema()
            self.take("]")
            return self.rest({"type": "array", "items": items})
        if self.skip("{"):
            properties, required = self.fields("}")
            return self.rest({"type": "object", "properties": properties, "required": sorted(required)})
        kinds = re.compile(r"[a-z]+(\|[a-z]+)*").match(self.text, self.at)[0]
        self.at += len(kinds)
        if kinds == "any":
            return self.rest({})
        if kinds == "object":
            return self.rest({"type": "object", "properties": {}, "required": []})
        return self.rest({"type": kinds.split("|") if "|" in kinds else kinds})

    def rest(self, schema):
        if self.text.startswith(' {"', self.at):
            more = self.json(" ")
            if "items" in more:
                more["items"] = essence(more["items"])
            if "anyOf" in more:
                more["anyOf"] = [essence(part) for part in more["anyOf"]]
            schema |= more
        return schema

    def name(self, ends):
        if self.text[self.at] == '"':
            return self.json("")
        start = self.at
        while self.text[self.at] not in ends:
            self.at += 1
        return self.text[start : self.at]

    def json(self, before):
        self.take(before)
        value, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
        return value

    def skip(self, text):
        found = self.text.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def take(self, text):
        assert self.skip(text), f"expected {text!r} at {self.text[self.at :]!r}"


def test_no_variable_of_a_template_is_called_like_a_method_of_a_dictionary():
    """llama.cpp's engine takes `told.keys` for the method, and refuses the template."""
    folder = Path(template.__file__).parent / "templates"
    for path in folder.glob("*.jinja"):
        for inside in re.findall(r"namespace\((.*?)\)", path.read_text(encoding="utf-8")):
            assert not set(re.findall(r"(\w+)=", inside)) & set(dir(dict)), path.name
