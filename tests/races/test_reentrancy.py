"""Each public method within each lock: whoever interrupts a thread of ours need not wait for it."""

from __future__ import annotations

import ast
import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import daebus
from daebus import Daebus, DaebusHttp, DaebusWebSocket, MemoryBackplane
from daebus.engine import Engine
from daebus.http.site import views
from daebus.lifecycle import Lifecycle
from daebus.server.threads import safelog
from daebus.tasks.registry import Tasks
from tests.support.held import holding, owners_of_locks
from tests.support.inside import activity_of, connections
from tests.support.public import ENDS, REFUSALS, PublicCall, app_calls, public_calls
from tests.support.tls import client_context, server_context
from tests.support.waiting import eventually

# Seconds for any call; those that wait were told to wait for less.
PROMISE = 5.0

# Those that no app refers to for longer than a moment: of a message that comes in pieces, of a
# topic that is made; the poller of systems without epoll; those for which a Redis must be there.
PASSING = {"Progress", "_Birth", "SelectorPoller", "Emitter", "Inbound", "Queue"}


class Running:
    """An app with one client, which comes back when it is sent away."""

    def __init__(self) -> None:
        self.app = Daebus("interrupted")
        http = DaebusHttp(port=0, topics="/_daebus/topics", ssl_context=server_context())
        self.app.attach(http)
        ws = self.app.attach(DaebusWebSocket(idle_timeout=900.0, max_clients_per_ip=9))
        self.app.attach(MemoryBackplane(partitions=4))
        ws.on_backplane(lambda event: None)

        @ws.socket("ask", rate="9000/s", per="address")
        def ask(req: Any) -> None:
            assert not req.cancelled.is_set()

        self.topics = (ws.topic("alarms", auto=True), ws.state("boiler", auto=True, ttl=900.0))
        self.app.start()
        self.clients = contextlib.ExitStack()
        self.connect()

    def connect(self) -> None:
        self.clients.close()
        assert eventually(lambda: not connections(self.app))
        client = self.clients.enter_context(self.app.test_client(ssl_context=client_context()))
        client.send("ask")  # so that there are stoppable requests
        assert eventually(lambda: len(connections(self.app)) == 1)
        link = connections(self.app)[0]
        assert eventually(lambda: activity_of(link)._pending is not None)

    @property
    def subjects(self) -> tuple[object, ...]:
        link = connections(self.app)[0]
        connection = activity_of(link).connection
        return (self.app, self.app.http, self.app.websocket, connection)

    def locks(self) -> dict[str, tuple[Any, str]]:
        return owners_of_locks(self.app, safelog._repeats, views._maps, *connections(self.app))

    def calls(self) -> list[PublicCall]:
        link = connections(self.app)[0]
        of_topics = [call for one in self.topics for call in public_calls(one, link.client_id)]
        return app_calls(self.app, activity_of(link).connection, link.client_id) + of_topics

    def ending_calls(self) -> list[PublicCall]:
        client_id = connections(self.app)[0].client_id
        return [
            call
            for subject in self.subjects
            for call in public_calls(subject, client_id)
            if call.name.rpartition(".")[2] in ENDS - {"drain", "run", "stop"}
        ]

    def stop(self) -> None:
        self.clients.close()
        self.app.stop(5)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


def makers_of_locks() -> set[str]:
    """Return the classes of an app that make a lock when they are made.

    Those of clients are tried beside the client's other tests.
    """
    makes = re.compile(r"self\._?lock = threading\.Lock\(\)")
    return {
        node.name
        for path in Path(daebus.__file__).parent.rglob("*.py")
        if path.parent.name != "client" and makes.search(text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        if makes.search(ast.get_source_segment(text, node) or "")
    }


def within(owner: Any, name: str, calls: list[PublicCall]) -> list[str]:
    """Make each call within a lock, in a thread; return what is wrong with them."""
    wrong: list[str] = []
    now = ""

    def one(call: PublicCall) -> None:
        nonlocal now
        now = call.name
        began = time.monotonic()
        try:
            call.run()
        except REFUSALS:
            pass
        except BaseException as exc:
            wrong.append(f"{call.name}: {exc!r}")
        if time.monotonic() - began > PROMISE:
            wrong.append(f"{call.name} took {time.monotonic() - began:.1f} s")

    def all_of_them() -> None:
        for call in calls:
            holding(owner, name, lambda call=call: one(call))()  # type: ignore[misc]  # a default argument

    thread = threading.Thread(target=all_of_them, daemon=True)
    thread.start()
    while thread.is_alive():
        before = now
        thread.join(PROMISE + 1)
        if thread.is_alive() and now == before:
            wrong.append(f"{now} does not return")
            with contextlib.suppress(RuntimeError):
                getattr(owner, name).release()
            thread.join(PROMISE)
            break
    return wrong


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_public_method_returns_at_once_within_every_lock(
    running: Running, every: bool
) -> None:
    locks = running.locks()
    assert {"Registry", "Writer", "Stats", "Tasks", "Lifecycle", "FairPool", "Repeats"} <= set(
        locks
    )
    wrong: dict[str, list[str]] = {}
    share = 1 if every else 8  # the quick one makes each call, but not in each lock
    assert len(locks) > 8
    for turn, (kind, (owner, name)) in enumerate(sorted(locks.items())):
        problems = within(owner, name, running.calls()[turn % share :: share])
        if problems:
            wrong[kind] = problems
    assert wrong == {}


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_ends_a_connection_does_so_within_every_lock(running: Running, every: bool) -> None:
    wrong: dict[str, list[str]] = {}
    for turn, kind in enumerate(sorted(running.locks())):
        calls = len(running.ending_calls())
        for number in range(calls) if every else [turn % calls]:
            call = running.ending_calls()[number]
            problems = within(*running.locks()[kind], [call])
            if not eventually(lambda: not connections(running.app)):
                problems.append(f"{call.name} has not ended the connection")
            if problems:
                wrong.setdefault(kind, []).extend(problems)
            running.connect()
    assert wrong == {}


@pytest.mark.parametrize(
    "kind",
    [
        "Registry",
        "TlsSocket",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in sorted(makers_of_locks() - PASSING - {"Registry", "TlsSocket"})
        ),
    ],
)
def test_a_drain_and_a_stop_within_a_lock_go_on_elsewhere(kind: str) -> None:
    running = Running()
    try:
        stopped: list[list[str]] = []
        lock = running.locks()[kind]
        drain = PublicCall("Daebus.drain", lambda: running.app.drain(0.0))
        stop = PublicCall("Daebus.stop", lambda: stopped.append(running.app.stop(5)))
        assert within(*lock, [drain]) == []
        assert eventually(lambda: not connections(running.app))
        assert within(*lock, [stop]) == []
        assert stopped == [[]]
        assert running.app.wait(10)
    finally:
        running.stop()


def test_a_stop_within_the_start_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Daebus("interrupted")
    app.attach(DaebusHttp(port=0))
    run = Engine.run

    def interrupted(engine: Engine) -> None:
        app.drain()
        assert app.stop(5) == []
        run(engine)

    monkeypatch.setattr(Engine, "run", interrupted)
    app.start()
    assert app.wait(10)


@pytest.mark.parametrize("step", ["_claim", "bind", "run", "release"])
def test_an_exception_within_the_start_leaves_the_app_at_rest(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    app = Daebus("interrupted")
    app.attach(DaebusHttp(port=0))
    owner: Any = {"_claim": Lifecycle, "release": Tasks}.get(step, Engine)
    original = getattr(owner, step)

    def interrupted(*args: Any) -> None:
        original(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            app.start()
    assert not app.running
    app.start()
    assert app.stop(5) == []


def test_an_exception_within_the_stop_does_not_keep_it_from_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Daebus("interrupted")
    app.attach(DaebusHttp(port=0))
    app.start()

    def interrupted(*args: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Tasks, "finish_stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.stop(5)
    assert app.wait(10)
    app.start()
    assert app.stop(5) == []
