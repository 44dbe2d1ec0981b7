"""The data page: its numbers are those of the data, and what records say stays text."""

import hashlib
import re

import pytest

from callwright.chat.tokens import tokenize_example
from callwright.data.curate import curate
from callwright.data.records import Example
from callwright.data.split import split
from callwright.models.load import load_tokenizer
from callwright.report import data_figures, data_page

from fixtures_report import Balance  # isort: skip

HOSTILE = "<script>alert(1)</script></pre>"
SETTINGS = {
    "toolset": "tools.yaml",
    "data": {"source": "examples", "path": "data.jsonl", "examples": 60, "max_tokens": 300, "seed": 42, "negatives": 0},
    "split": {"valid": 0.1, "test": 0.1, "unseen_tools": 0.1, "seed": 42},
}


def words(number):
    digest = hashlib.sha256(str(number).encode()).hexdigest().translate(str.maketrans("0123456789", "ghijklmnop"))
    return f"{digest[:6]} {digest[6:12]} {digest[12:20]} {digest[20:30]}"


def example(number, **changes):
    properties = {"key": {"type": "string"}, "count": {"type": "integer"}}
    tool = {
        "type": "function",
        "function": {"name": f"tool_{number % 12}", "description": f"Tool {HOSTILE}.",
                     "parameters": {"type": "object", "properties": properties, "required": ["key"]}},
    }  # fmt: skip
    call = {"name": f"tool_{number % 12}", "arguments": {"key": "k7" if number == 5 else words(number)[:6]}}
    row = {
        "id": f"e{number}", "messages": [{"role": "user", "content": f"{words(number)} {HOSTILE}"}], "tools": [tool],
        "calls": [call], **changes,
    }  # fmt: skip
    return Example.from_row(row)


@pytest.fixture(scope="module")
def made(model_folder):
    tokenizer = load_tokenizer(model_folder)
    records = [example(number) for number in range(80)]
    records += [example(3, id="again"), example(90, messages=[{"role": "user", "content": "word " * 400}])]
    examples, rejections, ledger = curate(
        ((e.id, e) for e in records), SETTINGS, lambda e: len(tokenize_example(tokenizer, e)["input_ids"])
    )
    sets, manifest = split(examples, SETTINGS)
    tokens = {name: [tokenize_example(tokenizer, e) for e in found] for name, found in sets.items()}
    return {
        "run": "tiny", "settings": SETTINGS, "ledger": ledger, "rejections": rejections, "manifest": manifest,
        "sets": sets, "tokens": tokens, "tokenizer": tokenizer,
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(made):
    return data_page.render(**made)


def test_the_page_is_whole_and_holds_no_script(page):
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.scripts == 0
    assert parser.references.count("../report.html") == 1
    assert all(re.match("#|data:|[.][.]/", reference) for reference in parser.references)
    assert page.count("<svg") == 2 + len(data_figures.DISTRIBUTIONS)
    assert "&lt;script&gt;alert(1)" in page


def test_the_same_data_give_the_same_page(made, page):
    assert data_page.render(**made) == page


def test_several_files_are_named_as_one_is(made, page):
    data = {**SETTINGS["data"], "path": ["data.jsonl", "more.jsonl"]}
    found = data_page.render(**{**made, "settings": {**SETTINGS, "data": data}})
    assert "(data.jsonl)" in page
    assert "(data.jsonl, more.jsonl)" in found


def test_the_numbers_are_those_of_the_data(made, page):
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    ledger = made["ledger"]
    assert ledger["rejected"]["duplicate"] == ledger["rejected"]["too_long"] == 1
    assert f"82 records came in, {ledger['kept']} were kept" in plain
    assert re.search(r"duplicate 1 81 ", plain)
    assert "as in e3" in plain
    sizes = {name: len(found) for name, found in made["sets"].items()}
    lengths = sorted(len(row["input_ids"]) for row in made["tokens"]["train"])
    assert f"train {sizes['train']} {sizes['train']} 0 0 " in plain
    assert (
        f"train {lengths[len(lengths) // 2]} {lengths[int(0.95 * len(lengths))]} {lengths[-1]} {sum(lengths):,} "
        in plain
    )
    assert "test_unseen_tools shares no requests with training" in plain
    assert "ungrounded: 1" in plain


def test_twenty_examples_are_shown_with_their_trained_parts(made, page):
    assert page.count('<details class="record"') == data_page.SHOWN
    assert page.count("<mark>&lt;tool_call&gt;") == data_page.SHOWN
    shown = data_page.sample(made["sets"], made["tokens"], made["tokenizer"], seed=42)
    assert len({row["id"] for row in shown}) == data_page.SHOWN
    other = data_page.sample(made["sets"], made["tokens"], made["tokenizer"], seed=43)
    assert {row["id"] for row in other} != {row["id"] for row in shown}
    by_id = {e.id: name for name, found in made["sets"].items() for e in found}
    assert all(by_id[row["id"]] == row["set"] for row in shown)


def test_overlap_is_counted_by_content():
    near = example(1, id="near", messages=[{"role": "user", "content": words(1)[:-1] + HOSTILE}])
    sets = {"train": [example(0), example(1)], "test_seen": [example(0, id="same"), near, example(14)]}
    (row,) = data_page.overlap_rows(sets)
    assert row == {"sets": ("train", "test_seen"), "same": 1, "near": 2, "of": 3, "tools": 2, "of_tools": 3}


def test_tools_are_counted_by_set():
    rows = data_page.tool_rows({"train": [example(1), example(13)], "valid": [example(1), example(2)]})
    assert rows == [
        {"tool": "tool_1", "called": {"train": 2, "valid": 1}, "offered": 3},
        {"tool": "tool_2", "called": {"train": 0, "valid": 1}, "offered": 1},
    ]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [([], None), ([7], (7, 7, 7, 7, 7)), (list(range(1, 101)), (1, 51, 96, 100, 5050))],
)
def test_lengths_in_short(numbers, expected):
    found = data_figures.summary_of(numbers)
    assert tuple(found.values()) == (expected or (None,) * 5)


def test_figures_stand_empty_sets(made):
    figures = data_figures.draw_all(
        {"train": [], "valid": []}, {"train": [], "valid": []}, 300, made["ledger"]["before"], made["ledger"]["after"]
    )
    assert all("<svg" in text for text in figures.values())
