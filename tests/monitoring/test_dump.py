"""``dump()`` and SIGUSR1 print every thread, connection, queue and stack."""

from __future__ import annotations

import asyncio
import io
import signal
import socket
import subprocess
import sys
import threading

import pytest

from daebus import Daebus, WebSocketRequest
from tests.support.builds import shows, shows_stacks
from tests.support.fixture_types import MakeApp
from tests.support.handlers import waiting_handler
from tests.support.inside import connections
from tests.support.peer import Peer
from tests.support.slow_clients import narrow, stuff


def test_it_shows_connections_queues_and_stacks(make_app: MakeApp) -> None:
    app = make_app()
    begun, release = waiting_handler(app)
    async_begun = threading.Event()

    @app.socket("async")
    async def an_async_handler(req: WebSocketRequest) -> None:
        async_begun.set()
        while not release.is_set():
            await asyncio.sleep(0.01)

    app.start()
    with narrow(app) as slow, narrow(app) as busy, narrow(app) as coroutine:
        connection = stuff(app)
        busy.say("wait")
        coroutine.say("async")
        assert begun.wait(5)
        assert async_begun.wait(5)
        file = io.StringIO()
        app.dump(file)
        text = file.getvalue()
        ids = app.websocket.get_clients()
        assert slow.sock.fileno() >= 0
        lines = {i: next(line for line in text.splitlines() if line.strip().startswith(i))
                 for i in ids}  # fmt: skip
        size, count = connection.writer.outlet.queued()
        assert f"outbox {size} bytes in {count} messages" in lines[ids[0]]
        assert "running wait" in lines[ids[1]]
        assert "running async" in lines[ids[2]]
        assert "3 connections" in text
        for name in ("daebus-accept", "daebus-minder", "daebus-loop", "MainThread"):
            assert f"thread {name}" in text
        for client_id in ids:
            assert f"thread daebus-ws-{client_id}" in text
        assert shows(text, ", in wait")
        assert shows(text, "an_async_handler")
        release.set()
    assert connections(app) is not None


def test_it_may_be_called_at_any_time(app: Daebus, capsys: pytest.CaptureFixture[str]) -> None:
    app.dump()
    app.start()
    app.dump()
    app.stop()
    app.dump()
    text = capsys.readouterr().err
    assert "<Daebus 'test' new>" in text
    assert "<Daebus 'test' running>" in text
    assert "<Daebus 'test' stopped>" in text


def test_it_may_be_called_in_a_handler(app: Daebus) -> None:
    file = io.StringIO()

    @app.socket("dump")
    def dump(req: WebSocketRequest) -> str:
        app.dump(file)
        return "dumped"

    with app.test_client() as client:
        assert client.request("dump") == "dumped"
    assert "running dump" in file.getvalue()


# It says its port once ``run`` has taken over the signals, which it does before it starts:
# SIGUSR1 would end the program until then.
_PROGRAM = """
import threading
from daebus import Daebus, DaebusHttp, DaebusWebSocket
app = Daebus("signalled")
http = app.attach(DaebusHttp(port=0))
app.attach(DaebusWebSocket())

@app.socket("wait")
def a_handler_that_waits(req):
    app.websocket.send("begun")
    req.cancelled.wait(20)

def say_port():
    pause = threading.Event()
    while not app.running:
        pause.wait(0.01)
    print(http.port, flush=True)

threading.Thread(target=say_port, daemon=True).start()
app.run(timeout=2)
print("ended", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_sigusr1_prints_it_and_the_program_goes_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            port = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                peer = Peer.joined(sock)
                peer.say("wait")
                assert peer.message()["data"] == "begun"
                for _ in range(2):
                    process.send_signal(signal.SIGUSR1)
                    text = ""
                    end = "a_handler_that_waits" if shows_stacks() else "thread daebus-ws-"
                    while end not in text:
                        line = process.stderr.readline()
                        assert line, text
                        text += line
                    assert "1 connections" in text
                    assert "running wait" in text
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=10)
            assert out.endswith("ended\n")
            assert process.returncode == 0
        finally:
            process.kill()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_sigusr1_does_not_end_a_program_whose_stderr_is_gone() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            port = int(process.stdout.readline())
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                peer = Peer.joined(sock)
                process.stderr.close()
                process.stderr = None
                process.send_signal(signal.SIGUSR1)
                # Ample for the handler of the signal to fail and end the program.
                threading.Event().wait(0.6)
                peer.say("wait")
                assert peer.message()["data"] == "begun"
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=10)
            assert out.endswith("ended\n")
        finally:
            process.kill()
