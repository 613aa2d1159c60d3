"""The tasks of an app: names, starts and stops, what is told about them."""

from __future__ import annotations

import io
import logging
import os
import queue
import threading
import time
from typing import Any

import pytest

from daebus import Daebus, DuplicateHandlerError, StateError, StopToken
from tests.support.waiting import eventually


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.mark.parametrize("interval", [0, -1.0, 1e-300, float("nan"), float("inf")])
def test_an_interval_is_a_time_that_one_can_wait(app: Daebus, interval: float) -> None:
    with pytest.raises(ValueError, match=r"interval must be (0.001 seconds or more|a number), "):
        app.background("tick", interval)


def test_threads_can_be_started_and_stopped_one_by_one(app: Daebus) -> None:
    began, ended = threading.Event(), threading.Event()

    @app.thread("later", auto_start=False)
    def later(running: StopToken) -> None:
        began.set()
        while running.wait(3600):
            pass
        ended.set()

    with pytest.raises(StateError, match=r"the app does not run; start it first: app\.start\(\)"):
        app.start_thread("later")
    app.start()
    assert app.stop_thread("later") is False
    assert not began.is_set()
    assert app.start_thread("later") is True
    assert began.wait(5)
    assert app.start_thread("later") is False
    assert app.stop_thread("later", timeout=5) is True
    assert ended.is_set()
    for wrong in (app.start_thread, app.stop_thread):
        with pytest.raises(LookupError, match=r"there is no thread 'other'; known are: 'later'"):
            wrong("other")


def test_a_thread_may_stop_itself_and_the_app(app: Daebus) -> None:
    outcome = queue.Queue[Any]()

    @app.thread("last")
    def last(running: StopToken) -> None:
        outcome.put(app.stop_thread("last"))
        outcome.put(running())
        outcome.put(app.stop(5))

    app.start()
    assert [outcome.get(timeout=10) for _ in range(3)] == [False, False, []]
    assert app.wait(5)


def test_two_threads_start_and_stop_one_at_once(app: Daebus) -> None:
    lives: list[int] = []
    most: list[int] = []

    @app.thread("busy", auto_start=False)
    def busy(running: StopToken) -> None:
        lives.append(1)
        most.append(len(lives))
        running.wait(3600)
        lives.pop()

    app.start()

    def fiddle() -> None:
        for _ in range(50):
            app.start_thread("busy")
            app.stop_thread("busy")

    fiddlers = [threading.Thread(target=fiddle) for _ in range(2)]
    for thread in fiddlers:
        thread.start()
    for thread in fiddlers:
        thread.join(20)
    app.stop_thread("busy")
    assert not lives
    assert max(most) == 1


def test_registered_while_the_app_runs_they_start_at_once(app: Daebus) -> None:
    calls = queue.Queue[str]()
    app.start()
    app.background("late", 0.01)(lambda: calls.put("background"))
    app.thread("late")(lambda running: calls.put("thread"))
    assert {calls.get(timeout=5), calls.get(timeout=5), calls.get(timeout=5)} == {
        "background",
        "thread",
    }


def test_names_are_unique_for_each_kind(app: Daebus) -> None:
    def first() -> None: ...

    def second() -> None: ...

    def third(running: StopToken) -> None: ...

    app.background("tick", 1)(first)
    app.thread("tick")(third)
    with pytest.raises(DuplicateHandlerError, match=r"'tick' has.*\.first;.*for .*\.second"):
        app.background("tick", 1)(second)


def test_functions_that_could_not_be_called_are_refused(app: Daebus) -> None:
    wrong: Any
    for wrong, text in (
        (
            lambda running: None,
            r"is called with no arguments, .*; write lambda: \.\.\.$",
        ),
        ("tick", "must be a function, not 'tick'"),
    ):
        with pytest.raises(TypeError, match=text):
            app.background("tick", 1)(wrong)
    with pytest.raises(TypeError, match=r"called with running, .*; write lambda running: \.\.\.$"):
        app.thread("tick")(lambda: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="a thread needs a name, not ''"):
        app.thread("")(lambda running: None)
    app.background("builtin", 3600)(dict)
    assert app.stats()["tasks"]["thread"] == {}


def test_stop_names_what_would_not_end_and_the_next_start_waits_for_it(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, release = threading.Event(), threading.Event()
    inside: list[int] = []
    most: list[int] = []

    def hang() -> None:
        inside.append(1)
        most.append(len(inside))
        stuck.set()
        release.wait(30)
        inside.pop()

    app.background("stuck", 0.001)(hang)
    app.thread("stuck")(lambda running: release.wait(30))
    app.start()
    assert stuck.wait(5)
    before = time.monotonic()
    assert sorted(app.stop(0.3)) == ["daebus-background-stuck", "daebus-thread-stuck"]
    assert time.monotonic() - before < 3
    for _ in range(2):  # the second stop names the first thread, the new one has ended
        app.start()
        assert sorted(app.stop(0.3)) == ["daebus-background-stuck", "daebus-thread-stuck"]
    stuck.clear()
    app.start()
    warning = "background 'stuck' is not called again yet: its call from before the stop still runs"
    assert eventually(lambda: warning in caplog.messages)
    assert not stuck.wait(0.05)  # fifty intervals
    release.set()
    assert stuck.wait(5)
    assert app.stop(5) == []
    assert max(most) == 1


def test_a_failed_start_calls_none(app: Daebus, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = queue.Queue[None]()
    app.thread("one")(lambda running: calls.put(None))
    app.thread("two")(lambda running: calls.put(None))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "daebus-thread-two":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        app.start()
    assert not app.running
    assert eventually(lambda: not threads_named("daebus-thread-one"))
    assert calls.empty()
    monkeypatch.undo()
    app.start()
    calls.get(timeout=5)
    calls.get(timeout=5)


def test_dump_and_stats_show_them(app: Daebus) -> None:
    entered = threading.Event()

    @app.thread("reader")
    def reader(running: StopToken) -> None:
        entered.set()
        running.wait(3600)

    app.background("tick", 3600)(lambda: None)
    app.start()
    assert entered.wait(5)
    text = io.StringIO()
    app.dump(text)
    assert "background 'tick', alive, 0 calls, 0 failed, -\n" in text.getvalue()
    assert "thread 'reader', alive, 1 calls, 0 failed, running for 0." in text.getvalue()
    assert app.stats()["threads"]["background"] == 1
    assert app.stats()["tasks"] == {
        "background": {"tick": {"alive": True, "calls": 0, "errors": 0, "missed": 0}},
        "thread": {"reader": {"alive": True, "calls": 1, "errors": 0}},
    }


def test_a_forked_child_has_none(app: Daebus) -> None:
    app.thread("reader")(lambda running: running.wait(3600))
    app.start()
    child = os.fork()
    if child == 0:
        alive = app.stats()["tasks"]["thread"]["reader"]["alive"]
        os._exit(1 if alive else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_clients_leave_and_the_app_stops_while_tasks_broadcast(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    sent = queue.Queue[int]()

    @app.thread("flood")
    def flood(running: StopToken) -> None:
        while running():
            sent.put(app.websocket.broadcast_to_all("x"))

    app.background("drip", 0.001)(lambda: app.websocket.broadcast_to_all("y"))
    app.start()
    with app.test_client() as ada:
        ada.receive("broadcast")
        with app.test_client() as bob:
            bob.receive("broadcast")
    assert app.stop(5) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not threads_named("daebus-thread-flood")
    assert not threads_named("daebus-background-drip")
