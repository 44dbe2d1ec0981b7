"""Records, examples and strategies that tests of the data rooms share."""

import copy
import hashlib

from hypothesis import strategies as st

from callwright.data.records import Example

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


ROW = {
    "id": "a",
    "messages": [{"role": "user", "content": "Weather in Rome?"}],
    "tools": [TOOL],
    "calls": [{"name": "get_weather", "arguments": {"city": "Rome"}}],
    "source": "test",
    "tags": ["calls:1"],
}


def changed(path, value):
    """ROW with the value at a path replaced; `...` removes it."""
    row = copy.deepcopy(ROW)
    target = row
    for step in path[:-1]:
        target = target[step]
    if value is ...:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return row


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


paths = st.sampled_from(
    [["id"], ["messages"], ["messages", 0], ["messages", 0, "content"], ["tools"], ["tools", 0],
     ["tools", 0, "function"], ["tools", 0, "function", "parameters"],
     ["tools", 0, "function", "parameters", "properties"],
     ["tools", 0, "function", "parameters", "required"], ["tools", 0, "function", "parameters", "properties", "city"],
     ["calls"], ["calls", 0], ["calls", 0, "arguments"], ["tags"], ["answer"], ["source"]]
)  # fmt: skip


def configured(examples=1000, unseen_tools=0.1, **data):
    """The part of the configuration that curation and splitting read."""
    return {
        "toolset": "tools.yaml",
        "data": {
            "source": "examples",
            "path": "data.jsonl",
            "examples": examples,
            "max_tokens": 512,
            "seed": 42,
            "negatives": 0.0,
            **data,
        },
        "split": {"valid": 0.1, "test": 0.1, "unseen_tools": unseen_tools, "seed": 42},
    }


def example(number, query=None, city="Rome", **changes):
    """A record that differs from ROW in its id, its request and its argument; no two requests are near copies."""
    row = copy.deepcopy(ROW)
    row["id"] = f"e{number}"
    words = hashlib.sha256(str(number).encode()).hexdigest().translate(str.maketrans("0123456789", "ghijklmnop"))
    row["messages"][0]["content"] = (
        query or f"Weather in {city}? {words[:6]} {words[6:12]} {words[12:20]} {words[20:30]}"
    )
    row["calls"][0]["arguments"]["city"] = city
    return Example.from_row({**row, **changes})


def named(examples):
    return [(f"data:{number}", record) for number, record in enumerate(examples, 1)]


def tool(name, description, **parameters):
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


WEATHER = tool("get_weather", "Weather of a city.", city={"type": "string"})


STOCK = tool("stock_price", "Price of a share.", symbol={"type": "string"})


FORECAST = tool("forecast", "The weather of the next days.", city={"type": "string"})


POEM = tool("write_poem", "Writes verses.", topic={"type": "string"})


def asking(query, *tools, name="get_weather", **arguments):
    row = {
        "id": query,
        "messages": [{"role": "user", "content": query}],
        "tools": list(tools),
        "calls": [{"name": name, "arguments": arguments}],
        "tags": ["calls:1", "flag:ungrounded"],
    }
    return Example.from_row(row)


def mutated(row):
    """A row with one of its values, at any depth, replaced by any other."""
    paths = []

    def walk(value, path):
        paths.append(path)
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
        for key, inner in items:
            walk(inner, (*path, key))

    walk(row, ())

    def replaced(path, new, value=row):
        if not path:
            return new
        copy = dict(value) if isinstance(value, dict) else list(value)
        copy[path[0]] = replaced(path[1:], new, value[path[0]])
        return copy

    return st.builds(replaced, st.sampled_from(paths), json_values)
