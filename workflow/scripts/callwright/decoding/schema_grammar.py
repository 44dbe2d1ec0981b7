"""JSON Schema as rules of a Lark grammar for `llguidance`: values on one line, as `chat.formats` or Python writes them.

`llguidance` compiles schemas itself, but lets an object's keys come in the schema's order only; an answer with the
same arguments in another order is as right, and a model that was trained on such answers must be able to write it.
Here keys come in any order, each once, the required ones all: a rule's parameter is a set of bits, one for each key
written so far. Numbers have a bounded number of digits, and there is no white space to lose oneself in. What asks for
more than types, enumerations and nesting (patterns, ranges, references) goes to `llguidance`'s own compiler, and what
that refuses becomes any value.
"""

import json
import re
from typing import Any

from llguidance import LLMatcher

from callwright.chat.formats import to_json
from callwright.data import schema as json_schema

# Strings hold their characters as they are, and escapes for those that JSON allows in no other way; none may hold the
# end of a call, where a server would cut it. 19 digits before the point hold every 64-bit integer, 20 behind it every
# number as Python writes it.
JSON_STRING = r'/"([^"\\\x00-\x1f]|\\(["\\\/bfnrt]|u00[01][0-9A-Fa-f]))*"/'
PYTHON_STRING = r"/'([^'\\\x00-\x1f]|\\['\\nrt])*'/"
TERMINALS = r"""
STRING: %STRING% & ~/(.|\n)*%END%(.|\n)*/
INTEGER: /-?(0|[1-9][0-9]{0,18})/
NUMBER: /-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?/
any: STRING | NUMBER | %WORDS% | any_list | any_object
any_list: "[" (any (%COMMA% any)*)? "]"
any_object: "{" (any_pair (%COMMA% any_pair)*)? "}"
any_pair: STRING %COLON% any
"""
PLAIN = {"string": "STRING", "integer": "INTEGER", "number": "NUMBER"}
# What Python calls the words of JSON; in calls written as Python both are read.
WORDS = {"true": "True", "false": "False", "null": "None"}
# Keywords that are not translated here but left to llguidance.
LEFT = {
    "$ref", "$dynamicRef", "allOf", "not", "if", "then", "else", "pattern", "minLength", "maxLength", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems", "contains", "minContains",
    "maxContains", "patternProperties", "propertyNames", "minProperties", "maxProperties", "dependentRequired",
    "dependentSchemas", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
# Keywords under which other schemas look at the same object.
PARTS = {"allOf", "anyOf", "oneOf", "if", "dependentSchemas", "$ref"}
MOST_KEYS = 64  # bits of a rule's parameter
MOST_ITEMS = 1000

EMPTY = '""'

Schema = dict[str, Any] | bool


class Rules:
    """The rules of a grammar as they are made; `refused` lists what became any value, and why.

    kind: how arguments are written, as in `call_format.CallLayout`: "json", "compact", "python". end: what no text may
    hold, since a reader would take it for the end of the call; "" for nothing.
    """

    def __init__(self, kind: str = "json", end: str = "</tool_call>") -> None:
        self.python, self.end = kind == "python", end
        self.item_separator, self.key_separator = (",", ":") if kind == "compact" else (", ", ": ")
        self.comma, self.colon = literal(self.item_separator), literal(self.key_separator)
        self.lines: list[str] = []
        self.refused: list[str] = []
        self.names: dict[str, str] = {}
        self.count = 0

    def text(self) -> str:
        """All rules so far, and the terminals that they use."""
        string = f"({JSON_STRING} | {PYTHON_STRING})" if self.python else JSON_STRING
        words = " | ".join(self.word(word) for word in WORDS)
        text = TERMINALS.replace("%STRING%", string).replace("%WORDS%", words)
        text = text.replace("%COMMA%", self.comma).replace("%COLON%", self.colon)
        text = (
            text.replace("%END%", as_regex(self.end)) if self.end else text.replace(" & ~/(.|\\n)*%END%(.|\\n)*/", "")
        )
        return "\n".join([*self.lines, text])

    def word(self, word: str) -> str:
        """true, false or null."""
        return literal(word) + (f" | {literal(WORDS[word])}" if self.python else "")

    def constant(self, value: Any) -> str:
        """One value as it may be written."""
        text = json.dumps(value, ensure_ascii=False, separators=(self.item_separator, self.key_separator))
        texts = [text, repr(value)] if self.python else [text]
        return " | ".join(dict.fromkeys(map(literal, texts)))

    def key(self, name: str, keyword: bool = False) -> str:
        """A key and what is between it and its value; `keyword`: of a call written as Python."""
        if keyword:
            return literal(f"{name}=")
        return f"({self.constant(name)}) {self.colon}" if self.python else literal(to_json(name) + self.key_separator)

    def add(self, body: str, parameter: str = "") -> str:
        """A new rule; returns its name."""
        self.count += 1
        name = f"r{self.count}"
        self.lines.append(f"{name}{parameter}: {body}")
        return name

    def arguments(self, parameters: dict[str, Any]) -> str:
        """The rule for a call's arguments; as in `data.schema.validate`, only listed ones unless the schema says so."""
        if self.python:  # what a schema says of several arguments together cannot be said of these
            return self.object({"properties": {}, **parameters}, parameters, closed=True, keyword=True)
        if set(parameters) & (LEFT | PARTS):
            # Where other schemas look at the same object, its properties are not all that are listed.
            listed = isinstance(parameters.get("properties"), dict) and not set(parameters) & PARTS
            closed = {"additionalProperties": False} if listed else {}
            return self.by_llguidance({**closed, **parameters, "type": "object"}, parameters)
        return self.object(parameters, parameters, closed=True)

    def value(self, schema: Schema, root: Schema) -> str:
        """The rule for a value of `schema`; `root` holds what its references point to. Equal schemas share a rule."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self.names:
            self.names[key] = self._value(schema, root)
        return self.names[key]

    def _value(self, schema: Schema, root: Schema) -> str:
        if isinstance(schema, bool) or not schema:
            return "any"
        asserted = {name for name in schema if schema[name] is not None and schema[name] is not False} & LEFT
        if asserted:
            return self.by_llguidance(schema, root)
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return self.add(" | ".join(dict.fromkeys(self.constant(value) for value in allowed(values, schema))))
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.add(" | ".join(self.value(without(schema, union, case), root) for case in schema[union]))
        kinds = schema.get("type")
        if kinds is None:
            kinds = "object" if "properties" in schema else "array" if "items" in schema else None
        if isinstance(kinds, list):
            return self.add(" | ".join(self.value({**schema, "type": kind}, root) for kind in kinds))
        if kinds == "object":
            return self.object(schema, root) if schema.get("properties") else self.map(schema, root)
        if kinds == "array":
            return self.list(schema, root)
        if kinds in ("boolean", "null"):
            return self.add(" | ".join(map(self.word, ["true", "false"] if kinds == "boolean" else ["null"])))
        return self.add(PLAIN[kinds]) if kinds in PLAIN else "any"

    def object(self, schema: dict[str, Any], root: Schema, closed: bool = False, keyword: bool = False) -> str:
        """An object with listed keys, in any order, each at most once; others too, unless it is `closed` or says so.

        keyword: the arguments of a call written as Python, without what is around them.
        """
        begin, end = ("", "") if keyword else ('"{"', '"}"')
        listed = schema.get("properties")
        if listed is None:
            return self.map(schema, root)
        required = [name for name in dict.fromkeys(schema.get("required") or []) if listed.get(name) is not False]
        names = [*required, *(name for name in listed if name not in required and listed[name] is not False)]
        more = schema.get("additionalProperties", not closed)
        if keyword:
            more = False
            if len(names) > MOST_KEYS:
                self.refused.append(f"{len(names)} parameters: only the first {MOST_KEYS} are allowed in this form")
                names, required = names[:MOST_KEYS], required[:MOST_KEYS]
        if len(names) > MOST_KEYS:
            return self.by_llguidance(schema, root)
        if not names:
            return self.map(schema, root) if more is not False else self.add(f"{begin} {end}".strip() or '""')
        # Bit n of the parameter: key n was written. The required keys come first, so that they are bits 0 to len - 1.
        entry, following = self.reserve(), self.reserve()
        pairs = [
            f"{self.key(name, keyword)} {self.value(listed.get(name, True), root)} "
            f"{following}::set_bit({bit}) %if bit_clear({bit})"
            for bit, name in enumerate(names)
        ]
        if more is not False:
            others = self.reserve().upper()
            keys = " | ".join(literal(to_json(name)) for name in names)
            self.lines.append(f"{others}: STRING & ~({keys})")
            pairs.append(f"{others} {self.colon} {self.value(more, root)} {following}::_")
        self.lines.append(f"{entry}::_: " + " | ".join(pairs))
        # A comma only where some key is left, so that there is always a way on.
        another = f"{self.comma} {entry}::_" + ("" if more is not False else f" %if not(is_ones([0:{len(names)}]))")
        done = f"{end or EMPTY} %if is_ones([0:{len(required)}])" if required else end or EMPTY
        self.lines.append(f"{following}::_: {done} | {another}")
        empty = "" if required else f"{end or EMPTY} | "
        return self.add(f"{begin} ({empty}{entry}::0x0)".strip())

    def map(self, schema: dict[str, Any], root: Schema) -> str:
        """An object whose keys are not listed."""
        inner = schema.get("additionalProperties", True)
        if inner is False:
            return self.add('"{" "}"')
        if inner is True or not inner:
            return "any_object"
        pair = self.add(f"STRING {self.colon} {self.value(inner, root)}")
        return self.add(f'"{{" ({pair} ({self.comma} {pair})*)? "}}"')

    def list(self, schema: dict[str, Any], root: Schema) -> str:
        """A list, its first items by `prefixItems`, the others by `items`."""
        first = schema.get("prefixItems") or []
        least, most = schema.get("minItems") or 0, schema.get("maxItems")
        if first:
            exact = least == len(first) == most or (least == len(first) and schema.get("items") is False)
            if not exact:
                return self.by_llguidance(schema, root)
            return self.add('"[" ' + f" {self.comma} ".join(self.value(item, root) for item in first) + ' "]"')
        if max(least, most or 0) > MOST_ITEMS:
            return self.by_llguidance(schema, root)
        if most == 0:
            return self.add('"[" "]"')
        item = self.value(schema.get("items", True), root)
        bounds = f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        filled = f"{item} ({self.comma} {item}){bounds}"
        return self.add(f'"[" {filled} "]"' if least else f'"[" ({filled})? "]"')

    def by_llguidance(self, schema: dict[str, Any], root: Schema) -> str:
        """A rule that llguidance makes of a schema; any value of its type where it refuses."""
        spacing = {"item_separator": self.item_separator, "key_separator": self.key_separator}
        whole = {**schema, "x-guidance": {**spacing, "whitespace_flexible": False}}
        for definitions in ("$defs", "definitions"):
            if isinstance(root, dict) and definitions in root:
                whole[definitions] = root[definitions]
        problem = json_schema.problem(schema)
        if problem is None:
            problem = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(f"start: %json {json.dumps(whole)}"))
            if not problem or problem.startswith("WARNING"):
                return self.add(f"%json {json.dumps(whole)}")
        self.refused.append(problem.strip().splitlines()[0][:160])
        return "any_object" if schema.get("type") == "object" else "any"

    def reserve(self) -> str:
        """A name for a rule that is written later."""
        self.count += 1
        return f"r{self.count}"


def without(schema: dict[str, Any], union: str, case: Schema) -> Schema:
    """One case of a union, with what stands beside it (`type`, `properties` …) where the case does not say."""
    if isinstance(case, bool):
        return case
    beside = {key: part for key, part in schema.items() if key not in (union, "default", "description", "title")}
    return {**beside, **case}


def allowed(values: list[Any], schema: dict[str, Any]) -> list[Any]:
    """The values of an enumeration that are of the schema's type; all of them where none is."""
    fitting = [value for value in values if fits(value, schema)]
    return fitting or values


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value satisfies a schema."""
    wanted = {"type": "object", "properties": {"value": schema}}
    return json_schema.validate({"value": value}, wanted) is None


def as_regex(text: str) -> str:
    """A text as part of a regular expression of the grammar."""
    return re.sub(r"([\\.+*?()|\[\]{}^$/])", r"\\\1", text).replace("\n", r"\n")


def literal(text: str) -> str:
    """A text as a string of the grammar."""
    return json.dumps(text)
