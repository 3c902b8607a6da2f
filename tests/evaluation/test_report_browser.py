"""The report in headless Chromium, opened from disk: hostile text stays text, filters, keys, links, phone."""

import json
import shutil

import pytest
from rich.console import Console

from evaluation.compare import compare
from evaluation.report.browser_data import call_script

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the path to open the report with")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Opens a page of the report; keeps every console message, dialog and request."""
    contexts = []

    def opening(folder, name="transcripts.html", viewport=DESKTOP, scheme="light", hash_=""):
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.seen = []
        page.on("console", lambda message: page.seen.append(message.text))
        page.on("pageerror", lambda error: page.seen.append(str(error)))
        page.on("dialog", lambda dialog: (page.seen.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.refused = []
        page.on("requestfailed", lambda request: page.refused.append((request.url, request.failure)))
        page.on("request", lambda request: None if request.url.startswith("file:") else page.seen.append(request.url))
        page.goto(f"{(folder / name).as_uri()}{hash_}")
        if name == "transcripts.html":
            page.wait_for_selector("body[data-ready]")
            page.wait_for_selector(".turn", state="attached")
        return page

    yield opening
    for context in contexts:
        context.close()


def until(page, expression):
    """Waits for an expression; `wait_for_function` may not, after its first look, because of the page's policy."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {expression}")


def selected(page):
    return page.locator('.entry[aria-selected="true"] .first').inner_text()


def test_hostile_text_is_shown_as_text_and_nothing_runs(built_report, open_page, hostile):
    page = open_page(built_report)
    for number in range(4):
        page.locator(".entry").nth(number).click()
        until(page, f"document.querySelectorAll('.turn').length === 3 && {number} >= 0")
        shown = page.locator("#dialogue").inner_text()
        assert sum(text.split("\u2028")[0] in shown for text in hostile) == 4
    assert page.title() == "SaFeR-Steer: transcripts"
    assert page.locator("main script, main svg, main b b, main style, main iframe").count() == 0
    assert page.locator("main img:not([src^='pictures/'])").count() == 0
    assert page.locator("[onerror], [onload], [style*='url']").count() == 0
    assert page.seen == []


def test_the_policy_stops_what_escaping_would_have_let_through(built_report, open_page):
    page = open_page(built_report)
    ran = page.evaluate("""() => new Promise((resolve) => {
        const box = document.createElement("div");
        box.innerHTML = '<img src="x" onerror="window.hacked = 1"><img src="https://example.invalid/x.png">';
        document.body.append(box);
        const script = document.createElement("script");
        script.textContent = "window.hacked = 2";
        document.body.append(script);
        setTimeout(() => resolve(window.hacked), 300);
    })""")
    assert ran is None
    assert any("Content Security Policy" in text for text in page.seen)
    assert ("https://example.invalid/x.png", "csp") in page.refused  # by the policy, not by the network


def test_filters_and_search(built_report, open_page):
    page = open_page(built_report)
    assert "4 of 4 dialogues" in page.locator("#count").inner_text()
    page.select_option("#benchmark", "dys")
    assert "3 of 4 dialogues" in page.locator("#count").inner_text()
    page.select_option("#outcome", "not safe")
    assert "3 of 4" in page.locator("#count").inner_text()
    page.select_option("#model", "2")
    assert "0 of 4" in page.locator("#count").inner_text()
    assert "No dialogue matches" in page.locator("#dialogue").inner_text()
    page.select_option("#outcome", "")
    page.select_option("#score", "-3")
    assert "0 of 4" in page.locator("#count").inner_text()
    page.select_option("#model", "0")
    assert "3 of 4" in page.locator("#count").inner_text()
    page.fill("#search", "ALERT(1)")
    until(page, "!document.getElementById('count').textContent.includes('reading')")
    assert "3 of 4" in page.locator("#count").inner_text()
    page.fill("#search", "no such words anywhere")
    assert "0 of 4" in page.locator("#count").inner_text()


def test_two_models_side_by_side_with_the_first_failure_marked(built_report, open_page):
    page = open_page(built_report)
    assert "Turn 2: first failure" in page.locator(".turn.failing h3").inner_text()
    page.select_option("#beside", "2")
    until(page, "document.querySelectorAll('#turn-2 .column').length === 2")
    titles = page.locator("#turn-2 .column > .who").all_inner_texts()
    assert titles == ["Base", "SFT+GRPO"]
    assert page.locator("#turn-2 .answer.failing").count() == 1
    boxes = [page.locator("#turn-2 .column").nth(i).bounding_box() for i in (0, 1)]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert "unscored: unparsed" in page.locator("#turn-3 .column").first.inner_text()
    page.select_option("#outcome", "differs")
    assert "4 of 4" in page.locator("#count").inner_text()
    page.select_option("#beside", "0")
    assert "0 of 4" in page.locator("#count").inner_text()
    page.select_option("#model", "1")
    page.select_option("#beside", "-1")  # a comparison needs another model: the next one
    assert (page.input_value("#beside"), page.locator("#count").inner_text()[:6]) == ("2", "0 of 4")


def test_where_an_attack_succeeded_is_marked_by_its_move(attacked_report, open_page):
    page = open_page(attacked_report, hash_="#model=SFT&beside=SFT%2C%20adaptive")
    facts = page.locator(".entry .facts").first.inner_text()
    assert facts.startswith("−1.33 · safe, helpful | fails at turn 3 by persistence")
    page.select_option("#by", "persistence")
    assert "4 of 4" in page.locator("#count").inner_text()
    page.wait_for_selector("#turn-3 .who.bad")
    marked = page.locator("#turn-3 .who.bad").inner_text()
    assert marked == "SFT, adaptive: first failure, by persistence, harmlessness -1"
    page.select_option("#by", "deepen")  # Base and its attacked self fell by that move, SFT did not
    assert "0 of 4" in page.locator("#count").inner_text()


def test_two_runs_compared_begin_with_what_got_worse(attacked_report, open_page, tmp_path):
    """The table's links lead into the browser, which has the same order."""
    runs = attacked_report.parent / "evaluation"
    compare([runs / "sft", runs / "adaptive/sft", runs / "adaptive/base"], tmp_path, "judge", Console(quiet=True))
    page = open_page(tmp_path, name="index.html")
    rows = page.locator("#worse tbody tr")
    assert rows.count() == 4 + 4 + 4
    assert "sft → adaptive/sft" in rows.nth(0).inner_text()
    assert "safe → not safe" in rows.nth(0).inner_text()
    assert "none → turn 3" in rows.nth(0).inner_text()
    rows.nth(5).locator("a").click()
    page.wait_for_selector("body[data-ready]")
    assert (page.input_value("#order"), page.locator("#model option:checked").inner_text()[-3:]) == ("worse", "sft")
    assert page.locator("#beside option:checked").inner_text() == "adaptive/base"
    page.wait_for_selector(".turn", state="attached")
    page.locator("#turn-2 h3 a").focus()
    before = selected(page)
    page.keyboard.press("j")  # also with a link in focus
    assert selected(page) != before


def test_nothing_is_cut_off_on_a_phone_or_on_a4(attacked_report, open_page):
    """Neither page is wider than the screen or the sheet; wide tables scroll in their own boxes, on paper they wrap."""
    sheet = {"width": round((210 - 2 * 12) / 25.4 * 96), "height": 1000}
    for name in ("index.html", "transcripts.html"):
        for viewport, media in ((PHONE, "screen"), (sheet, "print")):
            page = open_page(attacked_report, name=name, viewport=viewport)
            page.emulate_media(media=media)
            wide = page.evaluate("""() => [...document.querySelectorAll("body, main, table, .turn, .figure")]
                .filter((node) => node.getBoundingClientRect().right > innerWidth && !node.closest(".scroll")
                    || node.tagName === "BODY" && document.documentElement.scrollWidth > innerWidth
                    || matchMedia("print").matches && node.getBoundingClientRect().right > innerWidth)
                .map((node) => node.closest("[id]")?.id || node.tagName)""")
            assert wide == [], (name, media)


def test_keys_and_links(built_report, open_page):
    page = open_page(built_report)
    titles = page.locator(".entry .first").all_inner_texts()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert selected(page) == titles[1]
    page.keyboard.press("b")
    page.keyboard.press("b")
    page.keyboard.press("f")
    until(page, "location.hash.includes('turn=2')")
    address = page.evaluate("location.hash")
    assert address == "#model=Base&beside=SFT&id=d1&turn=2"
    page.keyboard.press("/")
    page.keyboard.type("j")
    assert page.input_value("#search") == "j"
    other = open_page(built_report, hash_=address)
    assert selected(other) == titles[1]
    assert other.input_value("#beside") == "1"
    top = other.locator("#turn-2").bounding_box()["y"]
    assert 0 <= top < 450 or other.evaluate("window.scrollY + window.innerHeight >= document.body.scrollHeight - 2")
    for broken in ("#model=nobody&id=%ZZ", "#id=<script>", "#turn=-1&id=d2"):
        assert open_page(built_report, hash_=broken).seen == []


def test_fifty_thousand_turns_draw_only_what_is_seen(built_report, open_page, tmp_path):
    """The list holds a screenful of entries, and only the chunk of the dialogue shown is read."""
    report = tmp_path / "report"
    shutil.copytree(built_report, report)
    source = (report / "data/index.js").read_text(encoding="utf-8")
    index = json.loads(json.loads(source[len("steerIndex(JSON.parse(") : -len("));\n")]))[0]
    template = index["dialogues"][1]
    shown = template | {"turns": 10}
    index["dialogues"] = [shown | {"id": f"n{i}", "title": f"dialogue {i}", "chunk": i // 40} for i in range(5000)]
    index["total"] = 5000
    (report / "data/index.js").write_text(call_script("steerIndex", index), encoding="utf-8")
    chunk = json.loads(json.loads((report / "data/0.js").read_text()[len("steerChunk(JSON.parse(") : -len("));\n")]))[1]
    for number in (0, 124):
        texts = {f"n{i}": chunk["d1"] for i in range(number * 40, number * 40 + 40)}
        (report / f"data/{number}.js").write_text(call_script("steerChunk", number, texts), encoding="utf-8")
    page = open_page(report)
    assert "5000 of 5000 dialogues" in page.locator("#count").inner_text()
    assert page.locator(".entry").count() < 60
    assert page.locator("script[src^='data/']").count() == 2  # the index and one chunk
    page.evaluate("document.getElementById('list').scrollTop = 1e9")
    page.wait_for_selector("text=dialogue 4999")
    page.get_by_text("dialogue 4999", exact=True).click()
    until(page, "location.hash.includes('n4999')")
    assert page.locator(".turn").count() == 3
    assert page.seen == []
