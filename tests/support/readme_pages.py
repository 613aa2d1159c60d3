"""What a reader sees of the two apps of the README, in a browser."""

from __future__ import annotations

from typing import Any

__all__ = ["PAGES", "watch_hello", "watch_meter"]

_PATIENCE = 20_000  # milliseconds


def watch_hello(page: Any, url: str) -> None:
    """See the greeting that follows what is typed."""
    page.goto(url)
    page.wait_for_function("document.body.innerText.includes('hello Ada')", timeout=_PATIENCE)
    page.fill("#who", "Grace")
    page.wait_for_function("document.body.innerText.includes('hello Grace')", timeout=_PATIENCE)


def watch_meter(page: Any, url: str) -> None:
    """See readings come, and come faster when the page asks for it."""
    page.goto(url)
    told = "document.getElementById('reading').textContent"
    page.wait_for_function(f"{told}.startsWith('966 W at ')", timeout=_PATIENCE)
    page.fill("#seconds", "0.1")
    page.press("#seconds", "Enter")
    before = page.evaluate(told)
    page.wait_for_function(f"{told} !== {before!r}", timeout=_PATIENCE)


PAGES = {"hello.py": watch_hello, "meter.py": watch_meter}
