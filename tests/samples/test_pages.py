"""The samples' pages in a real browser; the ``browser`` fixture skips where there is none."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.relay import Relay

# A browser that draws curves without a graphics card takes its time beside other work.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
PATIENCE = 60_000  # milliseconds

Run = Callable[..., Any]
LOOKS = (Path(__file__).parent / "looks.js").read_text()
OpenPage = Callable[..., Any]

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
        page.set_default_timeout(PATIENCE)
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(sample.url)
        wait_for_text(page, "#connection", "live")
        return page

    yield open_one
    for page in pages:
        page.close()
    assert errors == []


def look(page: Any) -> None:
    """Hold a page to what can be measured of its looks, as wide as a desk and as a phone."""
    for size in ({"width": 1280, "height": 800}, {"width": 320, "height": 640}):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(LOOKS) == []


@pytest.fixture
def visit(browser: Any) -> Iterator[OpenPage]:
    """Open pages that may see their server fail, and wait until they are live."""
    pages: list[Any] = []

    def open_one(sample: Any, port: int = 0) -> Any:
        page = browser.new_page()
        pages.append(page)
        page.goto(f"http://127.0.0.1:{port or sample.port}/")
        wait_for_text(page, "#connection", "live")
        return page

    yield open_one
    for page in pages:
        page.close()


def is_stale(page: Any) -> bool:
    """Tell whether a page says that what it shows is old, and offers nothing to press."""
    online = page.eval_on_selector_all("fieldset.online", "all => all.some(f => !f.disabled)")
    return page.locator("body.stale").count() == 1 and not online


@pytest.mark.parametrize("name", ["dashboard", "chat", "kiosk", "longjob"])
def test_frozen_server_is_said_within_ten_seconds(
    run_sample: Run, visit: OpenPage, name: str
) -> None:
    sample = run_sample(name)
    page = visit(sample)
    assert not is_stale(page)
    sample.process.send_signal(signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        wait_for_text(page, "#connection", "does not answer, trying again")
        assert time.monotonic() - frozen < 10
        assert is_stale(page)
        look(page)
    finally:
        sample.process.send_signal(signal.SIGCONT)
    wait_for_text(page, "#connection", "live")
    assert not is_stale(page)


def wait_for_readings(page: Any, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelector('#chart').dataset.readings >= count", arg=count
    )


class TestDashboard:
    def test_cut_network_leaves_no_hole_in_the_curve(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("dashboard")
        with Relay(sample.port) as relay:
            page = visit(sample, relay.port)
            relay.stop_forwarding()
            # Both in one look: half a second later it may be live again.
            page.wait_for_function(
                "document.querySelector('#connection').textContent.includes('does not answer, try')"
                " && document.body.classList.contains('stale')"
                " && [...document.querySelectorAll('fieldset.online')].every(f => f.disabled)"
            )
            wait_for_text(page, "#connection", "live")
            assert page.get_attribute("#chart", "data-lines") == "1"

    def test_killed_and_restarted_says_what_was_lost(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("dashboard", SPEED="4")
        page = visit(sample)
        wait_for_readings(page, 20)
        look(page)
        sample.process.kill()
        sample.finish()
        wait_for_text(page, "#connection", "no connection, trying again")
        assert is_stale(page)
        look(page)
        before = page.text_content("#temperature")
        page.wait_for_timeout(2100)  # as long as a curve may be silent and be one
        run_sample("dashboard", port=str(sample.port), SPEED="4")
        wait_for_text(page, "#connection", "live")
        assert page.text_content("#temperature") != before
        wait_for_text(page, "#alarms", "The daemon was restarted; alarms from before are lost.")
        # Nobody measured anything meanwhile: a hole that is shown as one, and no second.
        page.wait_for_selector("#chart[data-lines='2']")
        assert not is_stale(page)

    @pytest.mark.timeout(150)
    def test_a_frozen_minute_is_never_shown_as_live(self, run_sample: Run, visit: OpenPage) -> None:
        sample = run_sample("dashboard")
        page = visit(sample)
        sample.process.send_signal(signal.SIGSTOP)
        try:
            wait_for_text(page, "#connection", "does not answer, trying again")
            for _ in range(10):
                page.wait_for_timeout(5000)
                assert is_stale(page)
        finally:
            sample.process.send_signal(signal.SIGCONT)
        wait_for_text(page, "#connection", "live")
        before = page.text_content("#temperature")
        page.wait_for_function(
            "before => document.querySelector('#temperature').textContent !== before", arg=before
        )
        assert not is_stale(page)

    def test_a_restart_with_goodbye_is_over_in_a_moment(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("dashboard")
        page = visit(sample)
        sample.process.send_signal(signal.SIGTERM)
        assert sample.finish()[0] == 0
        page.wait_for_selector("body.stale")
        assert is_stale(page)
        run_sample("dashboard", port=str(sample.port))
        wait_for_text(page, "#connection", "live")
        wait_for_text(page, "#alarms", "The daemon was restarted; alarms from before are lost.")
        assert not is_stale(page)

    def test_chart_is_drawn_and_figures_move(self, run_sample: Run, open_page: OpenPage) -> None:
        page = open_page(run_sample("dashboard", SPEED="4"))
        wait_for_readings(page, 8)
        page.wait_for_function(f"() => ({COUNT_COLOURS})(document.querySelector('#chart')) >= 4")
        shown = page.text_content("#temperature")
        assert 90 < float(shown) < 200
        page.wait_for_function(
            "shown => document.querySelector('#temperature').textContent !== shown", arg=shown
        )

    def test_two_pages_are_counted(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("dashboard")
        one, two = open_page(sample), open_page(sample)
        wait_for_text(one, "header", "2 pages open")
        wait_for_text(two, "header", "2 pages open")
        two.goto("about:blank")
        wait_for_text(one, "header", "1 page open")

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

    def test_killed_and_restarted_keeps_the_page_and_says_so(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("chat")
        page = visit(sample)
        page.fill("#message", "said before")
        page.click("#send")
        wait_for_text(page, "#messages", "said before")
        look(page)
        sample.process.kill()
        sample.finish()
        wait_for_text(page, "#connection", "no connection, trying again")
        assert is_stale(page)
        look(page)
        page.fill("#message", "written meanwhile")
        page.press("#message", "Enter")
        sample = run_sample("chat", port=str(sample.port))
        wait_for_text(page, "#connection", "live")
        wait_for_text(page, "#messages", "The server was restarted.")
        assert page.input_value("#message") == "written meanwhile"
        page.click("#send")
        wait_for_text(page, "#messages", "written meanwhile")
        wait_for_text(page, "#users", "1")
        assert page.locator("#messages .text").all_text_contents() == [
            "said before",
            "written meanwhile",
        ]
        # A page that is new reads what this server knows, and nothing else.
        assert "said before" not in visit(sample).text_content("#messages")

    def test_cut_network_loses_nothing_that_was_said(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("chat")
        with Relay(sample.port) as relay:
            away, here = visit(sample, relay.port), visit(sample)
            relay.stop_forwarding()
            for number in range(3):
                here.fill("#message", f"message {number}")
                here.press("#message", "Enter")
                wait_for_text(here, "#messages", f"message {number}")
            wait_for_text(away, "#messages", "message 2")
            texts = away.locator("#messages .text").all_text_contents()
            assert texts == [f"message {number}" for number in range(3)]
            assert away.locator(".lost").count() == 0


class TestLongjob:
    def test_reload_and_second_tab_attach_again(self, run_sample: Run, open_page: OpenPage) -> None:
        sample = run_sample("longjob", STEP="0.2")
        page = open_page(sample)
        page.click("#install")
        page.wait_for_function("() => document.querySelector('#bar').value > 0.01")
        page.reload()
        for tab in (page, open_page(sample)):
            tab.wait_for_function("() => document.querySelector('#bar').value > 0.01")
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
        two.evaluate("document.querySelector('#form').requestSubmit()")  # as if it saw no job yet
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

    def test_job_of_a_killed_daemon_is_said_to_have_failed(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("longjob", STEP="0.2")
        page = visit(sample)
        page.click("#install")
        page.wait_for_function("() => document.querySelector('#bar').value > 0.01")
        look(page)
        sample.process.kill()
        sample.finish()
        wait_for_text(page, "#connection", "no connection, trying again")
        assert is_stale(page)
        wait_for_text(page, "#phase", "when it was last heard of")  # nothing counts down
        look(page)
        run_sample("longjob", port=str(sample.port))
        wait_for_text(page, "#title", "Failed: the daemon was restarted in the middle of it.")
        assert page.is_hidden("#cancel")
        assert page.is_enabled("#install")


class TestKiosk:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_restart_keeps_values_and_log(
        self, run_sample: Run, visit: OpenPage, number: signal.Signals
    ) -> None:
        sample = run_sample("kiosk", SPEED="5")
        page = visit(sample)
        wait_for_text(page, "#level", ".")
        wait_for_text(page, "#log", "started")
        look(page)
        sample.process.send_signal(number)
        sample.finish()
        wait_for_text(page, "#connection", "no connection, trying again")
        assert is_stale(page)
        look(page)
        run_sample("kiosk", port=str(sample.port), SPEED="0.01")  # its device says nothing yet
        wait_for_text(page, "#connection", "live")
        wait_for_text(page, "#device", "The device has not spoken since")
        # It is live, and yet what was kept over the restart is not shown as new.
        assert page.locator(".values.stale").count() == 1
        assert "." in page.text_content("#level")
        clean = number is signal.SIGTERM
        wait_for_text(page, "#log", "stopped" if clean else "without a clean stop")
        log = page.text_content("#log")
        assert (log.count("started"), page.locator(".lost").count()) == (
            (2, 0) if clean else (3, 1)
        )


class TestCluster:
    def test_a_page_whose_process_is_killed_goes_to_another_one(
        self, run_sample: Run, visit: OpenPage
    ) -> None:
        sample = run_sample("cluster", RETURN="0.5")
        page, other = visit(sample), visit(sample)
        for name in ("red", "green", "blue"):
            wait_for_text(page, f"#processes .{name} .state", "process ")
        look(page)
        page.click("#wave")
        wait_for_text(page, "#note", "waved, here and on 2 other processes")
        wait_for_text(other, "#log", f"{page.text_content('#me')} waves")
        home = page.text_content("#server").split()[0]
        page.click(f"#processes .{home} button")
        wait_for_text(page, "#log", f"{home} is back, as process")
        wait_for_text(page, "#connection", "live")
        assert page.locator(".visitors li.me").count() == 1
        look(page)


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
        before = float(page.get_attribute("#left", "data-ends"))
        page.click("#renew")
        wait_for_text(page, "#note", "renewed")
        page.wait_for_function(
            "before => document.querySelector('#left').dataset.ends > before", arg=before
        )
        wait_for_text(page, "#note", "your session has expired")
        assert page.is_visible("#login")

    def test_login_is_said_to_be_lost_with_a_restart(
        self, run_sample: Run, open_login: Callable[..., Any]
    ) -> None:
        sample = run_sample("auth")
        page = open_login(sample, "ada", "lovelace")
        wait_for_text(page, "#connection", "live")
        look(page)
        sample.process.kill()
        sample.finish()
        wait_for_text(page, "#connection", "no connection, trying again")
        assert is_stale(page)
        wait_for_text(page, "#left", "not known without a connection")
        look(page)
        run_sample("auth", port=str(sample.port))
        wait_for_text(page, "#note", "does not know your session any more")
        assert page.is_visible("#login")
        look(page)
