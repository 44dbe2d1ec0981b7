"""The built-in world, its tasks, and what the execution of stored answers finds."""

import copy
import itertools
import random

import pytest

from callwright.chat.formats import encode_calls
from callwright.data.records import Example, normalize
from callwright.data.toolset.toolset import load_toolset
from callwright.evals.executed import execute, tasks
from callwright.evals.executed.world import world
from callwright.evals.executed.world.basics import ToolError, as_date, as_day, as_time
from callwright.evals.scoring.score import score_item
from callwright.runtime import config
from callwright.runtime.errors import CallwrightError

UNLEARNED = ("clock", "shopping")


@pytest.fixture(scope="module")
def toolset(root):
    return load_toolset(root / "config" / "toolsets" / "everyday.yaml")


def example(query, tools, calls):
    return Example(id="x", messages=[{"role": "user", "content": query}], tools=tools, calls=calls, source="test")


@pytest.fixture(scope="module")
def learned(toolset):
    """Training that lists all tools but those of two domains, and one request that the tasks must not repeat."""
    listed = [tool.definition for tool in toolset.tools if tool.domain not in UNLEARNED]
    return [example("What's the balance of my savings account?", listed, [])]


@pytest.fixture(scope="module")
def made(toolset, learned):
    return tasks.make_tasks(toolset, 42, learned)


def run(task, calls):
    """(the task's beginning, the wanted outcome, that of `calls`)."""
    began = world.start(task.calls)
    return began, world.execute(began, task.calls, task.tools), world.execute(began, calls, task.tools)


def succeeds(task, calls):
    return world.succeeded(*run(task, calls))


def task_of(toolset, *calls):
    """A task with these right calls, their tools on offer."""
    names = {name for name, _ in calls}
    tools = [tool.definition for tool in toolset.tools if tool.name in names]
    return example("…", tools, [{"name": name, "arguments": arguments} for name, arguments in calls])


def call(name, /, **arguments):
    return {"name": name, "arguments": arguments}


def test_the_world_knows_its_tools_as_the_toolset_writes_them(toolset):
    by_name = {tool.name: tool.definition for tool in toolset.tools}
    assert len(world.FUNCTIONS) == 32
    assert all(world.knows(by_name[name]) for name in world.FUNCTIONS)
    assert not world.knows(by_name["get_forecast"])
    other = copy.deepcopy(by_name["get_balance"])
    other["function"]["parameters"]["properties"]["owner"] = {"type": "string"}
    assert not world.knows(other)
    no_more = copy.deepcopy(by_name["get_balance"])
    no_more["function"]["parameters"]["required"] = []
    assert not world.knows(no_more)


@pytest.mark.slow
def test_the_right_calls_of_every_task_can_be_made_and_each_is_needed(made):
    assert len(made) > 180
    for task in made:
        began, wanted, _ = run(task, [])
        assert not wanted.errors
        assert succeeds(task, task.calls)
        assert bool(task.calls) != succeeds(task, []), "doing nothing is right only where nothing is wanted"
        for order in itertools.permutations(task.calls):
            assert succeeds(task, list(order))
        for at in range(len(task.calls)):
            assert not succeeds(task, task.calls[:at] + task.calls[at + 1 :])
        if tasks.wants(task.calls) != "change":
            assert wanted.state == began


def test_a_wrong_value_fails(made):
    """Any argument replaced by that of another task of the same tool, where the two differ."""
    values = {}
    for task in made:
        for one in task.calls:
            for name, value in one["arguments"].items():
                values.setdefault((one["name"], name), []).append(value)
    rng, tried = random.Random(7), 0
    for task in made:
        for at, one in enumerate(task.calls):
            for name, value in one["arguments"].items():
                others = [v for v in values[one["name"], name] if world.canonical(v) != world.canonical(value)]
                if not others:
                    continue
                wrong = copy.deepcopy(task.calls)
                wrong[at]["arguments"][name] = rng.choice(others)
                if one["name"] in ("search_products", "convert_time"):  # these may tell the same by chance
                    continue
                tried += 1
                assert not succeeds(task, wrong), (task.query, wrong)
    assert tried > 200


def test_nothing_may_be_looked_up_where_nothing_is_wanted(made):
    quiet = [task for task in made if not task.calls]
    assert len(quiet) > 20
    balance = next(task for task in made if "get_balance" in task.tool_names)
    task = example("Show me my balance", balance.tools, [])
    assert succeeds(task, [])
    assert not succeeds(task, [call("get_balance", account="savings")])
    assert succeeds(task, [call("get_balance", account="giro")])  # the call fails: nothing was found out


def test_other_calls_that_reach_the_same_state_succeed(toolset):
    same = [
        (("switch_light", {"room": "kitchen", "state": "on"}), [call("switch_light", room="The Kitchen", state="on")]),
        (("set_alarm", {"time": "06:30"}), [call("set_alarm", time="6:30", day="tomorrow")]),
        (("set_alarm", {"time": "06:30", "day": "Friday"}), [call("set_alarm", time="06:30", day="on Friday")]),
        (("rename_file", {"file": "menu.pdf", "new_name": "final"}),
         [call("rename_file", file="menu.pdf", new_name="final.pdf")]),
        (("start_vacuum", {"rooms": ["attic", "kitchen"]}),
         [call("start_vacuum", rooms=["kitchen"], mode="normal"), call("start_vacuum", rooms=["attic"])]),
        (("add_to_cart", {"product": "towels", "quantity": 5}),
         [call("add_to_cart", product="towels", quantity=2), call("add_to_cart", product="Towels", quantity=3)]),
        (("create_event", {"title": "yoga class", "date": "06-14"}),
         [call("create_event", title="Yoga class", date="2026-06-14")]),
        (("share_file", {"file": "map.png", "contact": "Zoe"}),
         [call("share_file", file="map.png", contact="zoe", can_edit=False)]),
        (("invite_guests", {"event": "barbecue", "guests": ["Ben", "Mei"]}),
         [call("invite_guests", event="barbecue", guests=["Mei", "Ben"])]),
        (("get_stock_price", {"symbol": "KO"}),
         [call("get_stock_price", symbol="ko"), call("get_stock_price", symbol="PEP")]),
        (("set_thermostat", {"room": "attic", "degrees": 20}),
         [call("set_thermostat", room="attic", degrees=25), call("set_thermostat", room="attic", degrees=20.0)]),
    ]  # fmt: skip
    for gold, calls in same:
        task = task_of(toolset, gold)
        assert succeeds(task, calls), calls
    # The scorer of texts, which compares the calls themselves, calls at least these wrong.
    doubled = task_of(toolset, ("set_alarm", {"time": "06:30"}))
    answer = {"id": "x", "suite": "s", "condition": "c", "finish_reason": "stop"}
    text = encode_calls([call("set_alarm", time="06:30", day="tomorrow")])
    assert not score_item(doubled, {**answer, "text": text})["ast"]


def test_other_states_and_other_information_fail(toolset):
    other = [
        (("set_alarm", {"time": "06:30", "day": "Friday"}), [call("set_alarm", time="06:30", day="next Friday")]),
        (("add_to_cart", {"product": "towels", "quantity": 5}), [call("add_to_cart", product="towels", quantity=4)]),
        (("find_free_slot", {"date": "2026-05-04", "minutes": 45}),
         [call("find_free_slot", date="2026-05-04", minutes=30)]),
        (("read_messages", {"contact": "Zoe", "count": 3}), [call("read_messages", contact="Zoe", count=4)]),
        (("search_files", {"keyword": "lease", "type": "pdf"}), [call("search_files", keyword="lease")]),
        (("get_balance", {"account": "savings"}), [call("get_balance", account="checking")]),
        (("lock_door", {"door": "back door", "locked": True}), [call("lock_door", door="back door", locked=False)]),
        (("transfer_money", {"recipient": "Anna Rossi", "amount": 20}),
         [call("transfer_money", recipient="Anna Rossi", amount=20)] * 2),
    ]  # fmt: skip
    for gold, calls in other:
        assert not succeeds(task_of(toolset, gold), calls), calls


def test_a_call_that_cannot_be_made_leaves_the_world_and_the_next_is_made(toolset):
    task = task_of(toolset, ("start_vacuum", {"rooms": ["attic"]}))
    began = world.start(task.calls)
    bad = [
        call("start_vacuum", rooms=["attic", "the moon"]),  # fails half way
        call("start_vacuum", rooms="attic"),
        call("start_vacuum", rooms=["attic"], speed=3),
        call("switch_light", room="attic", state="on"),  # the world knows it, but it was not on offer
        call("warp", to="mars"),
    ]
    got = world.execute(began, bad, task.tools)
    assert len(got.errors) == len(bad)
    assert got.state == began
    assert succeeds(task, [*bad, *task.calls])
    assert "the moon" in got.errors[0]


def test_one_run_does_not_touch_the_next(toolset):
    before = copy.deepcopy({key: value for module in world.MODULES for key, value in module.START.items()})
    for name, tool in ((tool.name, tool) for tool in toolset.tools if tool.name in world.FUNCTIONS):
        phrasing = tool.phrasings[0]
        arguments = {slot: tool.pools[slot].draw(random.Random(1))[1] for slot, _ in phrasing.slots}
        one = call(name, **phrasing.arguments, **arguments)
        state = world.start([one])
        kept = copy.deepcopy(state)
        outcome = world.execute(state, [one], [tool.definition])
        assert not outcome.errors, outcome.errors
        assert state == kept
    assert before == {key: value for module in world.MODULES for key, value in module.START.items()}


def test_days_and_times():
    assert as_date("Monday") == "2026-03-09"
    assert as_date("on Friday") == "2026-03-06"
    assert as_date("next Friday") == "2026-03-13"
    assert as_date("in two weeks") == "2026-03-16"
    assert as_date("01-15") == "2027-01-15"
    assert as_date("2026-01-15") == "2026-01-15"
    assert as_day("when it rains") == "when it rains"
    assert as_time("9:05") == "09:05"
    for text in ("02-30", "someday", "2026-13-01"):
        with pytest.raises(ToolError):
            as_date(text)
    for text in ("25:00", "9", "noon", 900):
        with pytest.raises(ToolError):
            as_time(text)


def test_tasks_are_told_apart_by_training_and_repeat_nothing_of_it(made, toolset, learned):
    of = {tool.name: tool.domain for tool in toolset.tools}
    for task in made:
        unlearned = {of[name] in UNLEARNED for name in task.tool_names}
        assert len(unlearned) == 1
        assert (tasks.UNSEEN in task.tags) == unlearned.pop()
        assert normalize(task.query) != normalize(learned[0].query)
    assert {of[one["name"]] for task in made for one in task.calls} == {
        "calendar", "clock", "smart_home", "messages", "files", "notes_and_tasks", "money", "shopping",
    }  # fmt: skip
    kinds = [tasks.wants(task.calls) for task in made[:100]]
    assert all(kinds.count(kind) >= 10 for kind in ("change", "information", "nothing"))
    assert tasks.make_tasks(toolset, 42, learned) == made
    assert [task.id for task in made] == sorted({task.id for task in made})
    assert all(Example.from_row(task.to_row()) == task for task in made)


def test_tasks_that_depend_on_an_order_are_left_out(toolset):
    dependent = task_of(
        toolset,
        ("transfer_money", {"recipient": "Anna Rossi", "amount": 20}),
        ("get_balance", {"account": "checking"}),
    )
    assert not tasks.is_sound(dependent)
    needless = task_of(toolset, *[("switch_light", {"room": "attic", "state": "on"})] * 2)
    assert not tasks.is_sound(needless)
    assert tasks.is_sound(task_of(toolset, ("get_balance", {"account": "checking"})))


def test_a_toolset_that_the_world_does_not_know(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("domains: {home: {wave: {description: Wave., parameters: {}, phrasings: [Wave at them]}}}")
    with pytest.raises(CallwrightError, match="0 tools of the toolset 'mine'.*leave `executed` out"):
        tasks.make_tasks(load_toolset(path), 1, [])


def test_the_suite_needs_a_toolset(root):
    run = {
        "toolset": str(root / "config" / "toolsets" / "everyday.yaml"),
        "data": {"source": "files", "path": str(root / "README.md")},
        "model": {"source": {"kind": "pypi"}, "call_format": "auto"},
        "training": {"from": None},
        "evaluation": {"suites": ["test_seen", "executed"], "conditions": ["base"], "only": {}, "peers": {}},
    }
    with pytest.raises(CallwrightError, match="`executed`.*data.source is 'files'"):
        config.check_paths(run)
    config.check_paths({**run, "data": {"source": "toolset", "path": None}})


def answer(task, text, condition="tuned"):
    return {"id": task.id, "condition": condition, "finish_reason": "stop", "text": text}


def test_stored_answers_are_executed_and_counted(made):
    chosen = made[:40]
    right = [answer(task, encode_calls(task.calls) if task.calls else "I can't.") for task in chosen]
    silent = [answer(task, "Sure! I will do that.", "base") for task in chosen]
    rows = {"base": execute.execute_all(chosen, silent), "tuned": execute.execute_all(chosen, right)}
    found = execute.summarize(rows)
    quiet = sum(not task.calls for task in chosen)
    assert (found["tuned"]["n"], found["tuned"]["count"]) == (40, 40)
    assert found["base"]["count"] == quiet
    assert found["base"]["by_wants"]["nothing"]["success"] == 1.0
    assert found["base"]["by_wants"]["change"]["success"] == 0.0
    assert found["base"]["failures"] == {"no_call": 40 - quiet}
    low, high = found["base"]["ci95"]
    assert low < quiet / 40 < high
    assert found["comparison"]["won"] == 40 - quiet
    assert found["comparison"]["lost"] == 0
    trained = found["tuned"]["by_tools"]
    assert trained["trained"]["n"] + trained["unseen"]["n"] == 40
    assert sum(part["n"] for part in found["tuned"]["by_domain"].values()) >= 40
    assert execute.summarize({"tuned": rows["tuned"]})["comparison"] is None


def test_each_failure_has_its_label(toolset):
    task = task_of(toolset, ("switch_light", {"room": "attic", "state": "on"}))
    quiet = example("Hi", task.tools, [])
    labels = {
        "I did it.": "no_call",
        encode_calls([call("switch_light", room="cave", state="on")]): "call_failed",
        encode_calls([call("switch_light", room="study", state="on")]): "wrong_state",
        encode_calls([call("switch_light", room="attic", state="on")]): None,
    }
    for text, label in labels.items():
        row = execute.execute(task, answer(task, text))
        assert (row["failure"], row["success"]) == (label, label is None)
    on = encode_calls([call("switch_light", room="attic", state="on")])
    row = execute.execute(quiet, answer(quiet, on))
    assert row["failure"] == "not_asked_for"
    assert row["changes"] == {"lights": [{"attic": "off"}, {"attic": "on"}]}
    price = task_of(toolset, ("get_stock_price", {"symbol": "KO"}))
    other = encode_calls([call("get_stock_price", symbol="PEP")])
    assert execute.execute(price, answer(price, other))["failure"] == "wrong_information"
    with pytest.raises(CallwrightError, match="answers no task"):
        execute.execute_all([task], [{**answer(task, ""), "id": "other"}])
