"""Pictures of the samples' pages, which the guide shows.

``make screenshots`` takes them anew. Without it the committed ones stay, and only the size is
compared, since fonts differ between machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import ROOT

pytestmark = pytest.mark.slow
PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 960, 640
TAKING = bool(os.environ.get("DAEBUS_SCREENSHOTS"))


def show_dashboard(page: Any) -> None:
    wanted = 80 if TAKING else 8
    page.wait_for_function(f"() => document.querySelector('#chart').dataset.readings >= {wanted}")


def show_chat(page: Any) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    page.fill("#username", "Ann")
    other.fill("#username", "Bob")
    for who, text in ((page, "The pump is back."), (other, "Since when?"), (page, "Ten minutes.")):
        who.fill("#message", text)
        who.click("#send")
        page.locator("#messages", has_text=text).wait_for()
    if TAKING:  # the names that the two had at first are still there for some seconds
        page.wait_for_function("() => document.querySelector('#users').textContent === '2'")


def show_kiosk(page: Any) -> None:
    page.locator("#log", has_text="the device is back").wait_for()


def show_longjob(page: Any) -> None:
    page.click("#install")
    page.wait_for_function("() => document.querySelector('#bar').value > 0.17")


def show_auth(page: Any) -> None:
    page.fill("#name", "ada")
    page.fill("#password", "lovelace")
    page.click("#enter")
    page.click("#open")
    page.locator("#valve", has_text="open by ada").wait_for()


def show_cluster(page: Any) -> None:
    others = [page.context.new_page() for _ in range(3)]
    for other in others:
        other.goto(page.url)
    for one in (page, *others):
        one.wait_for_function("() => document.querySelectorAll('.visitors li').length === 4")
    others[0].click("#wave")
    page.locator("#log", has_text="waves, by way of").wait_for()


@pytest.mark.parametrize(
    ("name", "show", "settings"),
    [
        ("dashboard", show_dashboard, {"SPEED": "2"}),
        ("chat", show_chat, {}),
        ("kiosk", show_kiosk, {"SPEED": "8"}),
        ("longjob", show_longjob, {"STEP": "0.05"}),
        ("auth", show_auth, {}),
        ("cluster", show_cluster, {}),
    ],
)
def test_page_looks_like_its_picture(
    run_sample: Callable[..., Any],
    browser: Any,
    tmp_path: Path,
    name: str,
    show: Callable[[Any], None],
    settings: dict[str, str],
) -> None:
    sample = run_sample(name, **settings)
    size_of_page = {"width": WIDTH, "height": HEIGHT}
    context = browser.new_context(viewport=size_of_page, color_scheme="light")
    page = context.new_page()
    folder = PICTURES if TAKING else tmp_path
    try:
        page.goto(sample.url)
        show(page)
        page.screenshot(path=folder / f"{name}.png")
    finally:
        context.close()
    taken, committed = ((f / f"{name}.png").read_bytes() for f in (folder, PICTURES))
    assert size(taken) == size(committed) == (WIDTH, HEIGHT)
    assert 5_000 < len(committed) < 100_000


def size(png: bytes) -> tuple[int, int]:
    """Return the width and the height that a PNG begins with."""
    assert png.startswith(b"\x89PNG")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
