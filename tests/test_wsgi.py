"""The app inside other servers: gunicorn, Werkzeug's own and waitress, real ones."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.test import create_environ, run_wsgi_app

from daebus import AttachError, Daebus, DaebusHttp, Request, StateError
from tests.support.fixture_types import Connect
from tests.support.guest_site import make_app
from tests.support.peer import CLOSE, TEXT, Peer, envelope, upgrade_request
from tests.support.redisserver import RedisServer
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run on Windows")


@contextlib.contextmanager
def gunicorn(*options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a gunicorn with one worker; yield its port and its process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [
            sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}",
            "--no-control-socket", *options, "tests.support.guest_site:application",
        ]  # fmt: skip
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[listener.fileno()],
        )
        try:
            yield listener.getsockname()[1], process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@contextlib.contextmanager
def werkzeug(
    app: Daebus, wrap: Callable[[Any], Any] = lambda live: live, **options: Any
) -> Iterator[int]:
    """Run Werkzeug's own server in this process, with something around the app; yield its port."""
    server = make_server("127.0.0.1", 0, wrap(app.wsgi), **{"threaded": True, **options})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        app.stop(timeout=5)
        server.shutdown()
        thread.join(timeout=5)
        server.server_close()


@pytest.fixture(scope="module", autouse=True)  # older than any test, whose leaks are looked for
def real_gunicorn() -> Iterator[int]:
    with gunicorn("--worker-class", "gthread", "--threads", "2") as (port, _):
        yield port


@pytest.fixture(params=["gunicorn", "werkzeug"])
def port(request: pytest.FixtureRequest, real_gunicorn: int) -> Iterator[int]:
    """The port of a threaded server with the app as its guest."""
    if request.param == "gunicorn":
        yield real_gunicorn
        return
    with werkzeug(make_app()) as found:
        yield found


def get(port: int, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Ask once, on a connection of its own; return status and body."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET" if body is None else "POST", path, body)
        answer = client.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data.startswith(b"{") else data
    finally:
        client.close()


def refused(connect: Connect, port: int, request: bytes) -> tuple[int, str]:
    answer = Peer(connect(port)).ask(request)
    return answer.status, answer.json["code"]


# --- what works in both ---------------------------------------------------------


def test_routes_are_those_of_the_app(port: int) -> None:
    assert get(port, "/hello?name=Ada") == (200, {"hello": "Ada", "remote": "127.0.0.1"})
    assert get(port, "/post", b"a" * 100_000) == (200, {"size": 100_000})
    assert get(port, "/async") == (200, {"thread": "daebus-loop"})
    assert get(port, "/lines") == (200, b"line\n" * 3)
    assert get(port, "/nowhere")[0] == 404


def test_websockets_are_those_of_the_app(port: int, connect: Connect) -> None:
    peer = Peer.joined(connect(port))
    peer.say("echo", {"a": [1]})
    assert peer.message() == {"type": "response", "data": {"a": [1]}}
    peer.say("async")
    assert peer.message()["data"] == "daebus-loop"
    peer.say("thread")
    assert peer.message()["data"].startswith("daebus-ws-")
    assert get(port, "/shout") == (200, {"reached": 1})
    assert peer.message() == {"type": "broadcast", "data": "to all"}
    stats = get(port, "/look")[1]["stats"]
    assert stats["state"] == "running"
    assert stats["websocket"]["connections"] == 1
    peer.close()


def test_raw_path_and_its_end(port: int, connect: Connect) -> None:
    peer = Peer.joined(connect(port), "/raw?x=1")
    assert peer.frame() == (TEXT, b"/raw from 127.0.0.1")
    assert peer.part() == 1000


def test_frames_behind_the_upgrade_are_not_lost(port: int, connect: Connect) -> None:
    peer = Peer.joined(connect(port), behind=envelope("echo", 1) + envelope("echo", 2)[:9])
    peer.sock.sendall(envelope("echo", 2)[9:])
    assert [peer.message()["data"] for _ in range(2)] == [1, 2]
    peer.close()


def test_the_thread_goes_back_as_it_came(port: int, connect: Connect) -> None:
    before = len(get(port, "/look")[1]["events"])
    Peer.joined(connect(port)).close()
    assert eventually(lambda: len(get(port, "/look")[1]["events"]) >= before + 2)
    # Both threads of gunicorn answer, one of which has run a WebSocket.
    for _ in range(8):
        seen = get(port, "/look")[1]
        assert not seen["thread"].startswith("daebus-")
        assert not seen["client"]
    assert seen["events"][before:] == ["came", "client"]


def test_a_client_that_vanishes_frees_the_thread(port: int, connect: Connect) -> None:
    for _ in range(5):  # more than gunicorn has threads
        peer = Peer.joined(connect(port))
        peer.sock.close()
    assert eventually(lambda: get(port, "/look")[1]["stats"]["websocket"]["connections"] == 0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Sec-WebSocket-Key": "short"}, (400, "bad_handshake")),
        ({"Sec-WebSocket-Version": "8"}, (426, "unsupported_version")),
        ({"Origin": "https://example.com"}, (403, "origin_not_allowed")),
        ({"Content-Length": "1"}, (400, "bad_request")),
    ],
)
def test_refusals_are_ordinary_answers(
    port: int, connect: Connect, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    request = upgrade_request(headers=headers) + b"x" * ("Content-Length" in headers)
    assert refused(connect, port, request) == expected


# --- gunicorn alone -------------------------------------------------------------


def test_a_worker_that_ends_says_goodbye(connect: Connect) -> None:
    with gunicorn("--worker-class", "gthread", "--threads", "4") as (port, process):
        peers = [Peer.joined(connect(port)) for _ in range(3)]
        for peer in peers:
            peer.say("echo", 1)
            peer.message()
        process.terminate()
        assert [peer.part() for peer in peers] == [1001] * 3
        assert process.wait(timeout=10) == 0  # within its own patience, which is 30 s
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()


def test_a_preloaded_app_starts_in_the_worker(connect: Connect) -> None:
    with gunicorn("--preload", "--threads", "4") as (port, _):
        peer = Peer.joined(connect(port))
        peer.say("echo", 1)
        assert peer.message()["data"] == 1
        peer.close()


def test_a_worker_of_one_thread_has_no_websockets(connect: Connect) -> None:
    with gunicorn("--worker-class", "sync") as (port, process):
        assert get(port, "/hello")[0] == 200
        for _ in range(2):
            sock = connect(port)
            answer = Peer(sock).ask(upgrade_request())
            sock.close()  # the worker waits for that
            assert answer.status == 501
            assert answer.json["code"] == "not_implemented"
            assert "--threads" in answer.json["error"]
        process.terminate()
        output = process.communicate(timeout=10)[0]
    assert output.count("has one thread") == 1


@pytest.mark.slow
def test_each_of_several_workers_says_once_that_it_is_alone() -> None:
    answered: list[int] = []

    def all_answered_twice(port: int) -> bool:
        answered.append(get(port, "/look")[1]["pid"])
        return len(answered) - len(set(answered)) >= 3 == len(set(answered))

    with gunicorn("--workers", "3", "--threads", "4") as (shared, process):
        assert eventually(lambda: all_answered_twice(shared), 20)
        process.terminate()
        output = process.communicate(timeout=10)[0]
    assert output.count("guest: the server runs several processes, and each knows") == 3


def answers(port: int) -> bool:
    """Tell whether a worker answers within twenty seconds: three of them take long to start."""
    try:
        return get(port, "/hello")[0] == 200
    except TimeoutError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_several_workers_with_a_backplane_are_one_app(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as server:
        monkeypatch.setenv("DAEBUS_REDIS", server.url)
        with gunicorn("--workers", "3", "--threads", "20") as (shared, process):
            peers: dict[int, Peer] = {}
            assert eventually(lambda: answers(shared), 60)  # one is there, and takes the next

            seen: dict[int, int] = {}  # how many nodes each worker knows

            def has_one_of_each() -> bool:
                peer = Peer.joined(connect(shared))
                peer.say("pid")
                if peers.setdefault(peer.message()["data"], peer) is not peer:
                    peer.close()
                look = get(shared, "/look")[1]
                seen[look["pid"]] = look["stats"]["backplane"]["nodes"]
                return len(peers) == 3 and list(seen.values()) == [3, 3, 3]

            assert eventually(has_one_of_each, 30)
            for peer in peers.values():
                peer.say("shout to all", "lunch")
            for peer in peers.values():
                said = [peer.message() for _ in range(4)]
                told = [message["data"] for message in said if message["type"] == "broadcast"]
                assert sorted(told) == sorted(f"lunch from {pid}" for pid in peers)
                (answer,) = [message["data"] for message in said if message["type"] == "response"]
                assert answer == [1, 2]  # the one here, and the other two workers
            process.terminate()
            output = process.communicate(timeout=20)[0]
    assert "several processes" not in output
    assert "Traceback" not in output


# --- waitress -------------------------------------------------------------------


def test_waitress_serves_http_and_says_no_to_websockets(connect: Connect) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.guest_site", "waitress"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert get(port, "/hello")[1] == {"hello": "world", "remote": "127.0.0.1"}
        assert get(port, "/async")[1] == {"thread": "daebus-loop"}
        for _ in range(2):
            assert refused(connect, port, upgrade_request()) == (501, "not_implemented")
    finally:
        process.terminate()
        output = process.communicate(timeout=10)[1]
    assert output.count("does not share its sockets") == 1


# --- states, in this process ----------------------------------------------------


def test_stop_says_goodbye_and_later_requests_are_refused(connect: Connect) -> None:
    app = make_app()
    with werkzeug(app) as port:
        assert app.stats()["state"] == "new"
        peer = Peer.joined(connect(port))
        peer.say("echo", 1)
        peer.message()
        assert app.stats()["state"] == "running"
        with pytest.raises(StateError, match=r"inside another server"):
            app.start()
        with pytest.raises(AttachError):
            app.attach(DaebusHttp())
        stopped = threading.Thread(target=app.stop)
        stopped.start()
        assert peer.part() == 1001
        stopped.join(timeout=5)
        assert not app.running
        assert get(port, "/hello") == (
            503,
            {"error": "the app is stopping", "code": "stopping"},
        )
        assert refused(connect, port, upgrade_request()) == (503, "stopping")


def test_a_client_may_ask_whether_it_would_be_let_in(connect: Connect) -> None:
    app = make_app(path="/live/<name>")

    @app.websocket.authenticate
    def check(req: Any) -> Any:
        return req.path == "/live/ü" and req.args.get("token")

    with werkzeug(app) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        seen = []
        for path in ("/live/%25C3%25BC?token=t", "/live/%25C3%25BC", "/other", "x"):
            client.request("GET", f"/_daebus/check?path={path}")
            response = client.getresponse()
            body = response.read()
            seen.append((response.status, json.loads(body)["code"] if body else ""))
            client.close()
        assert seen == [
            (204, ""),
            (401, "unauthorized"),
            (404, "not_found"),
            (400, "bad_request"),
        ]
        wish = {"Origin": f"http://127.0.0.1:{port}", "Access-Control-Request-Method": "GET"}
        client.request("OPTIONS", "/_daebus/check?path=/live/a", headers=wish)
        response = client.getresponse()
        assert (response.status, response.read()) == (204, b"")
        assert response.headers["Access-Control-Allow-Headers"] == "Authorization"
        client.close()
        assert app.stats()["websocket"]["connections_total"] == 0


def test_below_a_path_of_another_app(connect: Connect) -> None:
    def site(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return [b"site"]

    app = make_app()
    app.route("/state/")(lambda req: {"below": req.root_path, "path": req.path})
    with werkzeug(app, wrap=lambda live: DispatcherMiddleware(site, {"/live": live})) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        seen = {}
        for path in ("/", "/live/state/", "/live/state"):
            client.request("GET", path)
            response = client.getresponse()
            body = response.read().decode()
            seen[path] = response.getheader("Location") or body
            client.close()
        assert seen["/"] == "site"
        assert json.loads(seen["/live/state/"]) == {"below": "/live", "path": "/state/"}
        assert seen["/live/state"] == f"http://127.0.0.1:{port}/live/state/"
        peer = Peer.joined(connect(port), "/live/")
        peer.say("echo", 1)
        assert peer.message()["data"] == 1
        peer.sock.close()


def test_stop_cuts_a_client_that_does_not_answer(connect: Connect) -> None:
    app = make_app()
    with werkzeug(app) as port:
        peer = Peer.joined(connect(port))
        assert eventually(lambda: app.websocket.get_client_count() == 1)
        assert app.stop(timeout=1.5) == []  # a busy machine takes its time to end threads
        assert peer.close_frame()[0] == 1001
        assert peer.ended()


def test_stop_names_the_thread_that_user_code_holds(connect: Connect) -> None:
    app = make_app(close_timeout=0.1)
    release = threading.Event()
    app.socket("hold")(lambda req: release.wait(20))
    with werkzeug(app) as port:
        peer = Peer.joined(connect(port))
        peer.say("hold")
        assert eventually(lambda: app.stats()["websocket"]["messages_in"] == 1)
        left = app.stop(timeout=1.0)
        release.set()
    assert len(left) == 1
    assert left[0].startswith("daebus-ws-")


def test_a_handler_may_stop_the_app(connect: Connect) -> None:
    app = make_app()
    left: list[list[str]] = []
    app.socket("stop")(lambda req: left.append(app.stop(timeout=5)))
    with werkzeug(app) as port:
        peer = Peer.joined(connect(port))
        peer.say("stop")
        assert peer.part() == 1001
        assert eventually(lambda: left == [[]])


def test_a_view_that_stops_the_app_too_is_not_waited_for() -> None:
    app = make_app()
    entered, go_on = threading.Event(), threading.Event()

    @app.route("/stop")
    def stop(req: Request) -> list[str]:
        entered.set()
        go_on.wait(20)
        return app.stop(timeout=20)

    with werkzeug(app) as port:
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(get(port, "/stop")))
        asking.start()
        assert entered.wait(5)
        began = time.monotonic()
        stopper = threading.Thread(target=app.stop, args=(20,))
        stopper.start()
        assert eventually(lambda: app.stats()["state"] == "stopping")
        go_on.set()
        stopper.join(30)
        asking.join(30)
        assert answers == [(200, b"[]")]
        assert time.monotonic() - began < 10


def test_stop_waits_for_a_request_in_flight() -> None:
    app = make_app()
    entered, release = threading.Event(), threading.Event()

    @app.route("/slow")
    def slow(req: Any) -> Any:
        entered.set()
        return {"released": release.wait(20)}

    answers: list[Any] = []
    with werkzeug(app) as port:
        asking = threading.Thread(target=lambda: answers.append(get(port, "/slow")))
        asking.start()
        assert entered.wait(5)
        stopping = threading.Thread(target=app.stop)
        stopping.start()
        assert eventually(lambda: not app.running)
        assert get(port, "/hello")[0] == 503
        stopping.join(timeout=0.2)
        assert stopping.is_alive()
        release.set()
        stopping.join(timeout=5)
        asking.join(timeout=5)
    assert answers == [(200, {"released": True})]


def test_start_is_for_a_port_of_its_own_and_wsgi_for_none(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    app.start()
    caplog.set_level(logging.CRITICAL, "werkzeug")
    with pytest.raises(StateError, match=r"app\.start\(\) or app\.wsgi, not both"):
        app.wsgi({}, None)
    app.stop()
    with werkzeug(app) as port:
        assert get(port, "/nowhere")[0] == 404
        assert app.running
        app.stop()
        app.start()  # after the stop it may have a port again
        assert app.running


def test_wsgi_needs_an_http_component() -> None:
    with pytest.raises(AttachError, match="DaebusHttp"):
        Daebus("empty").wsgi({}, None)


def test_without_a_websocket_component_there_are_only_routes(connect: Connect) -> None:
    app = Daebus("http alone")
    app.attach(DaebusHttp())
    app.route("/hello")(lambda req: {"hello": "world"})
    with werkzeug(app) as port:
        assert get(port, "/hello") == (200, {"hello": "world"})
        assert refused(connect, port, upgrade_request()) == (501, "not_implemented")


@pytest.mark.parametrize(
    ("target", "host", "peer", "status"),
    [
        ("/hello", "localhost:8000", "127.0.0.1", 200),
        ("/hello", "evil.example", "127.0.0.1", 421),
        ("/hello", "evil.example", "", 200),  # on a socket file
        ("/x/../hello", "localhost", "127.0.0.1", 400),
        ("/x/%2e%2e/hello", "localhost", "127.0.0.1", 400),
        ("/x%2f..%2fhello", "localhost", "127.0.0.1", 400),
    ],
)
def test_hosts_and_paths_are_judged_as_on_a_port_of_its_own(
    target: str, host: str, peer: str, status: int
) -> None:
    app = Daebus("guest")
    app.attach(DaebusHttp())
    app.route("/hello")(lambda req: "hello")
    environ = create_environ(target, headers={"Host": host})
    environ["REMOTE_ADDR"] = peer
    try:
        assert run_wsgi_app(app.wsgi, environ)[1][:3] == str(status)
        environ.update(HTTP_UPGRADE="websocket", REQUEST_METHOD="GET")
        refused = {200: "501"}.get(status, str(status))
        assert run_wsgi_app(app.wsgi, environ)[1][:3] == refused
    finally:
        app.stop()


def test_first_requests_that_come_together_start_one_app(connect: Connect) -> None:
    app = make_app()
    with werkzeug(app) as port:
        sockets = [connect(port) for _ in range(8)]
        for sock in sockets:
            sock.sendall(upgrade_request())
        peers = [Peer(sock) for sock in sockets]
        for peer in peers:
            assert peer.ask(b"").status == 101
            peer.say("echo", 1)
            assert peer.message()["data"] == 1
        assert app.stats()["threads"]["minder"] == 1
        assert app.websocket.get_client_count() == 8
        for peer in peers:
            peer.close()


def test_the_limit_of_clients_holds(connect: Connect) -> None:
    app = make_app(max_clients=1)
    with werkzeug(app) as port:
        peer = Peer.joined(connect(port))
        assert refused(connect, port, upgrade_request()) == (503, "too_many_clients")
        peer.close()


def test_clients_are_asked_who_they_are(connect: Connect) -> None:
    app = make_app()
    app.websocket.authenticate(lambda req: req.args.get("name") and [req.path, req.cookies["c"]])
    app.socket("who")(lambda req: req.identity)
    with werkzeug(app) as port:
        assert refused(connect, port, upgrade_request()) == (401, "unauthorized")
        peer = Peer(connect(port))
        assert peer.ask(upgrade_request("/x?name=ada", {"Cookie": "c=1"})).status == 101
        peer.say("who")
        assert peer.message()["data"] == ["/x", "1"]
        peer.close()


def test_no_descriptor_left_is_an_answer(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    app = make_app()

    def none_left(descriptor: int) -> int:
        raise OSError(24, "Too many open files")

    with werkzeug(app) as port:
        monkeypatch.setattr("os.dup", none_left)
        assert refused(connect, port, upgrade_request()) == (503, "overloaded")
        monkeypatch.undo()
        peer = Peer.joined(connect(port))
        peer.close()


def test_the_connection_ends_for_the_client_too(port: int, connect: Connect) -> None:
    peer = Peer.joined(connect(port))
    peer.send(CLOSE, (1000).to_bytes(2, "big"))
    assert peer.close_frame()[0] == 1000
    assert peer.ended()


@pytest.mark.parametrize("where", ["view", "mount", "hook", "error handler"])
def test_what_a_signal_handler_raises_reaches_the_server(app: Daebus, where: str) -> None:
    """As where gunicorn ends a worker that takes too long."""

    def end(number: int, frame: Any) -> None:
        raise TimeoutError("took too long")

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(number)

    if where == "hook":
        app.after_request(interrupted)
    elif where == "error handler":
        app.error_handler(404)(interrupted)
    elif where == "mount":
        app.mount("/x", interrupted)
    else:
        app.route("/x")(interrupted)
    number = signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        run_wsgi_app(app.wsgi, create_environ("/x"))
    number = signal.SIGALRM
    before = signal.signal(number, end)
    try:
        with pytest.raises(TimeoutError):
            run_wsgi_app(app.wsgi, create_environ("/x"))
    finally:
        signal.signal(number, before)
    app.stop(5)
