"""What interrupts a thread amid a read of its own, and wants to read there too."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.errors import StateError
from daebus.http.protocol.parser import Parser
from daebus.http.site import views
from daebus.server.sockets.tlssocket import TlsSocket
from daebus.server.threads import safelog
from daebus.websocket.protocol.codec import Codec
from tests.support.held import holding, owners_of_locks
from tests.support.inside import connections
from tests.support.tls import client_context, server_context

# Where a thread is when it is interrupted.
AMID: dict[str, tuple[type, str]] = {
    "tls": (TlsSocket, "_count_barren"),  # within the lock
    "frames": (Codec, "feed"),
    "head": (Parser, "feed"),
}


class Interruptions:
    """Calls a function, in one thread, whenever that comes by a method."""

    def __init__(self, patch: pytest.MonkeyPatch, where: str) -> None:
        self.call: Callable[[], Any] | None = None
        self.thread = 0
        self.raised: list[BaseException] = []
        owner, name = AMID[where]
        original = getattr(owner, name)

        def interrupted(*args: Any) -> Any:
            call, self.call = self.call, None
            if call is not None and threading.get_ident() == self.thread:
                self.attempt(call)
            else:
                self.call = self.call or call
            return original(*args)

        patch.setattr(owner, name, interrupted)

    def attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as exc:
            self.raised.append(exc)

    def at_next(self, call: Callable[[], Any]) -> None:
        self.call, self.thread = call, threading.get_ident()


def app_with(tls: bool) -> Daebus:
    app = Daebus("reading")
    app.attach(DaebusHttp(port=0, ssl_context=server_context() if tls else None))
    app.attach(DaebusWebSocket())
    return app


def refused(raised: list[BaseException], what: str) -> bool:
    return [type(exc) for exc in raised] == [StateError] and str(raised[0]).startswith(what)


@pytest.mark.parametrize("where", ["tls", "frames"])
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_recv_amid_a_recv(
    monkeypatch: pytest.MonkeyPatch, where: str, timeout: float | None
) -> None:
    amid = Interruptions(monkeypatch, where)
    app = app_with(where == "tls")

    @app.raw("/echo")
    def echo(connection: Any) -> None:
        connection.send("ready")
        amid.at_next(connection.recv)
        connection.send(connection.recv(timeout))
        connection.send(connection.recv(timeout))

    app.start()
    context = client_context() if where == "tls" else None
    with app.test_client("/echo", ssl_context=context) as client:
        assert client.websocket.receive(20) == "ready"
        for text in ("one", "two"):
            client.send_raw(text)
            assert client.websocket.receive(20) == text
    assert app.stop(5) == []
    assert refused(amid.raised, "recv() was called by something that interrupted")


def test_recv_within_every_lock_of_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    amid = Interruptions(monkeypatch, "frames")
    app = app_with(tls=True)
    tried = 0

    @app.raw("/echo")
    def echo(connection: Any) -> None:
        nonlocal tried
        locks = owners_of_locks(app, safelog._repeats, views._maps, *connections(app))
        for owner, name in locks.values():
            holding(owner, name, lambda: amid.attempt(lambda: connection.recv(0.02)))()
            tried += 1
        connection.send(connection.recv())

    app.start()
    with app.test_client("/echo", ssl_context=client_context()) as client:
        client.send_raw("one")
        assert client.websocket.receive(20) == "one"
    assert app.stop(5) == []
    assert tried > 9
    assert [type(exc) for exc in amid.raised] == [StateError] * tried


@pytest.mark.parametrize("where", ["tls", "head"])
def test_a_body_amid_a_read_of_it(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    amid = Interruptions(monkeypatch, where)
    app = app_with(where == "tls")

    @app.before_request
    def look(req: Any) -> None:
        amid.at_next(req.get_data)

    @app.route("/size", methods=["POST"])
    def size(req: Any) -> str:
        return str(len(req.get_data()))

    app.start()
    client = (
        http.client.HTTPSConnection("localhost", app.http.port, context=client_context())
        if where == "tls"
        else http.client.HTTPConnection("localhost", app.http.port)
    )
    client.request("POST", "/size", bytes(3_000_000))
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (200, b"3000000")
    client.close()
    assert app.stop(5) == []
    assert refused(amid.raised, "reading the body of a request was called by")
