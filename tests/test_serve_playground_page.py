"""The playground's page in a real Chromium: asked, corrected, undone, by keyboard, on a phone, in light and dark.

Needs Playwright's Python package and a Chromium (`CHROMIUM`, or one on the path); skipped without.
"""

import json
import os
import shutil

import pytest
from fixtures_playground import playground
from fixtures_serve import SAY, make_folder

from callwright.data.corrections import read

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
expect = sync_api.expect
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "days": 2}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "weather", "arguments": {"days": 2}}\n</tool_call>'
PYTHON = 'def order(drink: str, oat: bool = False):\n    """Order a drink at the counter."""\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def running(folder, tmp_path_factory):
    with playground(folder, tmp_path_factory.mktemp("run")) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser, running):
    """Opens the page; at the end nothing must have gone wrong in it, and nothing asked of another server."""
    opened = []

    def open_page(address=running[0], **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        page = context.new_page()
        opened.append((context, page))
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on(
            "console", lambda said: said.type == "error" and "401" not in said.text and page.faults.append(said.text)
        )
        page.on("request", lambda asked: asked.url.startswith((address, "about:")) or page.faults.append(asked.url))
        page.goto(address)
        return page

    yield open_page
    for context, page in opened:
        assert page.faults == []
        context.close()


def ask(page, text, lanes=1):
    page.fill("#request", SAY + text)
    page.press("#request", "Enter")
    expect(page.locator("article")).to_have_count(lanes)
    expect(page.locator("article:not(.busy)")).to_have_count(lanes, timeout=60_000)


def only(page, *lanes):
    expect(page.locator("#lanes input")).to_have_count(5)
    for box in page.locator("#lanes input").all():
        box.set_checked(box.get_attribute("id").removeprefix("lane-") in lanes)


def test_answers_side_by_side_with_their_checks(open_page):
    page = open_page()
    expect(page.locator("#model")).to_have_text("tiny")
    only(page, "tuned", "base", "tuned_grammar", "tuned_threshold")
    expect(page.locator("#threshold-box")).to_be_visible()
    page.locator("#threshold").fill("1")
    ask(page, CALL, 4)
    card = page.locator("article[data-lane=tuned]")
    expect(card.locator(".call h4")).to_have_text("weather")
    expect(card.locator(".call")).to_contain_text("fits its schema")
    expect(card.locator(".numbers").last).to_contain_text("tokens after")
    expect(page.locator("article[data-lane=tuned_threshold]")).to_contain_text("from 100 % on it would have called")
    only(page, "tuned")
    ask(page, WRONG)
    expect(page.locator("article")).to_contain_text("'city' is a required property")
    ask(page, "<b>bold</b> <img src=x onerror=alert(1)>")
    expect(page.locator("article .said")).to_have_text("<b>bold</b> <img src=x onerror=alert(1)>")


def test_that_is_wrong_by_keyboard_alone_and_undo(open_page, running):
    page = open_page()
    only(page, "tuned")
    ask(page, "I do not know.")
    page.locator("h1").click()
    page.keyboard.press("1")
    expect(page.locator(".editor input[name=kind]").first).to_be_focused()
    for _ in range(3):  # radio group, the tool, its button: then the first field
        page.keyboard.press("Tab")
    page.keyboard.type("Oslo")
    page.keyboard.press("Tab")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(page.locator(".editor .wrong")).to_have_text("days is no integer: two")
    for _ in range(3):
        page.keyboard.press("Backspace")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    expect(page.locator("#taught")).to_have_text("1 taught since the last training")
    expect(page.locator("#corrections li")).to_contain_text('weather(city="Oslo", days=2)')
    (made,) = read(running[1].options.corrections).corrections
    assert made.example.calls == [{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}]
    assert made.answered["content"] == "I do not know."
    page.locator("h1").click()
    page.keyboard.press("u")
    expect(page.locator("#taught")).to_have_text("0 taught since the last training")
    assert read(running[1].options.corrections).corrections == []


def test_it_should_ask_and_what_the_schema_forbids(open_page, running):
    page = open_page()
    only(page, "tuned")
    ask(page, CALL)
    page.get_by_role("button", name="That is wrong").click()
    page.locator(".editor input[type=text], .editor input:not([type])").first.fill("")
    page.get_by_role("button", name="Teach it").click()
    expect(page.locator(".editor .wrong")).to_contain_text("'city' is a required property")
    page.get_by_label("It should ask").check()
    page.get_by_role("button", name="Teach it").click()
    expect(page.locator(".editor .wrong")).to_have_text("Write what it should ask.")
    page.get_by_label("Its words").fill("Which city?")
    page.get_by_role("button", name="Teach it").click()
    expect(page.locator("#corrections li").first).to_contain_text("Which city?")
    other = open_page()  # another browser sees it too
    expect(other.locator("#corrections li").first).to_contain_text("Which city?")
    other.locator("#corrections button").first.click()
    expect(other.locator("#taught")).to_have_text("0 taught since the last training")
    expect(page.locator("#taught")).to_have_text("0 taught since the last training", timeout=15_000)


def test_nothing_is_run_without_a_yes(open_page, running):
    page = open_page()
    only(page, "tuned")
    ask(page, CALL)
    running[1].made.clear()
    page.get_by_role("button", name="Run it").click()
    expect(page.locator("#confirm")).to_contain_text('weather(city="Paris", days=2)')
    page.get_by_role("button", name="No", exact=True).click()
    assert running[1].made == []
    page.get_by_role("button", name="Run it").first.click()
    page.locator("#confirm").get_by_role("button", name="Run it").click()
    expect(page.locator("article")).to_contain_text("= sunny")
    assert running[1].made == [{"name": "weather", "arguments": {"city": "Paris", "days": 2}}]


def test_pasted_tools_stay_over_a_reload_and_their_faults_have_a_line(open_page):
    page = open_page()
    expect(page.locator(".tool")).to_have_count(2)
    page.locator("#paste summary").click()
    page.fill("#source", PYTHON + "def bad(x: Mine): ...\n")
    page.click("#use")
    expect(page.locator("#source-error")).to_contain_text("Line 3: the type 'Mine' is not known here")
    page.fill("#source", PYTHON)
    page.click("#use")
    expect(page.locator(".tool")).to_have_count(1)
    expect(page.locator(".tool")).to_contain_text("drink, [oat]")
    page.fill("#request", "kept")
    page.press("#request", "Enter")
    page.reload()
    expect(page.locator(".tool")).to_have_count(1)
    expect(page.locator("#request")).to_have_value("kept")
    page.locator("#paste summary").click()
    page.click("#own")
    expect(page.locator(".tool")).to_have_count(2)


def test_a_reload_in_the_middle_of_a_stream_leaves_nothing_behind(open_page, running):
    page = open_page()
    only(page, "tuned")
    page.fill("#request", SAY + "many words " * 60)
    page.press("#request", "Enter")
    expect(page.locator("article .numbers")).not_to_have_text("waiting", timeout=30_000)
    page.reload()
    only(page, "tuned")
    ask(page, "And on.")
    expect(page.locator("article .said")).to_have_text("And on.")
    assert running[1].service.active == 0


def test_too_much_is_told_and_the_page_goes_on(open_page):
    page = open_page()
    only(page, "tuned")
    page.fill("#request", "x" * (1 << 20))
    page.press("#request", "Enter")
    expect(page.locator("article")).to_contain_text("at most 200000 are taken", timeout=30_000)
    page.faults.clear()  # the browser itself notes the status
    ask(page, "Fine.")
    expect(page.locator("article .said")).to_have_text("Fine.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_phones_and_both_schemes(open_page, tmp_path, scheme, width):
    page = open_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    only(page, "tuned", "base")
    ask(page, CALL, 2)
    wide = page.locator("body").evaluate("body => [body.scrollWidth, body.clientWidth]")
    assert wide[0] <= wide[1]
    colours = page.locator("body").evaluate(
        "body => [getComputedStyle(body).backgroundColor, getComputedStyle(body).color]"
    )
    light = sum(map(int, colours[0].removeprefix("rgb(").removesuffix(")").split(",")))
    assert (light > 600) is (scheme == "light")
    if width == 390:
        for button in page.get_by_role("button").all():
            if button.is_visible():
                assert button.bounding_box()["height"] >= 40


def test_the_training_and_its_report(open_page):
    page = open_page()
    page.get_by_role("button", name="Training", exact=True).click()
    expect(page.locator("#watch")).to_have_text("a curve")
    with page.expect_popup() as popup:
        page.get_by_role("button", name="Last training's report").click()
    popup.value.wait_for_url("**/playground/report*")
    expect(popup.value).to_have_title("the report")


def test_the_key_is_asked_for_once_and_not_kept_for_others(open_page, folder, tmp_path):
    with playground(folder, tmp_path, base=False, key="secret") as (address, _):
        page = open_page(address)
        expect(page.locator("#key")).to_be_visible()
        page.fill("#key-value", "secret")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_text("tiny")
        page.reload()
        expect(page.locator("#model")).to_have_text("tiny")
        kept = page.evaluate("() => JSON.stringify(localStorage)")
        assert "secret" not in json.dumps(kept)
