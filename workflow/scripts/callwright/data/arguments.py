"""Do a call's arguments satisfy its tool's schema? The one answer for curation, the scorer, the server and the agent.

What JSON Schema says decides, and one thing more: an argument that the schema neither lists nor admits by a rule is
wrong, where JSON Schema itself would let it pass. `{"type": "object"}` lists none, and so takes none.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import jsonschema
import orjson
import referencing
import referencing.exceptions
import regex

# By gravity; what a keyword of JSON Schema complains about, any other one being about the value.
LABELS = ("hallucinated_argument", "missing_argument", "wrong_type", "wrong_value")
_BY_KEYWORD = {"required": "missing_argument", "additionalProperties": "hallucinated_argument", "type": "wrong_type"}
# An own, empty registry: a `$ref` to a web address must never be fetched.
_NO_REMOTE_SCHEMAS = referencing.Registry()
_UNUSABLE = (jsonschema.exceptions.UnknownType, referencing.exceptions.Unresolvable, re.error, TypeError)
# Where a pattern may repeat a repetition: `)+`, `)*`, `){`. Only regex's search can be stopped, re's cannot.
_REPEATED_GROUP = re.compile(r"\)[+*{]")
PATTERN_SECONDS = 1.0

Violation = tuple[str, str]


class UnusableSchema(ValueError):
    """A schema that cannot be applied to any arguments."""


def violations(arguments: dict[str, Any], parameters: dict[str, Any]) -> Iterator[Violation]:
    """What is wrong with arguments by the tool's schema: `(one of LABELS, a sentence)` each, names that are not listed
    first. Raises UnusableSchema.
    """
    for name in unlisted(arguments, parameters):
        yield "hallucinated_argument", f"the argument {name[:60]!r} is not a parameter"
    try:
        for error in validator(parameters).iter_errors(arguments):
            where = ".".join(map(str, error.absolute_path)) or "the arguments"
            yield _label(error), f"{where[:60]}: {error.message[:160]}"
    except OverflowError:  # an integer beyond float64 under `multipleOf: 0.5`
        yield "wrong_value", "the schema cannot be applied (OverflowError)"
    except _UNUSABLE as error:
        raise UnusableSchema(f"{type(error).__name__}: {error}") from error
    except BaseException as error:
        if not too_deep(error):
            raise
        yield "wrong_value", "the schema cannot be applied (RecursionError)"


def too_deep(error: BaseException) -> bool:
    """Whether jsonschema ran out of stack, which its library of hash maps, written in Rust, reports as a panic when it
    is the one to reach Python's limit. A panic is a BaseException of a module that cannot be imported.
    """
    return isinstance(error, RecursionError) or (
        type(error).__module__ == "pyo3_runtime" and "RecursionError" in str(error)
    )


def unlisted(arguments: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """The names of given arguments that the schema neither lists nor admits by a rule."""
    names: set[str] = set()
    patterns: list[str] = []
    for part in _in_place(parameters):
        for rule in ("additionalProperties", "unevaluatedProperties"):
            if part.get(rule, False) is not False:
                return []
        if isinstance(part.get("properties"), dict):
            names |= part["properties"].keys()
        if isinstance(part.get("patternProperties"), dict):
            patterns += part["patternProperties"]
    try:
        return [name for name in arguments
                if name not in names and not any(_found(pattern, name) for pattern in patterns)]  # fmt: skip
    except re.error as error:
        raise UnusableSchema(f"{type(error).__name__}: {error}") from error
    except TimeoutError as error:
        raise UnusableSchema(_endless(" or ".join(patterns))) from error


def _in_place(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all of those in it that look at the same object."""
    waiting, seen = [parameters], set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        for key in ("allOf", "anyOf", "oneOf"):
            waiting += part[key] if isinstance(part.get(key), list) else []
        waiting += [part[key] for key in ("if", "then", "else") if key in part]
        if isinstance(part.get("dependentSchemas"), dict):
            waiting += part["dependentSchemas"].values()
        reference = part.get("$ref")
        if (
            isinstance(reference, str)
            and reference.startswith("#/$defs/")
            and isinstance(parameters.get("$defs"), dict)
        ):
            waiting.append(parameters["$defs"].get(reference.removeprefix("#/$defs/")))


def _label(error: jsonschema.ValidationError) -> str:
    if error.context:  # anyOf, oneOf: a wrong type only if no alternative got past the type
        return "wrong_type" if all(part.validator == "type" for part in error.context) else "wrong_value"
    return _BY_KEYWORD.get(error.validator, "wrong_value")


def validator(parameters: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """The validator of a schema; those of the last schemas are kept."""
    try:
        return _validator(orjson.dumps(parameters))
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        return _Validator(parameters, registry=_NO_REMOTE_SCHEMAS)


@lru_cache(maxsize=8192)
def _validator(key: bytes) -> jsonschema.Draft202012Validator:
    return _Validator(orjson.loads(key), registry=_NO_REMOTE_SCHEMAS)


def _pattern(
    of: jsonschema.Draft202012Validator, pattern: str, value: Any, schema: dict[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """The keyword `pattern`, given up where a repeated group, as in `(a+)+$`, would be tried for hours."""
    try:
        if isinstance(value, str) and not _found(pattern, value):
            yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")
    except TimeoutError:
        yield jsonschema.ValidationError(_endless(pattern))


def _found(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text; raises TimeoutError where a repeated group takes too long, and re.error."""
    if _REPEATED_GROUP.search(pattern):
        try:
            return bool(regex.search(pattern, text, timeout=PATTERN_SECONDS))
        except regex.error:  # what Python's own compiles and this library does not
            pass
    return bool(re.search(pattern, text))


def _endless(pattern: str) -> str:
    too_long = f"the pattern {pattern[:60]!r} takes more than {PATTERN_SECONDS} s"
    return f"{too_long}; write it without a repetition within a repetition"


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
