"""`callwright evaluate`: a model's answers to requests of one's own, as they would be served."""

import json

import pytest
from fixtures_encoder import Words, make_encoder
from fixtures_serve import make_folder

from callwright import cli
from callwright.evals import tool_encoder
from callwright.evals.threshold import DECISION
from callwright.evals.tool_encoder import FILE, Scales, save, untrained
from callwright.runtime.files import read_jsonl, write_json

TOOLS = """
tools:
  - name: now
    description: Tell the time.
    parameters: {type: object, properties: {place: {type: string}}, required: [place]}
  - name: stop
    description: Stop the clock.
    parameters: {type: object, properties: {}}
requests:
  - say: What time is it in Rome?
    calls: [{now: {place: Rome}}]
  - say: I like clocks
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("evaluated"))


@pytest.mark.parametrize(("decided", "condition"), [
    (None, "tuned_grammar"),
    ({"threshold": 1.0, "temperature": 1.0}, "tuned_threshold"),
    ({"threshold": 1.0, "temperature": 1.0, "grounding": "ask", "tool_encoder": {"weight": 1.0}}, "tuned_served"),
])  # fmt: skip
def test_requests_are_answered_as_they_would_be_served(folder, tmp_path, monkeypatch, capsys, decided, condition):
    monkeypatch.setattr(tool_encoder, "open_encoder", lambda: (make_encoder(), Words()))
    (folder / DECISION).unlink(missing_ok=True)
    if decided:
        write_json(folder / DECISION, decided)
        encoder, _, heads = untrained(0)
        save(folder / FILE, encoder, heads, Scales(10.0, 4.0, 10.0, 4.0, whole=10.0, tool_words=5.0, request_words=5.0))
    (tmp_path / "clock.yaml").write_text(TOOLS)
    out = tmp_path / "answers.jsonl"
    given = ["evaluate", str(tmp_path / "clock.yaml"), "--model", str(folder), "--wrong", "--out", str(out)]
    assert cli.main([*given, "--max-tokens", "40"]) == 0
    said, rows = capsys.readouterr().out, list(read_jsonl(out))
    assert [row["id"] for row in rows] == ["clock:1", "clock:2"]
    assert {row["condition"] for row in rows} == {condition}
    assert "ast by calls" in said
    if decided:  # what is never sure enough calls nothing
        assert "): What time is it in Rome?" in said
        assert 'wanted: now {"place": "Rome"}' in said
        assert "made:   no call:" in said
    assert cli.main(["score", "--examples", str(tmp_path / "clock.yaml"), "--generations", str(out)]) == 0
    assert condition in capsys.readouterr().out


def test_the_answers_say_which_tools_were_shown_where_a_tool_encoder_chose_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tool_encoder, "open_encoder", lambda: (make_encoder(), Words()))
    decided = {"threshold": 0.0, "temperature": 1.0, "grounding": "ask"}
    encoder, _, heads = untrained(0)
    save(folder / FILE, encoder, heads, Scales(10.0, 4.0, 10.0, 4.0, whole=10.0, tool_words=5.0, request_words=5.0))
    (tmp_path / "clock.yaml").write_text(TOOLS)
    found = {}
    for most in (None, 1):
        write_json(folder / DECISION, {**decided, "tool_encoder": {"weight": 1.0, "offered": most}})
        given = ["evaluate", str(tmp_path / "clock.yaml"), "--model", str(folder), "--out", str(tmp_path / "a.jsonl")]
        assert cli.main([*given, "--max-tokens", "40"]) == 0
        found[most] = list(read_jsonl(tmp_path / "a.jsonl"))
    for whole, short in zip(found[None], found[1], strict=True):
        assert "offered" not in whole
        assert short["offered"] in (["now"], ["stop"])
        assert short["prompt_tokens"] < whole["prompt_tokens"]
        assert short["prompt_sha256"] != whole["prompt_sha256"]
        assert f'"name":"{short["offered"][0]}"' in short["text"].replace(" ", ""), "no other tool can be called"
    audited = ["audit", "--examples", str(tmp_path / "clock.yaml"), "--generations", str(tmp_path / "a.jsonl")]
    assert cli.main([*audited, "--model", str(folder)]) == 0, "the prompts are those that were given"


def test_requests_that_are_not_there_are_said_before_a_model_is_loaded(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml does not exist" in capsys.readouterr().err
    (tmp_path / "odd.yaml").write_text(json.dumps({"requests": []}))
    assert cli.main(["evaluate", str(tmp_path / "odd.yaml")]) == 1
    assert "odd.yaml" in capsys.readouterr().err
