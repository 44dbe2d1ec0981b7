"""A file of corrections: appended to by many, read whatever happened to it, split once and for all."""

import json
import threading

import pytest
from fixtures_corrections import TOOL

from callwright.data import corrections
from callwright.data.corrections import HELD_BACK, CorrectionStore, read
from callwright.data.own_suites import kept_corrections
from callwright.data.records import Example, RecordError


def row(ask, kind="call", **more):
    made = {"messages": [{"role": "user", "content": ask}], "tools": [TOOL], "kind": kind,
            "calls": [{"name": "order", "arguments": {"drink": "tea"}}] if kind == "call" else []}  # fmt: skip
    return {**made, **more}


@pytest.fixture
def store(tmp_path):
    return CorrectionStore(tmp_path / "corrections.jsonl")


def test_what_is_added_is_an_example(store):
    made = store.add(row("A tea", answered={"calls": [], "content": "no"}))
    asked = store.add(row("A drink", "ask", answer="Which one?"))
    declined = store.add(row("A poem", "decline"))
    found = read(store.path)
    assert [c.id for c in found.corrections] == [made.id, asked.id, declined.id]
    assert [c.example.answer for c in found.corrections] == [
        None,
        "Which one?",
        "I can't do that with the tools I have.",
    ]
    assert found.corrections[0].example.calls == [{"name": "order", "arguments": {"drink": "tea"}}]
    assert found.corrections[0].answered == {"calls": [], "content": "no"}
    assert found.rejected == []


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (row("A", "maybe"), "kind"),
        (row("A", calls=[]), "kind 'call' has no call"),
        (row("A", "ask"), "needs a question"),
        (row("A", calls=[{"name": "brew", "arguments": {}}]), "not listed"),
        (row("A", calls=[{"name": "order", "arguments": {}}]), "lacks 'drink'"),
        (row("A", calls=[{"name": "order", "arguments": {"drink": 3}}]), "3 is not of type"),
        (row("A", tools=[]), "lists no tool"),
        (row(" "), "request"),
    ],
)
def test_what_cannot_be_used_is_not_written(store, wrong, reason):
    with pytest.raises(RecordError, match=reason):
        store.add(wrong)
    assert not store.path.exists()


def test_undo_and_correcting_again(store):
    first, second = store.add(row("A tea")), store.add(row("a TEA!", "decline"))
    assert [c.id for c in read(store.path).corrections] == [second.id]
    store.undo(second.id)
    found = read(store.path)
    assert found.corrections == []
    assert [(r["id"], r["rule"]) for r in found.rejected] == [(first.id, "replaced"), (second.id, "undone")]
    with pytest.raises(RecordError, match="no correction"):
        store.undo(second.id)


def test_a_cut_line_costs_itself_alone(store):
    first = store.add(row("A tea"))
    whole = store.path.read_bytes()
    with open(store.path, "ab") as stream:
        stream.write(whole[: len(whole) // 2])
    found = read(store.path)
    assert [c.id for c in found.corrections] == [first.id]
    assert found.rejected[0]["id"] == "corrections.jsonl:2"
    assert "the line is cut" in found.rejected[0]["reason"]
    second = store.add(row("A coffee"))  # begins on a line of its own
    assert [c.id for c in read(store.path).corrections] == [first.id, second.id]


def test_a_file_edited_by_hand(store):
    first = store.add(row("A tea"))
    text = store.path.read_text()
    store.path.write_text("\n\n" + text + '[1]\n{"id": "x"}\n"tea"\n{"undo": "y"}\n\xff\n', encoding="latin-1")
    found = read(store.path)
    assert [c.id for c in found.corrections] == [first.id]
    assert [r["id"].split(":")[1] for r in found.rejected] == ["4", "5", "6", "7", "8"]


def test_a_byte_order_mark_costs_no_line(store):
    first = store.add(row("A tea"))
    store.path.write_text(store.path.read_text(), encoding="utf-8-sig")
    found = read(store.path)
    assert [c.id for c in found.corrections] == [first.id]
    assert not found.rejected


def test_many_add_at_once_and_none_is_lost(store):
    def add(name):
        for number in range(20):
            CorrectionStore(store.path).add(row(f"{name} wants the tea number {chr(97 + number)}"))

    threads = [threading.Thread(target=add, args=(name,)) for name in ("Ann", "Bob", "Cem")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(store.path)
    assert (len(found.corrections), found.rejected) == (60, [])
    assert len(found.trained) + len(found.kept_back) == 60
    assert 5 <= len(found.kept_back) <= 27  # a quarter, as hashes fall
    assert kept_corrections({"corrections": str(store.path)}) == len(found.kept_back)


def test_what_a_test_has_is_never_trained(store):
    texts = [f"tea for desk {a}{b}" for a in "abcdef" for b in "ghi"]
    for text in texts:
        store.add(row(text))
    found = read(store.path)
    item = Example.from_row(
        {"id": "t", **{k: v for k, v in found.trained[0].row.items() if k in ("messages", "tools", "calls")}}
    )
    trained, kept, rejected = corrections.curated(found, [item])
    assert found.trained[0].id in {r["id"] for r in rejected if r["rule"] == "test_item"}
    assert len(trained) == len(found.trained) - 1
    assert {e.query for e in kept} == {c.example.query for c in found.kept_back}
    assert corrections.curated(found, [], lambda e: False)[0] == []
    many = corrections.repeated(trained, 3)
    assert len({e.id for e in many}) == len(many) == 3 * len(trained)


def test_settings():
    assert corrections.settings_of({"corrections": None}) == {"path": None, "repeat": 3}
    assert corrections.settings_of({"corrections": "a.jsonl"}) == {"path": "a.jsonl", "repeat": 3}
    assert corrections.settings_of({"corrections": {"path": "a", "repeat": 5}}) == {"path": "a", "repeat": 5}
    assert 0 < HELD_BACK < 1


def test_the_ledger_counts_every_line(store):
    store.add(row("A tea"))
    store.undo(store.add(row("A cup of coffee")).id)
    found = read(store.path)
    trained, _, rejected = corrections.curated(found, [])
    made = corrections.ledger(found, trained, rejected, "c.jsonl", 3)
    assert json.loads(json.dumps(made)) == made
    assert made["trained"] + made["kept_back"] == len(made["corrections"]) == 1
    assert [r["rule"] for r in made["rejected"]] == ["undone"]
