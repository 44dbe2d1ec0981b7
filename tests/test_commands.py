"""The command line: what it prints, what it writes, and how it ends."""

import functools
import json
import os
import re
import subprocess
import sys

import pytest

from callwright.chat.formats import encode_calls
from callwright.cli import main
from callwright.commands import shared
from callwright.data.curate import curate
from callwright.data.records import Example
from callwright.data.sources import read_records
from callwright.evals.scoring.score import STAGES
from callwright.evals.statistics import wilson
from callwright.runtime.files import read_json, read_jsonl, write_jsonl


def tool(name="weather"):
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": f"The {name}.", "parameters": parameters}}


WORDS = ["amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "lagoon"]


def example(number, **changes):
    word = WORDS[number % len(WORDS)]
    return {
        "id": f"e{number}",
        "messages": [{"role": "user", "content": f"{word * 3} in {word}{number}, please?"}],
        "tools": [tool()],
        "calls": [{"name": "weather", "arguments": {"city": f"{word}{number}"}}],
        **changes,
    }


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch):
    """Each folder's tokenizer is opened once for all tests."""
    monkeypatch.setattr(shared, "open_tokenizer", OPENED)


OPENED = functools.cache(shared.open_tokenizer)


@pytest.fixture
def files(tmp_path):
    """Ten examples, and right, wrong and cut answers to them."""
    examples = [example(number) for number in range(10)]
    write_jsonl(tmp_path / "items.jsonl", examples)
    for condition, right in (("base", 2), ("tuned", 8)):
        rows = [
            {"id": e["id"], "suite": "items", "condition": condition, "finish_reason": "stop",
             "text": encode_calls(e["calls"]) if number < right else "I do not know."}
            for number, e in enumerate(examples)
        ]  # fmt: skip
        write_jsonl(tmp_path / f"{condition}.jsonl", rows)
    return tmp_path


def run(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def command(*arguments, **more):
    return [sys.executable, "-m", "callwright.cli", *map(str, arguments)]


def environment(root):
    return {**os.environ, "PYTHONPATH": str(root / "workflow" / "scripts")}


# -- the command itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["curate", "--help"], ["inspect", "--help"], ["audit", "--help"]])
def test_help_has_examples_and_loads_neither_model_nor_numpy(root, tmp_path, arguments):
    code = (
        "import sys\nfrom callwright.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'mlx', 'numpy', 'transformers', 'matplotlib'} & sys.modules.keys()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(root), capture_output=True, text=True, check=True
    )
    assert "examples:\n  callwright " in result.stdout


def test_errors_are_one_line_and_a_status(files, capsys):
    status, out, err = run(capsys, "score", "--examples", files / "no.jsonl", "--generations", files / "base.jsonl")
    assert (status, out) == (1, "")
    assert err == f"callwright: {files / 'no.jsonl'} does not exist\n"
    for wrong in (["curate", "a"], ["nothing"], []):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2


def test_a_reader_that_has_enough_ends_it_quietly(root, files):
    writer = subprocess.Popen(
        command("score", "--examples", files / "items.jsonl", "--generations", files / "base.jsonl"),
        env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    writer.stdout.close()
    assert writer.wait(timeout=60) == 141
    assert writer.stderr.read() == b""
    writer.stderr.close()


def test_a_table_is_aligned():
    text = shared.table(["rule", "n"], [["a", 5], ["longer", 123]], right=(1,))
    assert text.split("\n") == ["rule      n", "------  ---", "a         5", "longer  123"]


# -- curate ----------------------------------------------------------------------------------------


def test_curate_does_what_the_library_does(files, capsys):
    write_jsonl(files / "more.jsonl", [example(3, id="again"), {"nothing": 1}, example(20)])
    given = [files / "items.jsonl", files / "more.jsonl"]
    status, out, _ = run(capsys, "curate", *given, "--out", files / "out", "--examples", 10)
    assert status == 0
    settings = {
        "data": {"examples": 10, "max_tokens": 512, "seed": 42, "source": "files", "path": "x", "negatives": 0.1},
        "split": {"unseen_tools": 0, "test": 0.1},
    }
    kept, rejected, ledger = curate(read_records(given), settings)
    assert list(read_jsonl(files / "out" / "rejections.jsonl")) == rejected
    assert list(read_jsonl(files / "out" / "examples.jsonl")) == [e.to_row() for e in kept]
    assert read_json(files / "out" / "ledger.json") == ledger
    assert re.search(r"records in +13\n", out)
    assert re.search(r"unknown_format +1 +12 ", out)
    assert re.search(r"duplicate +1 +11 +7\.7% +more\.jsonl:1: as in items\.jsonl:4", out)
    assert "Lengths were not checked" in out


def test_curate_keeps_all_without_a_number_and_takes_other_settings(files, capsys):
    status, out, err = run(capsys, "curate", files / "items.jsonl", "--out", files / "out", "--set", "negatives=0")
    assert (status, err) == (0, "")
    assert "10 examples in" in out
    assert {len(row["calls"]) for row in read_jsonl(files / "out" / "examples.jsonl")} == {1}
    languages = ["--set", "languages=[de, fr]"]
    status, _, err = run(capsys, "curate", files / "items.jsonl", "--out", files / "out", *languages)
    assert status == 1
    assert "language 10 times" in err
    status, _, err = run(capsys, "curate", files / "items.jsonl", "--out", files / "out", "--set", "formatt=fenced")
    assert status == 1
    assert "did you mean 'format'?" in err
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "curate", files / "items.jsonl", "--out", files / "out", "--max-tokens", 100)
    assert "--max-tokens needs --model" in capsys.readouterr().err


def test_curate_measures_lengths_with_a_model(files, model_folder, capsys):
    options = ["--out", files / "out", "--model", model_folder, "--max-tokens", 64]
    status, _, err = run(capsys, "curate", files / "items.jsonl", *options)
    assert status == 1
    assert "too_long 10 times" in err
    status, out, _ = run(capsys, "curate", files / "items.jsonl", *options[:-1], 512)
    assert status == 0
    assert "not checked" not in out


# -- inspect ---------------------------------------------------------------------------------------


def test_inspect_marks_what_is_trained(files, model_folder, capsys, monkeypatch):
    status, out, _ = run(capsys, "inspect", files / "items.jsonl", "-n", 2, "--model", model_folder)
    assert status == 0
    first, second = (encode_calls(example(number)["calls"]) for number in (0, 1))
    assert f"⟦{first}<|im_end|>⟧" in out
    assert f"⟦{second}<|im_end|>⟧" in out
    assert re.search(r"items\.jsonl:1, id e0: \d+ tokens, \d+ trained \(\d+%\)", out)
    assert out.count("⟦") == 2
    monkeypatch.setattr(shared, "use_colour", lambda: True)
    _, out, _ = run(capsys, "inspect", files / "items.jsonl", "--id", "e1", "--model", model_folder)
    assert "\x1b[32;7m<tool_call>\x1b[0m\n" in out
    assert "⟦" not in out


def test_inspect_shows_token_rows_and_what_cannot_be_used(files, model_folder, capsys):
    from callwright.chat.tokens import tokenize_example

    row = tokenize_example(shared.open_tokenizer(model_folder), Example.from_row(example(1)))
    hostile = example(2, messages=[{"role": "user", "content": "x \x1b]0;title\x07"}])
    write_jsonl(files / "mixed.jsonl", [row, {"no": "record"}, hostile])
    status, out, err = run(capsys, "inspect", files / "mixed.jsonl", "--model", model_folder)
    assert status == 0
    assert "⟦" + encode_calls(example(1)["calls"]) in out
    assert "mixed.jsonl:2: cannot be used: unknown_format" in err
    assert "\x1b" not in out
    assert "x \\x1b]0;title\\x07" in out


def test_inspect_chooses(files, model_folder, capsys):
    drawn = [run(capsys, "inspect", files / "items.jsonl", "--random", 3, "--model", model_folder)[1] for _ in "ab"]
    assert drawn[0] == drawn[1]
    assert drawn[0].count("⟦") == 3
    assert drawn[0] != run(capsys, "inspect", files / "items.jsonl", "-n", 3, "--model", model_folder)[1]
    status, _, err = run(capsys, "inspect", files / "items.jsonl", "--id", "e77", "--model", model_folder)
    assert status == 1
    assert "no record with the id e77" in err


def test_inspect_writes_a_page(files, model_folder, capsys):
    write_jsonl(files / "bad.jsonl", [example(1, messages=[{"role": "user", "content": "<script>alert(1)</script>"}])])
    status, out, _ = run(capsys, "inspect", files / "bad.jsonl", "--model", model_folder, "--html", files / "page.html")
    assert (status, out) == (0, f"1 records in {files / 'page.html'}\n")
    page = (files / "page.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert page.count("<mark>&lt;tool_call&gt;") == 1


def test_the_only_model_is_found_and_others_are_asked_for(files, model_folder, capsys, monkeypatch):
    monkeypatch.chdir(files)
    status, _, err = run(capsys, "inspect", "items.jsonl")
    assert status == 1
    assert "name a model folder with --model" in err
    run_folder = files / "elsewhere" / "run" / "data"
    run_folder.mkdir(parents=True)
    write_jsonl(run_folder / "items.jsonl", [example(0)])
    (files / "elsewhere" / "models" / "one").mkdir(parents=True)
    (files / "elsewhere" / "models" / "one" / "mlx").symlink_to(model_folder)
    assert run(capsys, "inspect", run_folder / "items.jsonl")[0] == 0
    (files / "elsewhere" / "models" / "two" / "mlx").mkdir(parents=True)
    status, _, err = run(capsys, "inspect", run_folder / "items.jsonl")
    assert status == 1
    assert "there are 2 models" in err


# -- score -----------------------------------------------------------------------------------------


def test_score_prints_the_funnel_and_writes_it(files, capsys):
    given = ["--examples", files / "items.jsonl", "--generations", files / "base.jsonl", files / "tuned.jsonl"]
    status, out, err = run(capsys, "score", *given, "--out", files / "scored")
    assert (status, err) == (0, "")
    low, high = wilson(8, 10)
    assert f"8 of 10, 80.0 % [{100 * low:.1f}, {100 * high:.1f}]" in re.search(r"\nast .*", out)[0]
    assert re.search(r"abstained_when_should_call +8 +2\n", out)
    assert [line.split()[0] for line in out.split("\n")[4:11]] == list(STAGES)
    rows = list(read_jsonl(files / "scored" / "items" / "tuned" / "scores.jsonl"))
    assert sum(row["ast"] for row in rows) == read_json(files / "scored/items/tuned/scores.json")["counts"]["ast"] == 8
    _, only, _ = run(capsys, "score", *given, "--condition", "tuned")
    assert "base" not in only


def test_score_takes_answers_that_say_little(files, capsys):
    answers = [{"id": "e0", "text": json.dumps(example(0)["calls"])}, {"id": "e1", "text": "Hm."}]
    write_jsonl(files / "mine.jsonl", answers)
    status, out, err = run(capsys, "score", "--examples", files / "items.jsonl", "--generations", files / "mine.jsonl")
    assert status == 0
    assert re.search(r"\(lenient_ast\) +1 of 2", out)
    assert re.search(r"\nast +0 of 2", out)
    assert "2 of 2 answers have no finish_reason" in err
    assert "items, answers: 8 of 10 items are not answered and left out of all shares: e2, e3" in err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"id": "e0"}, "answers.jsonl:1: an answer needs the field 'text'"),
        ({"text": "x"}, "answers.jsonl:1: an answer needs the field 'id'"),
        ({"id": "zz", "text": "x"}, "1 ids of the answers are those of no example: zz. The examples have ids like e0"),
        ({"id": "e0", "text": "x", "condition": "a/b"}, "condition is 'a/b'"),
        ({"id": "e0", "text": "x", "suite": ""}, "suite is ''"),
        ({"id": "e0", "text": "x", "finish_reason": "why"}, "finish_reason is 'why', expected one of stop"),
        ({"id": "e0", "text": "x", "prompt": 1}, "`prompt` and `prompt_sha256` must be text"),
        ([1], "answers.jsonl:1: expected an object, found a list"),
    ],
)
def test_wrong_answers_files_are_explained(files, capsys, row, words):
    write_jsonl(files / "answers.jsonl", [row, {"id": "e1", "text": "x"}])
    given = ["--examples", files / "items.jsonl", "--generations", files / "answers.jsonl"]
    for name in ("score", "audit"):
        status, _, err = run(capsys, name, *given)
        assert status == 1
        assert words in err
        assert "Traceback" not in err


def test_items_whose_gold_breaks_their_tools_are_left_out_and_the_rest_is_scored(files, capsys):
    wrong = [{"name": "nothing", "arguments": {}}]
    rows = [example(number, calls=wrong) if number in (3, 4) else example(number) for number in range(10)]
    write_jsonl(files / "items.jsonl", rows)
    status, out, err = run(capsys, "score", "--examples", files / "items.jsonl", "--generations", files / "base.jsonl")
    assert status == 0
    assert "2 of 10 items" in err
    assert "unknown_tool 2" in err
    assert "items.jsonl:4" in err
    assert "items.jsonl:5" in err
    assert " of 8, " in out
    assert " of 10, " not in out
    status, out, err = run(capsys, "audit", "--examples", files / "items.jsonl", "--generations", files / "base.jsonl")
    assert "2 of 10 items" in err
    assert "ok           gold" in out


def test_doubles_and_unknown_conditions_are_named(files, capsys):
    given = ["--examples", files / "items.jsonl", "--generations"]
    status, _, err = run(capsys, "score", *given, files / "base.jsonl", files / "base.jsonl")
    assert status == 1
    assert "10 items are answered more than once: e0 (base), e1 (base)" in err
    status, _, err = run(capsys, "score", *given, files / "base.jsonl", "--condition", "best")
    assert status == 1
    assert "there is no condition best: the answers have base" in err
    write_jsonl(files / "odd.jsonl", [{"id": "e0", "text": "x", "condition": "gpt", "finish_reason": "stop"}])
    _, _, err = run(capsys, "score", *given, files / "odd.jsonl")
    assert "conditions that the workflow does not know, taken as they are: gpt" in err
    write_jsonl(files / "twice.jsonl", [example(1), example(1)])
    status, _, err = run(capsys, "score", "--examples", files / "twice.jsonl", "--generations", files / "base.jsonl")
    assert (status, "1 ids stand there more than once: e1" in err) == (1, True)
    write_jsonl(files / "bad.jsonl", [example(1), example(2, calls=[{"name": "nothing", "arguments": {}}])])
    strictly = ["--examples", files / "bad.jsonl", "--generations", files / "base.jsonl", "--strict"]
    for command in ("score", "audit"):
        status, _, err = run(capsys, command, *strictly)
        assert status == 1
        assert "1 of 2 records" in err
    assert "unknown_tool" in err


# -- audit -----------------------------------------------------------------------------------------


def test_audit_says_what_it_could_not_check_and_fails_by_status(files, capsys):
    given = ["--examples", files / "items.jsonl", "--generations", files / "base.jsonl", files / "tuned.jsonl"]
    write_jsonl(files / "train.jsonl", [example(30)])
    status, out, _ = run(capsys, "audit", *given, "--train", files / "train.jsonl")
    assert status == 0
    assert re.search(r"not checked +leak ", out)
    assert re.search(r"ok +contamination +0 of 10 requests", out)
    write_jsonl(files / "train.jsonl", [example(4, id="other"), example(30)])
    status, out, _ = run(capsys, "audit", *given, "--train", files / "train.jsonl", "--out", files / "found.json")
    assert status == 1
    assert re.search(r"FAILED +contamination .*\n +items: e4\n", out)
    (finding,) = [found for found in read_json(files / "found.json")["items"] if found["check"] == "contamination"]
    assert finding["items"] == ["e4"]


def test_audit_renders_prompts_with_a_model(files, model_folder, capsys):
    given = ["--examples", files / "items.jsonl", "--generations", files / "base.jsonl", files / "tuned.jsonl"]
    status, out, _ = run(capsys, "audit", *given, "--model", model_folder, "--max-output-tokens", 100)
    assert status == 0
    for check in ("leak", "tools", "prompts", "items", "copying", "gold", "limit"):
        assert re.search(rf"\n  ok +{check} ", out), check
    status, out, _ = run(capsys, "audit", *given, "--model", model_folder, "--max-output-tokens", 20)
    assert status == 1
    assert re.search(r"FAILED +limit ", out)
