"""Stacks of other threads, and where they are left out."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from daebus.server.threads import stacks
from daebus.server.threads.stacks import LEFT_OUT, stack_of_coroutine, stack_of_thread


def test_stacks_are_left_out_where_looking_may_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "_has_gil", lambda: False)
    monkeypatch.setattr(sys, "version_info", (3, 13, 9, "final", 0))

    def crash() -> None:
        raise AssertionError("looked at other threads")

    monkeypatch.setattr(sys, "_current_frames", crash)
    release = threading.Event()
    other = threading.Thread(target=release.wait)
    other.start()
    waiting = asyncio.sleep(1)
    try:
        assert stack_of_thread(other.ident) == LEFT_OUT
        assert stack_of_coroutine(waiting) == LEFT_OUT
        assert "test_stacks_are_left_out" in stack_of_thread(threading.get_ident())
    finally:
        waiting.close()
        release.set()
        other.join()


@pytest.mark.parametrize(("version", "has_gil"), [((3, 14), False), ((3, 13), True)])
def test_stacks_are_given_elsewhere(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], has_gil: bool
) -> None:
    monkeypatch.setattr(stacks, "_has_gil", lambda: has_gil)
    monkeypatch.setattr(sys, "version_info", version)
    assert stacks._can_look()
