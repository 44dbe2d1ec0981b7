"""What `callwright serve --playground` finds by itself."""

import contextlib
import json
from types import SimpleNamespace

import pytest
from fixtures_serve import make_folder, open_obedient
from fixtures_toolset import TOOLSET

from callwright import cli
from callwright.commands import playground as command
from callwright.runtime import threads
from callwright.runtime.errors import CallwrightError
from callwright.serve.engine import ServingEngine
from callwright.serve.limits import Limits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("served"))


@pytest.fixture
def results(tmp_path, folder):
    """results/mine with a finished training, and its model under results/models."""
    run = tmp_path / "results" / "mine"
    (run / "training").mkdir(parents=True)
    (run / "training" / "training.json").write_text("{}")
    (run / "package" / "model").mkdir(parents=True)
    (tmp_path / "results" / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "results" / "models" / "tiny" / "mlx").symlink_to(folder)
    config = {"model": {"name": "tiny"}, "corrections": "mine-corrections.jsonl"}
    (run / "summary.json").write_text(json.dumps({"config": config}))
    tools = [
        {"type": "function", "function": {"name": n, "description": "", "parameters": {"type": "object"}}} for n in "ab"
    ]
    (run / "data").mkdir()
    rows = [{"tools": tools[1:]}, {"tools": tools}]
    (run / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return run


def attach(folder, *arguments):
    """The playground that these arguments make."""
    options = cli.parser(["serve"]).parse_args(["serve", *map(str, arguments), "--playground"])
    model = open_obedient(folder)
    with threads.blas_threads(1), contextlib.ExitStack() as stack:
        engine = ServingEngine(model.model, model.stop_ids, 1)
        stack.callback(engine.close)
        service = SimpleNamespace(model=model, engine=engine, limits=Limits(running=1))
        command.attach(service, options, stack)
        stack.callback(service.playground.close)
        yield_ = service.playground
        assert service.playground.lanes
        return yield_, [lane for lane in yield_.lanes]


def test_a_packaged_model_finds_its_run_its_tools_and_its_base(results, folder):
    made, lanes = attach(folder, results / "package" / "model")
    assert made.options.run_folder == results.resolve()
    assert [tool["function"]["name"] for tool in made.options.tools] == ["a", "b"]
    assert str(made.options.corrections) == "mine-corrections.jsonl"
    assert "base" in lanes
    assert (made.options.run_call, made.options.world) == (None, None)
    text, active = made.options.watch()
    assert isinstance(text, str)
    assert active in (True, False)


def test_the_base_answers_in_the_format_that_is_named(folder):
    made, _ = attach(folder, folder, "--base", folder, "--format", "fenced")
    assert {lane.served.form.name for name, lane in made.lanes.items() if name.startswith("base")} == {"fenced"}


def test_what_is_named_counts(results, folder, tmp_path):
    (tmp_path / "cafe.yaml").write_text(TOOLSET)
    arguments = [
        "--tools",
        tmp_path / "cafe.yaml",
        "--base",
        "none",
        "--corrections",
        tmp_path / "c.jsonl",
        "--run",
        results,
    ]
    made, lanes = attach(folder, folder, *arguments)
    assert [tool["function"]["name"] for tool in made.options.tools] == ["order"]
    assert made.options.corrections == tmp_path / "c.jsonl"
    assert "base" not in lanes
    with pytest.raises(CallwrightError, match="--run .*there is no such folder"):
        attach(folder, folder, "--run", tmp_path / "none")


def test_functions_of_a_file_can_be_called_and_those_of_a_toolset_too(folder, tmp_path):
    (tmp_path / "mine.py").write_text(
        'def add(a: int, b: int = 1) -> int:\n    """Add two numbers."""\n    return a + b\n'
    )
    (tmp_path / "mine.yaml").write_text("tools_from: [mine.py]\n")
    for name in ("mine.py", "mine.yaml"):
        with contextlib.ExitStack() as stack:
            run, tools = command.open_tools([tmp_path / name], stack)
            assert [tool["function"]["name"] for tool in tools] == ["add"]
            assert run({"name": "add", "arguments": {"a": 2}}) == ("3", False)
            text, failed = run({"name": "add", "arguments": {}})
            assert failed
            assert "'a' is a required property" in text


def test_the_built_in_world_makes_calls_of_the_tools_that_it_knows(root):
    from callwright.data.toolset.toolset import load_toolset

    tools = [tool.definition for tool in load_toolset(root / "config/toolsets/everyday.yaml").tools]
    run = command.in_built_in_world(tools)
    text, failed = run({"name": "create_note", "arguments": {"title": "x"}})
    assert failed == ("error" in text or "'" in text and "required" in text)
    assert run({"name": "nothing", "arguments": {}})[1]
    assert command.in_built_in_world([]) is None
