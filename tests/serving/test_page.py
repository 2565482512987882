"""The page in a real browser, against the real application: what a person sees and does.

The whole page is laid out by the browser at 360 x 640 and on a desk; a request to another host fails each test.
"""

from __future__ import annotations

import json
import re
import shutil

import httpx2 as httpx
import pytest

from medtune.serving.gateway import Access
from medtune.serving.keys import Keys
from medtune.serving.page.build import mount
from medtune.serving.scripted import ScriptedAssistant
from medtune.serving.service import Limits
from medtune.serving.store import Store, conversations, feedback, messages, votes

from .conftest import app_of, running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    # Gradio and its event loop leave sockets and deprecated calls behind that are not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ASK, LOG = "#question textarea", "#log article"
INJECTIONS = '<img src=x onerror="window.hit=1"> <script>window.hit=1</script> ${window.hit=1} {{hit}} `${1}` @children'


@pytest.fixture(scope="module")
def tuned():
    return ScriptedAssistant()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store')}/chats.db", str)


@pytest.fixture(scope="module")
def served(tuned, store, tmp_path_factory):
    report = tmp_path_factory.mktemp("run") / "report.html"
    report.write_text("<h1>Tuning helped</h1><script>parent.hit = 1</script>")

    def make():
        app = app_of({"tuned": tuned, "base": ScriptedAssistant(default="The base says so.")}, store=store)
        run = app.state.service.served["tuned"]
        app.state.service.served["tuned"] = type(run)(run.id, run.assistant, report=report)
        mount(app, app.state.service, Access(), "en")
        return app

    with running(make) as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as found:
        opened = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def make_page(browser, served, tuned):
    """A function that opens the page in a fresh profile; at the end: no request left the host, no script failed."""
    tuned.__init__()
    opened, left, broken = [], [], []

    def make(path="/", size=(1100, 800), **options):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda r: None if r.url.startswith((served.url, "data:", "blob:")) else left.append(r.url))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(served.url + path)
        page.wait_for_selector(".examples button, article")
        opened.append(context)
        return page

    yield make
    for context in opened:
        context.close()
    assert left == []
    assert broken == []


@pytest.fixture
def page(make_page):
    return make_page()


def ask(page, question: str, answers: int = 1) -> None:
    """Ask and wait until so many answers stand there."""
    page.fill(ASK, question)
    page.press(ASK, "Enter")
    page.wait_for_function(f"document.querySelectorAll('{LOG}').length == {answers}")


def test_a_question_with_sources_and_a_follow_up(page, tuned):
    ask(page, "Why does anaemia make people tired?")
    answer = page.locator(LOG)
    assert "Iron-deficiency anaemia makes people tired." in answer.inner_text()
    assert "I am a program, not a doctor." in answer.inner_text()
    assert "This is information, not medical advice." in answer.inner_text()
    assert answer.locator(".unsupported").inner_text() == "It is common. no source"
    tip = answer.locator(".tip")
    assert not tip.is_visible()
    answer.get_by_role("button", name="Source 1").hover()
    assert tip.is_visible()
    assert "reviewed" in tip.inner_text()
    answer.get_by_text("Sources (1)").click()
    link = answer.get_by_role("link", name="Iron-deficiency anaemia")
    assert link.get_attribute("href") == "https://example.org/anaemia"
    assert link.get_attribute("rel") == "noopener noreferrer"
    answer.get_by_text("One sentence was withheld").click()
    assert "a dose that no source names" in answer.inner_text()
    assert "500 mg" not in page.locator("body").inner_text()
    ask(page, "Is it contagious?", 2)
    heard = tuned.calls[-1][0]
    assert [m.role for m in heard] == ["user", "assistant", "user"]
    assert heard[-1].content == "Is it contagious?"
    assert "I am a program" not in page.locator(LOG).nth(1).inner_text()


def test_an_emergency_is_unmistakable(make_page):
    page = make_page(size=(360, 640))
    ask(page, "I have chest pain")
    banner = page.get_by_role("alert")
    assert "This may be an emergency" in banner.inner_text()
    assert banner.locator("svg").is_visible()
    call = banner.get_by_role("link", name="Call 112")
    assert call.get_attribute("href") == "tel:112"
    assert page.evaluate("getComputedStyle(document.querySelector('.banner')).backgroundColor") == "rgb(185, 28, 28)"
    box = call.bounding_box()
    assert 0 <= box["y"] <= 640 - box["height"]  # in sight without scrolling


def test_out_of_scope_says_so(page):
    ask(page, "Who won the football match?")
    assert "Outside of what this assistant answers" in page.locator(LOG).inner_text()
    assert "I answer questions about health." in page.locator(LOG).inner_text()


def test_stop_keeps_what_was_said_and_retry_asks_again(page, tuned, served):
    tuned.seconds_per_word, tuned.default = 0.05, "word " * 400
    page.fill(ASK, "Tell me everything")
    page.press(ASK, "Enter")
    page.wait_for_selector("#live section.in_short")
    page.press("#stop", "Enter")
    page.wait_for_selector(f"{LOG}.stopped")
    assert "word word" in page.locator(LOG).inner_text()
    assert "Stopped. The answer is not complete." in page.locator(LOG).inner_text()
    assert not served.service._open
    tuned.__init__()
    page.click("[data-action=retry]")
    page.wait_for_selector(f"{LOG}.done")
    assert "Iron-deficiency" in page.locator(LOG).inner_text()
    assert len(tuned.calls[-1][0]) == 1


def test_edit_replaces_a_question_and_what_followed(page, tuned):
    ask(page, "First question")
    ask(page, "Second question", 2)
    page.locator("[data-action=edit]").first.click()
    page.wait_for_function(f"document.querySelector('{ASK}').value == 'First question'")
    ask(page, "Better question", 1)
    assert "Better question" in page.locator(LOG).inner_text()
    assert [m.content for m in tuned.calls[-1][0]] == ["Better question"]


def test_thumbs_down_with_a_reason_and_a_correction(page, store):
    ask(page, "Why am I tired?")
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_label("It is wrong").check()
    page.get_by_label("How should the answer read?").fill("Iron is low.")
    page.get_by_label("This may be used to improve the model").check()
    page.locator("[data-action=down]").click()
    page.get_by_text("Thank you; your opinion is stored.").first.wait_for()
    row = store.rows(feedback)[-1]
    assert (row["rating"], row["reason"], row["correction"], row["consent"]) == ("down", "wrong", "Iron is low.", True)
    assert "Why am I tired?" in {m["content"] for m in store.rows(messages)}
    page.get_by_role("button", name="Good answer").click()
    page.wait_for_selector("[data-action=up][aria-pressed=true]")
    assert store.rows(feedback)[-1]["rating"] == "up"


def test_reload_keeps_and_delete_forgets(page, store):
    ask(page, "Why am I tired?")
    page.reload()
    page.wait_for_selector(LOG)
    assert "Iron-deficiency anaemia" in page.locator(LOG).inner_text()
    ask(page, "And now?", 2)
    before = len(store.rows(conversations))
    page.click("#delete")
    page.wait_for_selector(".examples button")
    assert len(store.rows(conversations)) == before - 1
    page.reload()
    page.wait_for_selector(".examples button")
    assert page.locator(LOG).count() == 0


def test_saving_and_copying(page):
    ask(page, "Why am I tired?")
    with page.expect_download() as saved:
        page.click("#save-json")
    talk = json.loads(saved.value.path().read_text())
    assert talk["turns"][0]["reply"]["sources"][0]["id"] == "anaemia-1"
    with page.expect_download() as saved:
        page.click("#save-markdown")
    text = saved.value.path().read_text()
    assert saved.value.suggested_filename == "conversation.md"
    assert "Why am I tired?" in text
    assert "1. Iron-deficiency anaemia <https://example.org/anaemia>" in text
    page.click("[data-action=copy]")
    page.get_by_text("Copied").wait_for()
    page.focus(ASK)
    page.keyboard.press("Control+V")
    assert "Iron-deficiency" in page.input_value(ASK)


def test_nothing_that_is_written_becomes_markup(page, tuned):
    tuned.default = INJECTIONS
    for question in (INJECTIONS, "again"):
        ask(page, question, 1 if question == INJECTIONS else 2)
    page.reload()
    page.wait_for_selector(LOG)
    for place in (".bubble", ".in_short"):
        assert INJECTIONS.split()[0] in page.locator(place).first.inner_text()
        assert "${window.hit=1} {{hit}}" in page.locator(place).first.inner_text()
    assert page.evaluate("window.hit") is None
    assert page.locator("#log img").count() == 0


def test_too_long_a_question_is_explained_and_not_asked(page, tuned):
    page.fill(ASK, "x" * 100_001)
    page.click("#send")
    page.get_by_text("A conversation may have 100000 characters in all.").wait_for()
    assert not tuned.calls
    assert page.locator(LOG).count() == 0


def test_examples_start_a_conversation(page):
    page.get_by_role("button", name="How is high blood pressure treated?").click()
    page.wait_for_selector(LOG)
    assert "How is high blood pressure treated?" in page.locator(".bubble").inner_text()


def test_on_a_phone_nothing_sticks_out_and_the_question_field_stays(make_page):
    page = make_page(size=(360, 640), color_scheme="dark")
    for number in range(1, 4):
        ask(page, f"Question {number}, " + "averyveryverylongword" * 5, number)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator(ASK).bounding_box()
    assert 0 < box["y"] < 640 - box["height"]
    assert box["width"] > 150
    assert page.evaluate("getComputedStyle(document.querySelector('.answer')).backgroundColor") == "rgb(24, 24, 27)"


def test_by_keyboard_alone(page):
    page.focus(ASK)
    page.keyboard.type("Why am I tired?")
    page.keyboard.press("Enter")
    page.wait_for_selector(LOG)
    for _ in range(60):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.matches('.cite button')"):
            break
    assert page.locator(".tip").is_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('[data-action=open]')"):
            break
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.matches('.feedback input')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(make_page, scheme):
    axe = pytest.importorskip("axe_core_python.base", reason="axe-core-python is not installed").AXE_SCRIPT
    page = make_page(color_scheme=scheme, bypass_csp=True)
    page.evaluate(axe)

    def serious() -> list[str]:
        found = page.evaluate("axe.run()")["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]

    assert serious() == []
    ask(page, "Why am I tired?")
    page.get_by_role("button", name="Bad answer").click()
    ask(page, "I have chest pain", 2)
    assert serious() == []
    page.get_by_role("tab", name="Compare").click()
    page.locator("#ask-both").wait_for()
    assert serious() == []


def test_in_spanish(make_page, tuned):
    page = make_page("/es/")
    page.wait_for_function("document.documentElement.lang === 'es'")
    ask(page, "dolor de pecho")
    assert "Puede ser una emergencia" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("link", name="Llame al 112").is_visible()
    assert tuned.languages[-1] == "es"


def test_two_runs_side_by_side_blind(page, store):
    page.get_by_role("tab", name="Compare").click()
    page.fill("#compare-question textarea", "Why am I tired?")
    page.locator("#blind input").check()
    page.click("#ask-both")
    page.get_by_role("button", name="Left is better").wait_for()
    sides = [page.locator(side).inner_text() for side in ("#left-answer", "#right-answer")]
    assert page.locator("#left-answer .who, #right-answer .who").all_inner_texts() == ["Answer A", "Answer B"]
    assert sum("The base says so." in side for side in sides) == 1
    page.get_by_role("button", name="Left is better").click()
    page.get_by_text(re.compile("Left was (tuned|base)")).wait_for()
    assert [(vote["choice"], vote["is_blind"]) for vote in store.rows(votes)] == [("left", True)]


def test_the_report_is_shown_without_rights(page):
    page.get_by_role("tab", name="Report").click()
    frame = page.frame_locator("iframe.report")
    frame.get_by_text("Tuning helped").wait_for()
    assert page.evaluate("window.hit") is None


def test_a_flood_is_explained(page, tuned, served, monkeypatch):
    monkeypatch.setattr(served.service, "limits", Limits(running=1, waiting=-1))
    ask(page, "Why am I tired?")
    assert "In an emergency call the emergency number" in page.locator(LOG).inner_text()
    assert not tuned.calls


def test_the_page_does_not_answer_for_the_api(served):
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405)):
        response = httpx.request(method, served.url + path)
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.post(served.url + "/gradio_api/upload", files={"files": b"x"}).status_code == 404


def test_with_keys_the_page_asks_for_one(tmp_path, browser):
    keys = Keys(tmp_path / "keys.json")
    _, text = keys.create("clinic")
    access = Access(keys)

    def make():
        app = app_of({"tuned": ScriptedAssistant()}, access=access)
        mount(app, app.state.service, access, "en")
        return app

    with running(make) as server:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.get_by_label("username").fill("me")
        page.get_by_label("password").fill(text)
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector(".examples button")
        assert httpx.get(server.url + "/config").status_code == 401
        page.close()
