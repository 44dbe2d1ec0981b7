"""CanIToolCall's live probe against `callwright serve`, with models that say the right thing in their own form.

The probe asks nine things of a server, streamed and not: a call, two, none, nested arguments, letters of all kinds, no
arguments, a call of a named tool, an answer to a result, reasoning. What a model says to them is the model's; that the
server hands it over whole, and nothing of its form, is what is tested here.
"""

import pytest
from fixtures_forms import FORMS, make_own
from fixtures_serve import Obedient, make_folder, served

from callwright.chat.call_format import form_of
from callwright.chat.formats import encode_calls
from callwright.chat.own_form import own_answer
from callwright.chat.tokens import encode
from callwright.models.load import load
from callwright.serve.limits import Limits

probe = pytest.importorskip("canitoolcall.probe", reason="CanIToolCall is not here: pip install canitoolcall")


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


EVENT = call(
    "create_event",
    title="Design review",
    start="2026-10-01T15:00:00Z",
    attendees=[{"name": "Ana", "email": "ana@example.com"}, {"name": "Bo", "email": "bo@example.com"}],
    location={"city": "Berlin", "room": "4.12"},
)
RIGHT = {
    "single-call": [call("get_weather", city="Paris")],
    "parallel-calls": [call("get_weather", city="Paris"), call("get_weather", city="Tokyo")],
    "no-call": "42",
    "nested-args": [EVENT],
    "unicode-args": [call("save_note", title="Grüße aus Zürich", body="Café ☕ in 東京 — naïve résumé 🚀")],
    "empty-args": [call("get_server_time")],
    "forced-tool-choice": [call("get_weather", city="Lisbon")],
    "tool-result-followup": "It is 18 °C and clear in Paris.",
    "reasoning-then-call": [call("record_answer", answer="9.9")],
}
SCENARIOS = {scenario.messages[0]["content"]: scenario for scenario in probe.BUILTIN_SCENARIOS}


class Knowing(Obedient):
    """A tiny random model that is led to the right answer of each scenario, in its own form, under its grammar."""

    def script(self, request):
        right = RIGHT[SCENARIOS[request.messages[0]["content"]].id]
        calls, words = (right, "") if isinstance(right, list) else ([], right)
        if form_of(self.tokenizer).own:
            text, _ = own_answer(self.tokenizer, request.messages, request.tools, calls, words)
        else:
            text = encode_calls(calls) if calls else words
        return [*encode(self.tokenizer, text), *sorted(self.stop_ids)[:1] * 2]


@pytest.mark.parametrize("family", ["hermes", "lfm2", "mistral header", "qwen3", "qwen3.5", "gemma 4", "kimi k2"])
def test_the_probe_passes(tmp_path, family):
    folder = make_folder(tmp_path) if family == "hermes" else make_own(tmp_path, FORMS[family])
    model = Knowing(*load(folder), "tiny")
    # Where the form has no grammar, a server cannot promise a call, and says so.
    skipped = {"forced-tool-choice"} if model.form.layout is None else set()
    scenarios = [scenario for scenario in probe.BUILTIN_SCENARIOS if scenario.id not in skipped]
    with served(model, Limits()) as (address, _):
        report = probe.probe(f"{address}/v1", "tiny", scenarios=scenarios, timeout_s=300)
    wrong = [outcome.to_dict() for outcome in report.outcomes if outcome.status != "pass"]
    assert wrong == []
    assert len(report.outcomes) == 3 * len(scenarios)
    assert {scenario.id for scenario in scenarios} | skipped == set(RIGHT)
