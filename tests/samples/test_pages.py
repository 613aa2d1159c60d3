"""The samples' pages in a real browser; the ``browser`` fixture skips where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Run = Callable[..., Any]
OpenPage = Callable[[Any], Any]

# Colours on the canvas, coarsely: a drawn chart has lines of three colours besides the grid.
COUNT_COLOURS = """canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const pen = copy.getContext("2d", {willReadFrequently: true});
    pen.drawImage(canvas, 0, 0);
    const pixels = pen.getImageData(0, 0, copy.width, copy.height).data;
    const seen = {};
    for (let i = 0; i < pixels.length; i += 4) {
        if (pixels[i + 3] < 255) continue;
        const colour = pixels.slice(i, i + 3).join(" ");
        seen[colour] = (seen[colour] || 0) + 1;
    }
    return Object.values(seen).filter(count => count >= 20).length;
}"""


def wait_for_text(page: Any, selector: str, text: str) -> None:
    page.wait_for_function(
        "([selector, text]) => document.querySelector(selector).textContent.includes(text)",
        arg=[selector, text],
    )


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Open pages whose every error fails the test."""
    errors: list[str] = []
    pages: list[Any] = []

    def note(message: Any) -> None:
        if message.type in ("error", "warning"):
            errors.append(message.text)

    def open_one(sample: Any) -> Any:
        page = browser.new_page()
        pages.append(page)
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(sample.url)
        wait_for_text(page, "#connection", "live")
        return page

    yield open_one
    for page in pages:
        page.close()
    assert errors == []


class TestDashboard:
    def test_chart_is_drawn_and_figures_move(self, run_sample: Run, open_page: OpenPage) -> None:
        page = open_page(run_sample("dashboard", SPEED="4"))
        page.wait_for_function("() => readings.length >= 8")
        page.wait_for_function(f"() => ({COUNT_COLOURS})(document.querySelector('#chart')) >= 4")
        shown = page.text_content("#temperature")
        assert 90 < float(shown) < 200
        page.wait_for_function(
            "shown => document.querySelector('#temperature').textContent !== shown", arg=shown
        )

    def test_two_pages_are_counted(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("dashboard")
        one, two = open_page(sample), open_page(sample)
        wait_for_text(one, "#clients-box", "2 pages open")
        wait_for_text(two, "#clients-box", "2 pages open")
        two.goto("about:blank")
        wait_for_text(one, "#clients-box", "1 page open")

    def test_set_point_form_talks_back(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("dashboard")
        one, two = open_page(sample), open_page(sample)
        one.fill("#value", "132.5")
        one.click("#apply")
        wait_for_text(one, "#answer", "accepted: 132.5 °C")
        wait_for_text(two, "#set-point", "132.5")
        for bad in ("999", "hot", ""):
            one.fill("#value", bad)
            one.click("#apply")
            wait_for_text(one, "#answer", "must be a number from 100 to 180")
            one.fill("#value", "132.5")
            one.click("#apply")
            wait_for_text(one, "#answer", "accepted")

    def test_alarm_shows_up_in_every_page_and_in_a_later_one(
        self, run_sample: Run, open_page: OpenPage
    ) -> None:
        sample = run_sample("dashboard", SPEED="10")
        one, two = open_page(sample), open_page(sample)
        one.fill("#value", "178")
        one.click("#apply")
        for page in (one, two):
            wait_for_text(page, "#alarms", "pressure above 8 bar")
        wait_for_text(open_page(sample), "#alarms", "pressure above 8 bar")


class TestChat:
    def test_message_appears_in_the_other_page_as_typed(
        self, run_sample: Run, open_page: OpenPage
    ) -> None:
        sample = run_sample("chat")
        ann, bob = open_page(sample), open_page(sample)
        wait_for_text(ann, "#users", "2")
        ann.fill("#username", "<i>Ann</i>")
        ann.fill("#message", "<b>bold</b> & <img src=x onerror=alert(1)>")
        ann.press("#message", "Enter")
        wait_for_text(bob, "#messages", "<b>bold</b> & <img src=x onerror=alert(1)>")
        wait_for_text(bob, "#messages .who", "<i>Ann</i>")
        assert bob.locator("#messages .text *").count() == 0
        assert bob.locator("#messages i, #messages img").count() == 0
        wait_for_text(ann, "#note", "received")

        bob.fill("#message", "and back")
        bob.click("#send")
        wait_for_text(ann, "#messages", "and back")
        assert ann.locator("#messages li.mine").count() == 1

    def test_leaving_is_counted(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("chat")
        one, two = open_page(sample), open_page(sample)
        wait_for_text(one, "#users", "2")
        two.goto("about:blank")
        wait_for_text(one, "#users", "1")


class TestLongjob:
    def test_reload_and_second_tab_attach_again(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("longjob", STEP="0.2")
        page = open_page(sample)
        page.click("#install")
        page.wait_for_function("() => job.done >= 2")
        page.reload()
        for tab in (page, open_page(sample)):
            tab.wait_for_function("() => job.state === 'running' && job.done >= 2")
            wait_for_text(tab, "#title", "Installing 2.4.1")
            assert tab.is_visible("#bar")
            assert tab.is_disabled("#install")
            shown = float(tab.get_attribute("#bar", "value"))
            tab.wait_for_function(
                "shown => document.querySelector('#bar').value > shown", arg=shown
            )

    def test_any_tab_cancels(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("longjob", STEP="0.2")
        one, two = open_page(sample), open_page(sample)
        one.click("#install")
        wait_for_text(two, "#title", "Installing 2.4.1")
        two.evaluate("send('install', {version: '2.4.0'})")  # as if it saw no job yet
        wait_for_text(two, "#note", "version 2.4.1 is being installed already")
        two.click("#cancel")
        for page in (one, two):
            wait_for_text(page, "#title", "2.4.1 was cancelled; the pump still runs 2.4.0")
            assert page.is_hidden("#cancel")
            assert page.is_enabled("#install")

    def test_failure_and_success_are_shown(self, run_sample: Run, open_page: OpenPage) -> None:
        page = open_page(run_sample("longjob", STEP="0.001"))
        page.select_option("#version", "2.5.0-rc1")
        page.click("#install")
        wait_for_text(page, "#title", "Failed: the checksum of 2.5.0-rc1 is wrong")
        wait_for_text(page, "#percent", "83 %")
        page.select_option("#version", "2.4.1")
        page.click("#install")
        wait_for_text(page, "#title", "2.4.1 is installed")
        wait_for_text(page, "#percent", "100 %")
        assert page.text_content("#installed") == "2.4.1"


class TestAuth:
    """Pages whose login form comes first."""

    @pytest.fixture
    def open_login(self, browser: Any) -> Iterator[Callable[..., Any]]:
        """Log in as somebody, in a browser profile of its own."""
        contexts: list[Any] = []

        def open_one(sample: Any, name: str, password: str) -> Any:
            contexts.append(browser.new_context())
            page = contexts[-1].new_page()
            page.goto(sample.url)
            page.fill("#name", name)
            page.fill("#password", password)
            page.click("#enter")
            return page

        yield open_one
        for context in contexts:
            context.close()

    def test_operator_moves_and_viewer_watches(
        self, run_sample: Run, open_login: Callable[..., Any]
    ) -> None:
        sample = run_sample("auth")
        ada = open_login(sample, "ada", "lovelace")
        charles = open_login(sample, "charles", "babbage")
        wait_for_text(ada, "#who", "ada, operator")
        wait_for_text(charles, "#who", "charles, viewer")
        ada.click("#open")
        wait_for_text(charles, "#valve", "open by ada")
        charles.click("#close")
        wait_for_text(charles, "#note", "you may not send 'move'")
        assert "open" in ada.text_content("#position")

    def test_login_reload_and_logout(self, run_sample: Run, open_login: Callable[..., Any]) -> None:
        page = open_login(run_sample("auth"), "ada", "babbage")
        wait_for_text(page, "#note", "name or password is wrong")
        page.fill("#password", "lovelace")
        page.click("#enter")
        wait_for_text(page, "#connection", "live")
        page.reload()
        wait_for_text(page, "#connection", "live")
        page.click("#logout")
        wait_for_text(page, "#note", "logged out")
        page.reload()
        page.wait_for_selector("#login:not([hidden])")

    def test_session_is_renewed_and_expires(
        self, run_sample: Run, open_login: Callable[..., Any]
    ) -> None:
        page = open_login(run_sample("auth", SESSION_SECONDS="3"), "ada", "lovelace")
        wait_for_text(page, "#connection", "live")
        before = page.evaluate("ends")
        page.click("#renew")
        wait_for_text(page, "#note", "renewed")
        assert page.evaluate("ends") > before
        wait_for_text(page, "#note", "your session has expired")
        assert page.is_visible("#login")


@pytest.mark.parametrize("name", ["dashboard", "chat", "longjob"])
def test_page_reconnects_by_itself(run_sample: Run, browser: Any, name: str) -> None:
    first = run_sample(name)
    page = browser.new_page()
    try:
        page.goto(first.url)
        wait_for_text(page, "#connection", "live")
        first.process.terminate()
        assert first.finish()[0] == 0
        wait_for_text(page, "#connection", "trying again")
        run_sample(name, port=str(first.port))
        wait_for_text(page, "#connection", "live")
    finally:
        page.close()
