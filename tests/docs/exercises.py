"""Clients that call what the snippets of the guide register, page by page."""

from __future__ import annotations

import functools
import io
import json
import logging
import queue
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import simple_websocket
from werkzeug.test import create_environ, run_wsgi_app

from daebus import Client, Daebus, DaebusHttp
from daebus.testing import AppClient, RequestError
from daebus.websocket.cluster.info import BackplaneInfo
from tests.clients.scripted import Conn, ScriptedServer
from tests.support.builds import shows_stacks
from tests.support.tls import authority


def fetch(port: int, path: str, body: Any = None) -> tuple[int, str, str]:
    """Return status, type and text; a body is sent with PUT, as JSON."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if body is not None:
        request.method, request.data = "PUT", json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers.get_content_type(), exc.read().decode()


def closing_code(client: simple_websocket.Client) -> int:
    """Read until the connection ends; return the close code."""
    while True:
        try:
            assert client.receive(timeout=20) is not None
        except simple_websocket.ConnectionClosed as closed:
            return int(closed.reason)


class Warnings(logging.Handler):
    """Texts that the snippets log, to wait for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: queue.Queue[str] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.put(record.getMessage())

    def wait_for(self, pattern: str) -> None:
        while not re.search(pattern, self._texts.get(timeout=20)):
            pass


def exercise_first_steps(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client() as client:
        assert client.request("divide", {"number": 6, "by": 3}) == 2
        with pytest.raises(RequestError, match="bad_divisor: cannot divide by zero"):
            client.request("divide", {"number": 6, "by": 0})
        assert client.request("double", 4) == 8
        assert client.request("invented") == "invented is not for us"
        assert client.request("notes.write", "milk") == 1
        assert json.loads(fetch(app.http.port, "/notes/all")[2]) == ["milk"]
        assert 20 <= client.receive("measured")["data"] <= 21
        assert client.receive("clock")["data"] == 1
    names["test_notes_are_kept"]()
    exercise_work(app, names["work"])


def exercise_messages(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    assert names["rest"](1j) == [0, 1]
    with app.test_client() as ada:
        assert ada.receive("welcome")["data"] == {"name": "guest 1"}
        with app.test_client() as bob:
            assert bob.receive("welcome")["data"] == {"name": "guest 2"}
            exercise_handlers(ada)
            exercise_rooms(ada, bob, names["websocket"].get_clients())
            ada.send("vote", "tea?")
            for client in (ada, bob):
                ballot = client.receive("ballot")
                client.answer(ballot, [ballot["data"], "yes"])
            assert ada.receive("response")["data"] == [["tea?", "yes"]] * 2
            with app.test_client("/upload") as raw:
                raw.receive("welcome")
                raw.send_raw("x" * 600)
                assert raw.websocket.receive(timeout=20) == "600"
                raw.send_raw(b"x" * 600)
                assert raw.websocket.receive(timeout=20) == "1200"
                assert closing_code(raw.websocket) == 4000
            assert re.fullmatch(
                r"guest 3 left after \d s: server", ada.receive("broadcast")["data"]
            )
            with app.test_client("/device/pump/2?unit=mA") as device:
                device.receive("welcome")
                assert device.websocket.receive(timeout=20) == "pump: channel 2 in mA"
    with app, app.test_client() as idler:
        idler.receive("welcome")
        names["send_idlers_away"](3600)
        assert idler.request("countdown", {"start": 0}) == "done"
        names["send_idlers_away"](-1)
        assert closing_code(idler.websocket) == 4000


def exercise_handlers(client: AppClient) -> None:
    assert client.request("report", {"lines": ["a", "b"]}) == {"status": "working"}
    assert client.request("rename", {"name": "ada"}) == "Ada"
    assert client.receive("report")["data"] == {"rows": ["A", "B"]}
    client.send("whisper", {})
    assert len(client.receive("error")["data"]["ticket"]) == 32
    client.send_raw(b"x" * 500)
    packed = client.websocket.receive(timeout=20)
    assert isinstance(packed, bytes)
    assert zlib.decompress(packed) == b"x" * 500
    client.send_raw(b"x" * 5000)
    assert "at most" in client.receive("response")["data"]["error"]
    about = client.request("whoami")
    assert about == {"language": None, "theme": "light", "rooms": [], "path": "/"}
    assert client.request("later") == {"started": True}
    assert client.receive("later")["data"] == {"done": True}
    client.send("delete", "a.txt")
    question = client.receive("confirm")
    assert question["data"] == {"file": "a.txt"}
    client.answer(question, True)
    assert client.receive("response")["data"] == "deleted"
    assert client.request("countdown", {"start": 3}) == "done"
    assert [client.receive("count")["data"] for _ in range(3)] == [3, 2, 1]


def exercise_topics(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client() as client, app.test_client() as device:
        # Who sends nothing has it all the same.
        assert client.receive("subscribed", timeout=20)["data"]["epoch"] == names["weather"].epoch
        assert client.receive("state")["data"]["set"] == {"sky": "clear"}
        for number in (0, 1, 7):
            device.request("report", {"number": number, "values": {"volts": number}})
        with pytest.raises(RequestError, match="hidden: device 0 is not shown"):
            client.request("subscribe", {"topic": "device/0"})
        with pytest.raises(RequestError, match="forbidden"):
            client.request("subscribe", {"topic": "device/1"})
        assert client.request("subscribe", {"topic": "device/7"})["replay"] == 1
        assert client.receive("state")["data"]["set"] == {"volts": 7}
        assert client.request("follow") is True
        assert client.receive("alarm")["data"] == {"text": "pressure"}
        assert client.request("enter", {"name": "Ada"}) is not None
        assert client.receive("message")["data"] == "Ada is on floor 3"
        assert client.request("subscribe", {"topic": "presence:floor 3"})["kind"] == "state"
        # Told a moment after the join, so the state may be that of before.
        while "Ada" not in (shown := client.receive("presence")["data"]["set"]):
            pass
        assert shown["Ada"]["clients"] == 1
        assert client.request("subscribe", {"topic": "log", "last": 1})["replay"] == 1
        assert client.receive("log")["data"]["message"] == "pressure is 9 bar"
        client.request("subscribe", {"topic": "boiler"})
        while client.receive("state")["data"]["set"].get("celsius") != 22.0:
            pass
    for handler in names["log"].handlers[:]:
        names["log"].removeHandler(handler)


def exercise_migrating(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    with names["before"].test_client() as client:
        assert client.receive("snapshot")["data"] == {}
        names["set_value"]("celsius", 21.4)
        assert client.receive("change")["data"] == {"celsius": 21.4}
    with names["app"].test_client() as client:
        assert client.receive("state")["data"]["set"] == {"celsius": 21.4}


def exercise_http(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app:
        exercise_routes(app)
    exercise_dispatcher(names)


def exercise_running(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client():
        assert json.loads(fetch(app.http.port, "/health")[2])["clients"] == 1


def exercise_safety(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client() as client:
        assert client.request("search", {"text": "b"}) == ["boiler", "burner"]
        assert client.request("guess", {"text": "valve"}) is True
    exercise_tls(names, folder)


def exercise_load(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client() as client:
        assert client.request("total", 4) == 6
        assert client.request("copy", 2) == "copied"
        assert [client.receive("progress")["data"]["done"] for _ in range(2)] == [0, 1]
        client.send("squares", 3)
        assert [client.receive("response")["data"] for _ in range(3)] == [0, 1, 4]
        names["publish"](22.5)
        assert client.receive("temperature")["data"] == {"celsius": 22.5}
        with app.test_client() as watcher:
            watcher.send("watch")
            assert watcher.receive("reading")["data"] == 1
            stack = r"(.*\n)+.*req\.cancelled\.wait" if shows_stacks() else ""
            warnings.wait_for(rf"^watch has run for 1 s at\n{stack}")
    connected = threading.Event()
    app.websocket.on_connect(lambda client_id: connected.set())
    with app, client_that_does_not_read(app):
        assert connected.wait(20)
        while names["websocket"].broadcast_to_all("x" * 65536):
            pass
        warnings.wait_for(r": \d{6,} bytes wait, cut$")


def exercise_rooms(ada: AppClient, bob: AppClient, ids: list[str]) -> None:
    assert ada.request("enter", {"floor": 2}) == {"room": "floor 2", "people": 1}
    assert bob.request("enter", {"floor": 2}) == {"room": "floor 2", "people": 2}
    assert ada.receive("broadcast")["data"] == "somebody came"
    ada.send("whisper", {"to": ids[1], "text": "psst"})
    assert bob.receive("whisper")["data"] == "psst"
    with pytest.raises(RequestError, match="not_sent: has left"):
        ada.request("whisper", {"to": "nobody", "text": "psst"})
    for client in (ada, bob):
        client.send("login", {"user": "Ann"})
    assert bob.request("countdown", {"start": 0}) == "done"  # it is handled after the login
    ada.send("read", {"user": "Ann", "article": 7})
    assert bob.receive("read")["data"] == {"article": 7}
    for client in (ada, bob):
        client.send("describe", {"city": "Bergen"})
    assert ids[1] in bob.request("neighbours", {"city": "Bergen"})
    assert bob.request("neighbours", {"city": "Rome"}) == []
    assert ids[1].startswith("127.0.0.1 number ")


def exercise_routes(app: Daebus) -> None:
    assert fetch(app.http.port, "/items/7")[0] == 404
    assert fetch(app.http.port, "/items/7", {"name": "nut"})[0] == 201
    assert fetch(app.http.port, "/items/7") == (200, "application/json", '{"name":"nut"}')
    assert fetch(app.http.port, "/lines?count=2")[2] == "line 0\nline 1\n"
    exercise_forms(app.http.port)
    assert fetch(app.http.port, "/admin")[0] == 401
    assert fetch(app.http.port, "/half/4")[2] == '{"half":0.5}'
    assert fetch(app.http.port, "/half/0")[0] == 400
    assert fetch(app.http.port, "/half/1001") == (
        404,
        "text/html",
        "<h1>There is no /half/1001</h1>",
    )
    assert fetch(app.http.port, "/old/x")[2] == "/old has no /x"
    assert fetch(app.http.port, "/_daebus/health")[2] == '{"status": "ok"}'


def exercise_dispatcher(names: dict[str, Any]) -> None:
    seen = {}
    for path in ("/x", "/live/state"):
        body, _, _ = run_wsgi_app(names["application"], create_environ(path))
        seen[path] = b"".join(body).decode()
    names["live"].stop()
    assert seen == {"/x": " has no /x", "/live/state": '{"below":"/live"}'}


def exercise_forms(port: int) -> None:
    head = 'Content-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    parts = [head % ("user", "", "Ada"), head % ("photo", '; filename="../a.png"', "12345")]
    body = "".join(f"--B\r\n{part}" for part in parts) + "--B--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    url = f"http://127.0.0.1:{port}"
    for greeting, cookie in (("stranger", {}), ("Ada", {"Cookie": "user=Ada"})):
        request = urllib.request.Request(f"{url}/login", body.encode(), {**kind, **cookie})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.read().decode() == f"welcome back, {greeting}"
            assert answer.headers["Set-Cookie"] == "user=Ada; HttpOnly; Path=/; SameSite=Lax"
    request = urllib.request.Request(f"{url}/photos", body.encode(), kind)
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert json.loads(answer.read()) == {"saved": "a.png", "size": 5}


def exercise_methods(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["boiler"].app
    with app.test_client() as client:
        assert client.receive("target")["data"] == 60
        assert client.request("set", 70) == 70
        assert json.loads(fetch(app.http.port, "/target")[2]) == {"target": 70}


def exercise_prometheus(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client():
        status, kind, text = fetch(app.http.port, "/metrics")
        assert (status, kind) == (200, "text/plain")
        assert "\ndaebus_connections 1\n" in text
        assert all(re.fullmatch(r"# TYPE \w+ \w+|\w+(\{.*\})? \d+", li) for li in text.splitlines())


def exercise_kiosk(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    with names["app"].test_client() as client:
        assert client.receive("version")["data"] == names["VERSION"]


def exercise_work(app: Daebus, work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not app.running:
            thread.join(0.01)
            assert thread.is_alive()
        with app.test_client() as client:
            assert client.receive("broadcast")["data"] == "tick"
            client.send("stop")
            assert closing_code(client.websocket) == 1001
    finally:
        app.stop()
        thread.join(20)
    assert not thread.is_alive()


@contextmanager
def client_that_does_not_read(app: Daebus) -> Iterator[None]:
    request = (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{app.http.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", app.http.port), timeout=20) as sock:
        sock.sendall(request.encode())
        yield


def exercise_tls(names: dict[str, Any], folder: Path) -> None:
    certfile, keyfile, trust = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    issued = authority().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(certfile)
    issued.private_key_pem.write_to_path(keyfile)
    authority().cert_pem.write_to_path(trust)
    app: Daebus = names["secure_app"](0, certfile, keyfile)
    app.socket("secure")(lambda req: req.websocket.secure)
    context = ssl.create_default_context(cafile=trust)
    with app.test_client(ssl_context=context) as client:
        assert client.request("secure") is True
    make = names["context_for_known_clients"]
    known = Daebus("known")
    known.attach(DaebusHttp(port=0, ssl_context=make(certfile, keyfile, trust)))
    known.route("/")(lambda req: "known")
    issued.configure_cert(context)
    with known:
        url = f"https://127.0.0.1:{known.http.port}/"
        with urllib.request.urlopen(url, context=context, timeout=20) as answer:
            assert answer.read() == b"known"


def exercise_another_program(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    seen: list[float] = []
    with app:
        url = f"http://127.0.0.1:{app.http.port}/"
        assert names["heat"](url, 60) == 60
        assert names["heat"](url, 95) == "too_hot"
        assert names["first_reading"](url) == {"celsius": 21.5}
        assert names["watch"](url, seen) == ("yes", "response")
        assert seen == [22.0]
    with ScriptedServer() as server, ThreadPoolExecutor(3) as pool:
        coming = pool.submit(server.accept)
        with Client(server.url) as client:
            exercise_scripted(names, client, coming.result(20), server, pool)


def exercise_scripted(
    names: dict[str, Any],
    client: Client,
    conn: Conn,
    server: ScriptedServer,
    pool: ThreadPoolExecutor,
) -> None:
    told = queue.Queue[str]()
    names["follow_status"](client, told.put)
    paying = pool.submit(names["pay"], client, 5)
    conn.receive("pay")
    conn.cut()
    assert paying.result(20).startswith("the server may have done it")
    reading = pool.submit(names["read_meter"], client)
    conn = server.accept()
    conn.answer(conn.receive("read"), 4711)
    assert reading.result(20) == 4711
    assert told.get(timeout=20) == "waiting 1006"
    file = io.StringIO()
    logging = pool.submit(names["log_alarms"], client, file, {"epoch": "e", "offset": 3})
    asked = conn.receive("subscribe")
    assert asked["data"] == {"topic": "alarms", "since": {"epoch": "e", "offset": 3}}
    answer = {"epoch": "e", "offset": 4, "recovered": True, "reason": None, "replay": 1}
    conn.answer(asked, {"topic": "alarms", "kind": "history", "missed": 0, **answer})
    gap = {"topic": "alarms", "epoch": "e", "offset": 3, "missed": 2, "reason": "slow"}
    conn.send("gap", gap)
    conn.send("alarm", "hot", topic="alarms", offset=4)
    heat = pool.submit(names["wait_for_heat"], client)
    asked = conn.receive("subscribe")
    conn.answer(asked, {"topic": "boiler", "kind": "state", "missed": 0, **answer})
    values = {"snapshot": True, "set": {"celsius": 21.4}, "synced": True}
    conn.send("state", values, topic="boiler", offset=4)
    assert heat.result(20) == 21.4
    client.close()
    logging.result(20)
    assert json.loads(file.getvalue()) == ["hot", {"epoch": "e", "offset": 4}]


def exercise_cores(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    with app.test_client() as client:
        client.send("vote", "yes")
        assert client.receive("standing")["data"] == {"yes": 1}


def exercise_several(names: dict[str, Any], warnings: Warnings, folder: Path) -> None:
    app: Daebus = names["app"]
    app.websocket.topic("alarms")
    app.websocket.state("house")
    with app.test_client() as client:
        (ident,) = app.websocket.get_clients()
        wait_for = functools.partial(client.receive, timeout=5)
        assert client.request("alarm", "fire") == "0 guards here, and 0 other processes"
        assert client.request("who") == {"guards": [], "silent": [], "processes": ["hall"]}
        up, nodes, missed, lost_out = names["health"]()
        assert (up, nodes, missed, lost_out) == (True, 1, 0, 0)
        names["tell"]("gap", BackplaneInfo("hall", missed=1))
        names["tell"]("up", BackplaneInfo("hall"))
        client.request("subscribe", {"topic": "alarms"})
        client.request("subscribe", {"topic": "house"})
        app.websocket.join(ident, "guards")
        app.websocket.identify(ident, "ada")
        names["nightly"](names["redis_url"])
        assert wait_for("status")["data"] == {"doors": "closed"}
        assert wait_for("message")["data"] == "the backup is done"
        assert wait_for("alarm")["data"] == {"text": "a door is open"}
    assert "password" not in repr(names["over_tls"])


EXERCISES: dict[str, Callable[[dict[str, Any], Warnings, Path], None]] = {
    "another_program.rst": exercise_another_program,
    "first_steps.rst": exercise_first_steps,
    "messages.rst": exercise_messages,
    "topics.rst": exercise_topics,
    "several.rst": exercise_several,
    "migrating.rst": exercise_migrating,
    "http.rst": exercise_http,
    "running.rst": exercise_running,
    "safety.rst": exercise_safety,
    "load.rst": exercise_load,
    "cores.rst": exercise_cores,
    "methods.rst": exercise_methods,
    "prometheus.rst": exercise_prometheus,
    "kiosk.rst": exercise_kiosk,
}
