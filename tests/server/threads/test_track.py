"""Threads of ours are known by a mark on them, not by their names."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from daebus import Daebus, WebSocketRequest
from daebus.server.threads.track import is_own, lent, role_of, roles, track
from tests.support.waiting import eventually


def in_thread(function: Callable[[], object], name: str) -> threading.Thread:
    thread = threading.Thread(target=function, name=name)
    thread.start()
    return thread


def test_a_thread_has_the_role_it_was_given() -> None:
    thread = threading.Thread(target=lambda: None)
    assert role_of(thread) is None
    assert track(thread, "one") is thread
    assert role_of(thread) == "one"
    track(thread, "two")
    assert role_of(thread) == "two"
    assert "two" not in roles(), "it was never started"


def test_every_thread_of_an_app_has_a_role(app: Daebus) -> None:
    app.background("tick", 3600)(lambda: None)
    app.thread("reader")(lambda running: running.wait(3600))

    @app.socket("job", run_in="pool")
    async def job(req: WebSocketRequest) -> bool:
        return is_own()

    with app.test_client() as client:
        assert client.request("job") is True
        own = {
            thread: role_of(thread)
            for thread in threading.enumerate()
            if thread.name.startswith("daebus-")
        }
        assert None not in own.values()
        expected = {"accept": 1, "background": 1, "job": 1, "loop": 1, "minder": 1}
        expected |= {"thread": 1, "ws": 1}
        assert app.stats()["threads"] == expected


def test_a_parked_thread_is_counted_apart(app: Daebus) -> None:
    app.start()
    with app.test_client() as client:
        client.request("echo", 1)
        assert app.stats()["threads"]["ws"] == 1
    assert eventually(lambda: app.stats()["threads"].get("parked") == 1)
    assert "ws" not in app.stats()["threads"]


def test_a_host_may_call_its_threads_what_it_likes(app: Daebus) -> None:
    pumped: list[int] = []
    owned: list[bool] = []

    def host() -> None:
        owned.append(is_own())
        pumped.append(app.pump())

    app.start()
    in_thread(host, "daebus-host").join(5)
    assert (owned, pumped) == ([False], [0])
    assert "host" not in app.stats()["threads"]


def test_a_second_stop_waits_in_a_thread_of_the_host(app: Daebus) -> None:
    entered, release = threading.Event(), threading.Event()

    @app.socket("hold")
    def hold(req: WebSocketRequest) -> None:
        entered.set()
        release.wait(20)

    running_after: list[bool] = []

    def stop_again() -> None:
        app.stop(20)
        running_after.append(app.wait(0))

    with contextlib.ExitStack() as stack:
        stack.callback(release.set)
        client = stack.enter_context(app.test_client())
        client.send("hold")
        assert entered.wait(5)
        first = in_thread(lambda: app.stop(20), "first")
        assert eventually(lambda: not app.running)
        second = in_thread(stop_again, "daebus-host")
        second.join(0.1)
        assert second.is_alive(), "the stop is not over"
        release.set()
        first.join(10)
        second.join(10)
    assert running_after == [True]


def test_a_lent_thread_goes_back_as_it_came() -> None:
    seen: list[object] = []

    def borrow() -> None:
        thread = threading.current_thread()
        with lent("ws"):
            thread.name = "daebus-ws-1"
            seen.extend((is_own(), roles()["ws"]))
            with lent("http"):
                seen.append(role_of(thread))
            seen.append(role_of(thread))
        seen.extend((is_own(), thread.name))

    in_thread(borrow, "theirs").join(5)
    assert seen == [True, 1, "http", "ws", False, "theirs"]
