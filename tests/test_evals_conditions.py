"""The conditions: what they are made of, and that configuration, rules and audit mean the same by their names."""

from dataclasses import replace

import yaml

from callwright.evals.conditions import CONDITIONS
from callwright.evals.trust.audit_run import OTHER_PROMPTS, TUNED, must_end
from callwright.runtime.peers import PREFIX


def conditions_of_schema(root):
    schema = yaml.safe_load((root / "workflow" / "schemas" / "config.schema.yaml").read_text(encoding="utf-8"))
    evaluation = schema["properties"]["evaluation"]["properties"]
    pairs = evaluation["comparisons"]
    named = [evaluation["primary"]["properties"][key] for key in ("from", "to")]
    named += [pairs["items"]["items"], evaluation["only"]["additionalProperties"]["items"]]
    named = [part["pattern"].removeprefix("^(").removesuffix(")$").split("|") for part in named]
    assert {names.pop() for names in named} == {f"{PREFIX}[a-z0-9_]+"}
    return [evaluation["conditions"]["items"]["enum"], *named], pairs["default"]


def test_the_configuration_knows_the_same_conditions(root):
    lists, planned = conditions_of_schema(root)
    for names in lists:
        assert sorted(names) == sorted(CONDITIONS)
    assert {name for pair in planned for name in pair} <= set(CONDITIONS)


def test_the_audit_knows_which_prompts_differ_and_which_models_are_tuned():
    for name, condition in CONDITIONS.items():
        assert name.startswith(OTHER_PROMPTS) == (condition.fewshot or not condition.tools)
        assert name.startswith(TUNED) == condition.tuned
        assert must_end(name) == (condition.tuned and not condition.grammar)
    assert "peer_mine".startswith(OTHER_PROMPTS)
    assert must_end("tuned_by_others")
    assert not "peer_tuned".startswith(TUNED)


def test_conditions_differ_and_say_how():
    parts = [replace(condition, about="") for condition in CONDITIONS.values()]
    assert len(set(parts)) == len(parts)
    assert not any(condition.adapter and condition.fused for condition in CONDITIONS.values())
    assert all(condition.about for condition in CONDITIONS.values())
    assert not CONDITIONS["base"].tuned
