"""The playground's routes: what the page may ask, and that nobody else may."""

import json
import threading

import httpx2
import pytest
from fixtures_playground import LIMITS, playground
from fixtures_serve import SAY, TIME, WEATHER, make_folder, open_obedient, served, wait_until

from callwright.data.corrections import read
from callwright.runtime import threads

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
BAD = '<tool_call>\n{"name": "weather", "arguments": {"days": 2}}\n</tool_call>'
RIGHT = {"name": "weather", "arguments": {"city": "Paris"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def running(folder, tmp_path_factory):
    """A server with a playground: its address, and the playground."""
    with playground(folder, tmp_path_factory.mktemp("run")) as found:
        yield found


def post(address, path, body, **options):
    return httpx2.post(f"{address}/playground/{path}", json=body, timeout=60, **options)


def said(text):
    return [{"role": "user", "content": SAY + text}]


def ask(address, text, lane="tuned", tools=(WEATHER, TIME), **more):
    answer = post(address, "ask", {"lane": lane, "messages": said(text), "tools": list(tools), **more})
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]


def test_the_page_and_its_files_hold_to_a_strict_policy(running):
    page = httpx2.get(f"{running[0]}/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.text.count("<script") == 1
    assert "style=" not in page.text
    assert "//" not in page.text.replace("<!doctype", "")  # no other address
    for name in ("playground.css", "playground.js", "cards.js", "correct.js"):
        found = httpx2.get(f"{running[0]}/{name}")
        assert found.status_code == 200
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "innerHTML" not in found.text
        assert "eval(" not in found.text
        assert "http://" not in found.text
        assert "https://" not in found.text


def test_the_state_says_what_there_is(running):
    found = httpx2.get(f"{running[0]}/playground/state").json()
    assert [lane["name"] for lane in found["lanes"]] == [
        "tuned",
        "base",
        "tuned_grammar",
        "tuned_threshold",
        "base_grammar",
    ]
    assert found["tools"] == [WEATHER, TIME]
    assert (found["run"], found["report"], found["watch"]) == ("your functions", True, True)
    assert {hint["rule"] for hint in found["hints"]} >= {"same_description"}


def test_answers_come_as_they_are_made_and_with_what_the_model_thought(running):
    *_, done = events = ask(running[0], CALL)
    assert events[0]["type"] == "begun"
    assert {"type": "call", "call": {"name": "weather", "arguments": '{"city": "Paris", "days": 2}'}} in events
    assert done["calls"] == [{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]
    assert 0 <= done["confidence"] <= 1
    assert 0 <= done["call_probability"] <= 1
    assert done["threshold"] is None
    assert done["output_tokens"] == len(running[1].service.model.tokenizer.encode(CALL, add_special_tokens=False))
    words = ask(running[0], "Just words.", "base")[-1]
    assert (words["content"], words["calls"]) == ("Just words.", [])


def test_without_grammar_a_wrong_call_is_shown_and_with_it_there_is_none(running):
    free = ask(running[0], BAD)[-1]
    assert free["calls"] == []
    assert "'city' is a required property" in free["problems"][0]["message"]
    assert free["problems"][0]["text"] == BAD
    held = ask(running[0], BAD, "tuned_grammar")[-1]
    assert all("required" not in problem["message"] for problem in held["problems"])


def test_the_threshold_decides_at_the_first_token(running):
    always = ask(running[0], CALL, "tuned_threshold", threshold=0)[-1]
    assert [call["name"] for call in always["calls"]] == ["weather"]
    never = ask(running[0], CALL, "tuned_threshold", threshold=1)[-1]
    assert never["calls"] == []
    assert never["call_probability"] < 1 == never["threshold"]


def lane_of(address, name):
    lanes = httpx2.get(f"{address}/playground/state").json()["lanes"]
    return next(lane for lane in lanes if lane["name"] == name)


@pytest.mark.parametrize(("stored", "called"), [(0.0, ["weather"]), (1.0, [])])
def test_the_page_draws_the_line_whatever_the_model_was_stored_with(folder, tmp_path, stored, called):
    opened = {"decided": {"threshold": stored, "temperature": 1.0}, "grounding": "flag"}
    with playground(folder, tmp_path, served_as=opened) as (address, _):
        free = ask(address, CALL)[-1]
        assert (free["threshold"], 0 < free["call_probability"] < 1) == (None, True)
        for line, wanted in ((0, ["weather"]), (1, [])):
            chosen = ask(address, CALL, "tuned_threshold", threshold=line)[-1]
            assert [call["name"] for call in chosen["calls"]] == wanted
            assert chosen["call_probability"] == pytest.approx(free["call_probability"], rel=1e-3)
            assert chosen["threshold"] == line
            assert chosen["confidence"] < 1
        served = ask(address, CALL, "tuned_grammar")[-1]
        assert [call["name"] for call in served["calls"]] == called
        assert served["threshold"] == stored
        assert served["call_probability"] == pytest.approx(free["call_probability"], rel=1e-3)
        lane = lane_of(address, "tuned_grammar")
        assert lane["title"] == "fine-tuned, as served"
        assert f"calls from {stored:.0%} on" in lane["about"]
        assert "that nobody said are named" in lane["about"]


def test_a_lane_of_the_model_alone_has_nothing_of_what_it_is_served_with(folder, tmp_path):
    opened = {"decided": {"threshold": 1.0, "temperature": 1.0}, "grammar": False, "style": "fenced"}
    with playground(folder, tmp_path, base=False, served_as=opened) as (address, made):
        tuned = made.lanes["tuned"].served
        assert (tuned.decided, tuned.form.name) == (None, "fenced")
        text = '```json\n[{"name": "weather", "arguments": {"city": "Paris"}}]\n```'
        assert ask(address, text)[-1]["calls"] == [RIGHT]
        assert ask(address, text, "tuned_grammar")[-1]["calls"] == []  # as served: from 100 % on
        assert "grammar" not in lane_of(address, "tuned_grammar")["about"]


def test_the_lanes_say_what_they_are(running):
    assert lane_of(running[0], "tuned")["about"] == "the model by itself: no grammar, no threshold, no checks"
    assert lane_of(running[0], "tuned_grammar")["title"] == "fine-tuned, grammar"
    assert lane_of(running[0], "base_grammar")["title"] == "base, grammar"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"lane": "x"}, "there is no lane 'x'"), ({}, "there is no lane None"), ({"lane": ["tuned"]}, "no lane"),
        ({"lane": "tuned", "threshold": 2}, "threshold is 2"),
        ({"lane": "tuned", "threshold": True}, "threshold is True"),
        ({"lane": "tuned", "messages": []}, "messages"), ({"lane": "tuned", "messages": "hi"}, "messages"),
        ({"lane": "tuned", "messages": said("x"), "tools": [7]}, "tools"),
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused(running, body, message):
    answer = post(running[0], "ask", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_page_that_is_left_frees_the_engine(running):
    body = {"lane": "tuned", "messages": said("words " * 400), "tools": [WEATHER]}
    with httpx2.stream("POST", f"{running[0]}/playground/ask", json=body, timeout=60) as stream:
        next(iter(stream.iter_text()))
    assert wait_until(lambda: running[1].service.active == 0)
    assert ask(running[0], "Again.")[-1]["content"] == "Again."


def test_pasted_tools_and_checked_calls(running):
    found = post(running[0], "tools", {"text": "def f(city: str):\n    'F.'"}).json()
    assert found["tools"][0]["function"]["name"] == "f"
    assert found["hints"]
    assert post(running[0], "tools", {"text": "def f(city: Mine): ..."}).json()["line"] == 1
    calls = [
        RIGHT,
        {"name": "weather", "arguments": {}},
        {"name": "x", "arguments": {}},
        {"name": "now", "arguments": 7},
    ]
    problems = post(running[0], "check", {"calls": calls, "tools": [WEATHER, TIME]}).json()["problems"]
    assert problems[0] is None
    assert "'city' is a required property" in problems[1]
    assert problems[2:] == ["there is no tool 'x'", "the arguments are no object"]


def test_a_correction_is_appended_counted_and_taken_back(running):
    row = {
        "kind": "call",
        "messages": [{"role": "user", "content": "How is Paris?"}],
        "tools": [WEATHER],
        "calls": [RIGHT],
    }
    made = post(running[0], "correct", {**row, "answered": {"calls": [], "content": "?"}, "id": "mine"}).json()
    assert made["taught"]["count"] == made["taught"]["since"] == 1
    (kept,) = read(running[1].options.corrections).corrections
    assert (kept.id, kept.row["via"], kept.answered["content"]) == (made["id"], "playground", "?")
    assert made["id"] != "mine"
    refused = post(running[0], "correct", {**row, "calls": [{"name": "weather", "arguments": {}}]})
    assert (refused.status_code, "lacks 'city'" in refused.text) == (400, True)
    assert post(running[0], "undo", {"id": made["id"]}).json()["taught"]["count"] == 0
    assert post(running[0], "undo", {"id": made["id"]}).status_code == 404


def test_two_browsers_correct_at_once(running):
    def teach(name):
        for number in range(10):
            row = {"kind": "call", "messages": [{"role": "user", "content": f"{name} asks {chr(97 + number)}"}],
                   "tools": [WEATHER], "calls": [RIGHT]}  # fmt: skip
            assert post(running[0], "correct", row).status_code == 200

    both = [threading.Thread(target=teach, args=(name,)) for name in ("Ann", "Bob")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    found = read(running[1].options.corrections)
    assert len(found.corrections) == 20
    assert not [row for row in found.rejected if row["rule"] != "undone"]


def test_nothing_runs_that_was_not_confirmed(running):
    assert post(running[0], "run", {"call": RIGHT}).status_code == 400
    assert post(running[0], "run", {"call": RIGHT, "confirmed": 1}).status_code == 400
    assert running[1].made == []
    assert post(running[0], "run", {"call": RIGHT, "confirmed": True}).json() == {"text": "sunny", "failed": False}
    assert running[1].made == [RIGHT]


def test_a_request_of_1_mb_is_refused(running):
    answer = post(running[0], "ask", {"lane": "tuned", "messages": said("x" * (1 << 20))})
    assert answer.status_code == 413
    assert "at most 200000 are taken" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
        {"host": "evil.example"},
        {"origin": "http://127.0.0.1:1"}, {"content-type": "text/plain"},
    ],
)  # fmt: skip
def test_other_pages_may_not_ask(running, headers):
    for path in ("correct", "undo", "run", "ask", "tools", "check", "ticket"):
        assert post(running[0], path, {}, headers=headers).status_code in (403, 415)
    if "content-type" not in headers:
        assert httpx2.get(f"{running[0]}/playground/state", headers=headers).status_code == 403
    own = {"origin": running[0], "sec-fetch-site": "same-origin"}
    assert post(running[0], "check", {"calls": [], "tools": []}, headers=own).status_code == 200


def test_the_report_opens_once_and_is_kept_away_from_the_server(running):
    url = post(running[0], "ticket", {}).json()["url"]
    page = httpx2.get(running[0] + url)
    assert "the report" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert httpx2.get(running[0] + url).status_code == 403
    assert httpx2.get(f"{running[0]}/playground/report").status_code == 403
    assert httpx2.get(f"{running[0]}/playground/watch").json() == {"text": "a curve", "active": True}


def test_a_key_is_asked_for_everywhere_but_on_the_page_itself(folder, tmp_path):
    with playground(folder, tmp_path, base=False, key="secret") as (address, _):
        assert httpx2.get(f"{address}/").status_code == 200
        for path in ("state", "watch"):
            assert httpx2.get(f"{address}/playground/{path}").status_code == 401
        for path in ("tools", "ask", "check", "correct", "undo", "run", "ticket"):
            assert post(address, path, {}).status_code == 401
        found = httpx2.get(f"{address}/playground/state", headers={"authorization": "Bearer secret"})
        assert [lane["name"] for lane in found.json()["lanes"]] == ["tuned", "tuned_grammar", "tuned_threshold"]


def test_without_a_playground_there_is_no_page(folder):
    with threads.blas_threads(1), served(open_obedient(folder), LIMITS) as (address, _):
        assert httpx2.get(f"{address}/").status_code == 404
        assert httpx2.get(f"{address}/playground/state").status_code == 404
