"""What an app tells systemd, and what it leaves to its host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daebus import AddressInUseError, Daebus, DaebusHttp
from daebus.server.sockets.listener import listen
from tests.support.manager import Manager


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Stand in for systemd, with a watchdog that is fed by every heartbeat."""
    with Manager(str(tmp_path / "notify")) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", made.name)
        monkeypatch.setenv("WATCHDOG_USEC", "1")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield made


def make() -> Daebus:
    app = Daebus("service")
    app.attach(DaebusHttp(port=0))
    return app


READY, BEAT, STOPPING = {"READY": "1"}, {"WATCHDOG": "1"}, {"STOPPING": "1", "STATUS": "stopping"}


def test_start_and_stop(manager: Manager) -> None:
    app = make()
    for _ in range(2):
        app.start(notify=True)
        status = f"listens on 127.0.0.1:{app.http.port}"
        app.stop()
        assert manager.next() == {"READY": "1", "STATUS": status}
        # Nothing but the host feeds the watchdog.
        assert manager.next() == STOPPING
    assert manager.empty()


def test_nothing_is_said_unless_it_is_asked_for(manager: Manager) -> None:
    app = make()
    app.start()
    app.stop()
    with app:
        pass
    assert manager.empty()


def test_a_start_that_fails_says_nothing(manager: Manager) -> None:
    with listen("127.0.0.1", 0) as taken:
        app = Daebus("service")
        app.attach(DaebusHttp(port=taken.port))
        with pytest.raises(AddressInUseError):
            app.start(notify=True)
    assert manager.empty()


def test_a_later_start_may_say_nothing(manager: Manager) -> None:
    app = make()
    app.start(notify=True)
    app.stop()
    app.start()
    app.stop()
    assert "READY" in manager.next()
    assert manager.next() == STOPPING
    assert manager.empty()


@pytest.mark.parametrize("already", [False, True], ids=["new", "running"])
def test_run(manager: Manager, already: bool) -> None:
    app = make()
    if already:
        app.start()
    thread = threading.Thread(target=app.run, kwargs={"notify": True})
    thread.start()
    assert manager.next().items() >= READY.items()
    app.stop()
    assert manager.next() == STOPPING
    thread.join(5)
    assert not thread.is_alive()
    assert manager.empty()


def test_heartbeats_are_the_hosts(manager: Manager) -> None:
    app = make()
    app.heartbeat()  # before the start: it is the host's loop that lives
    assert manager.next() == BEAT
    app.start(notify=True)
    assert manager.next().items() >= READY.items()
    beating = threading.Thread(target=app.heartbeat)
    beating.start()
    assert manager.next() == BEAT
    beating.join(5)
    app.stop()
    assert manager.next() == STOPPING
    app.heartbeat()
    assert manager.next() == BEAT
