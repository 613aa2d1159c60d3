"""HTTPS: the same answers, and nobody who connects and then stops harms the others."""

from __future__ import annotations

import email.utils
import json
import os
import queue
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket, Request
from daebus.http.serving import exchange
from daebus.server.sockets.tlssocket import TlsSocket
from daebus.server.threads.pool import WorkerPool
from daebus.server.tlshandshakes import TLS_REFUSAL
from tests.http.serving.test_limits import Gate
from tests.support.fixture_types import Connect, MakeApp, Serve
from tests.support.raw import Raw, server_of
from tests.support.tls import (
    CA,
    VERSIONS,
    Sealer,
    authority,
    client_context,
    dial,
    narrow,
    secure,
    server_context,
)
from tests.support.waiting import eventually


class Secure(Raw):
    """A raw client behind TLS."""

    def __init__(self, app: Daebus, **options: Any) -> None:
        self.sock = dial(app.http.port, **options)
        self.buffer = b""
        self.chunks = []


Open = Callable[..., Secure]


@pytest.fixture
def raw() -> Iterator[Open]:
    opened: list[Secure] = []

    def open_one(app: Daebus, **options: Any) -> Secure:
        opened.append(Secure(app, **options))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.sock.close()


@pytest.fixture
def app(serve: Serve) -> Daebus:
    app = serve(**secure(workers=2))

    @app.route("/", methods=["GET", "POST"])
    def view(req: Request) -> Any:
        return {"url": req.url, "secure": req.is_secure, "size": len(req.get_data())}

    @app.route("/mirror", methods=["POST"])
    def mirror(req: Request) -> Any:
        return req.get_data()

    app.start()
    return app


# --- requests -----------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_requests_one_after_the_other(app: Daebus, raw: Open, version: ssl.TLSVersion) -> None:
    client = raw(app, context=client_context(version))
    for _ in range(3):
        answer = client.get("/")
        assert answer.json == {"url": "https://x/", "secure": True, "size": 0}
        assert answer.header("connection") is None
    client.ask("/")
    client.ask("/", "Connection: close")
    assert client.answer().status == 200
    assert client.answer().header("connection") == "close"
    assert client.ended()  # with close_notify, or the client would raise


def test_a_request_whose_record_comes_in_two_parts(
    app: Daebus, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "NEXT_REQUEST", 5.0)  # the worker reads, not the acceptor
    readers: queue.Queue[str] = queue.Queue()
    recv = TlsSocket.recv

    def noted(self: TlsSocket, size: int, flags: int = 0) -> bytes:
        try:
            return recv(self, size, flags)
        except BlockingIOError:
            readers.put(threading.current_thread().name)
            raise

    sealer = Sealer(connect(app.http.port)).join()
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    sealer.sendall(request)
    assert sealer.read().startswith(b"HTTP/1.1 200 ")
    monkeypatch.setattr(TlsSocket, "recv", noted)
    record = sealer.seal(request)
    sealer.sock.sendall(record[:20])
    assert readers.get(timeout=5).startswith("daebus-http-")
    sealer.sock.sendall(record[20:])
    assert sealer.read().startswith(b"HTTP/1.1 200 ")


def test_a_client_of_the_standard_library(app: Daebus) -> None:
    url = f"https://127.0.0.1:{app.http.port}/"
    with urllib.request.urlopen(url, context=client_context(), timeout=5) as answer:
        assert json.load(answer)["url"] == url


def test_large_bodies_both_ways(app: Daebus, raw: Open) -> None:
    client = raw(app)
    body = os.urandom(1 << 20) * 3
    for _ in range(2):
        # Not posted by ``Raw``: answer and body would wait for each other.
        client.send(f"POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n")
        client.send(body)
        assert client.answer().body == body


def test_a_body_in_chunks_of_any_record(app: Daebus, raw: Open) -> None:
    client = raw(app)
    head = b"POST /mirror HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for byte in head + b"3\r\nabc\r\n":  # a record for each byte
        client.send(bytes((byte,)))
    client.send(b"2\r\nde\r\n0\r\n\r\n")
    assert client.answer().body == b"abcde"


def test_expect_continue(app: Daebus, raw: Open) -> None:
    client = raw(app)
    client.send("POST /mirror HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n")
    client.send("Expect: 100-continue\r\n\r\n")
    assert client.head().status == 100
    client.send(b"body")
    assert client.answer().body == b"body"


def test_an_answer_that_streams(serve: Serve, raw: Open) -> None:
    app = serve(**secure())
    go = threading.Semaphore(0)

    @app.route("/")
    def view(req: Request) -> Any:
        for number in range(3):
            yield f"part {number}"
            assert go.acquire(timeout=5)

    app.start()
    client = raw(app)
    client.ask("/")
    assert client.head().header("transfer-encoding") == "chunked"
    for number in range(3):  # each came before the next was made
        assert client.chunk() == b"part %d" % number
        go.release()
    assert client.chunk() == b""
    assert client.get("/nowhere").status == 404


def test_a_stream_waits_for_its_client(serve: Serve, raw: Open) -> None:
    app = serve(**secure())
    app.route("/")(lambda req: (bytes((number,)) * 1_000_003 for number in range(8)))
    app.start()
    narrow(app)
    client = raw(app, receive_buffer=16384)
    client.ask("/")
    client.head()
    for number in range(8):
        assert client.chunk() == bytes((number,)) * 1_000_003
    assert client.chunk() == b""


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_slow_readers_hold_no_worker(serve: Serve, raw: Open, kind: str, tmp_path: Path) -> None:
    body = os.urandom(1 << 20) * 5
    (tmp_path / "file").write_bytes(body)
    app = serve(**secure(workers=1, static=tmp_path))
    app.route("/memory")(lambda req: body)
    app.route("/quick")(lambda req: "quick")
    app.start()
    slow = [raw(app, receive_buffer=32768) for _ in range(2)]
    for client in slow:
        client.ask(f"/{kind}")
    running = server_of(app)
    clients = running._acceptor._clients
    assert eventually(lambda: sum(client.flush is not None for client in clients.values()) == 2)
    assert raw(app).get("/quick").body == b"quick"
    for client in slow:
        assert client.answer().body == body
        assert client.get("/quick").body == b"quick"


def test_part_of_a_file(serve: Serve, raw: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    app = serve(**secure(static=tmp_path))
    app.start()
    client = raw(app)
    assert client.get("/file", "Range: bytes=10-19").body == bytes(range(10, 20))
    assert client.get("/file", method="HEAD").header("content-length") == "200"
    assert client.get("/file").body == bytes(range(200))


def test_limits_are_those_of_http(serve: Serve, raw: Open) -> None:
    app = serve(**secure(max_body=10))
    app.start()
    client = raw(app)
    answer = client.post("/", bytes(11))
    assert (answer.status, answer.code) == (413, "request_entity_too_large")
    assert client.ended()


def test_a_head_that_does_not_come(serve: Serve, raw: Open) -> None:
    app = serve(**secure(head_timeout=0.2))
    app.start()
    client = raw(app)
    client.send("GET / HT")
    assert client.answer().code == "request_timeout"
    assert client.ended()


def test_a_request_in_the_last_flight_of_the_handshake(app: Daebus, connect: Connect) -> None:
    sealer = Sealer(connect(app.http.port), client_context(ssl.TLSVersion.TLSv1_3))
    flight = sealer.shake()
    sealer.sock.sendall(flight + sealer.seal(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert sealer.read().startswith(b"HTTP/1.1 200 ")


# --- clients that stop, and others ---------------------------------------------------


def test_a_crowd_that_never_speaks_tls(serve: Serve, raw: Open, connect: Connect) -> None:
    app = serve(**secure(workers=1, head_timeout=30))
    app.route("/")(lambda req: "here")
    app.start()
    silent = [connect(app.http.port) for _ in range(40)]
    begun = [connect(app.http.port) for _ in range(40)]
    for sock in begun:  # half a hello: the record goes on
        sock.sendall(Sealer(sock).hello()[:60])
    plain = [connect(app.http.port) for _ in range(20)]
    for sock in plain:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    garbage = [connect(app.http.port) for _ in range(20)]
    for sock in garbage:
        sock.sendall(b"\x16\x03\x01\xff\xff" + bytes(50))
    client = raw(app)
    assert client.get("/").body == b"here"
    for sock in plain:
        answer = received(sock)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "https_required"
    for sock in garbage:
        assert received(sock)[:1] == b"\x15"
    for sock in silent + begun:
        sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_the_answer_to_plain_text_is_dated_when_it_is_sent(
    app: Daebus, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(email.utils, "formatdate", lambda **_: "a later day")
    sock = connect(app.http.port)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"\r\nDate: a later day\r\n" in received(sock)


def received(sock: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


@pytest.mark.parametrize("size", [0, 1, 60])
def test_a_handshake_has_a_deadline(serve: Serve, connect: Connect, size: int) -> None:
    app = serve(**secure(head_timeout=0.1))
    app.start()
    sock = connect(app.http.port)
    sock.sendall(Sealer(sock).hello()[:size])
    assert received(sock) == b""


def test_the_deadline_does_not_move(serve: Serve, connect: Connect) -> None:
    app = serve(**secure(head_timeout=0.3))
    app.start()
    sock = connect(app.http.port)
    sock.settimeout(0.02)
    began = time.monotonic()
    for byte in Sealer(sock).hello() * 2:
        try:
            sock.sendall(bytes((byte,)))
            if sock.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    assert 0.2 < time.monotonic() - began < 10  # it would take 20


def test_a_handshake_byte_by_byte(app: Daebus, connect: Connect) -> None:
    sock = connect(app.http.port)
    sealer = Sealer(sock)
    flight = sealer.hello()
    for byte in flight:
        sock.sendall(bytes((byte,)))
    sealer._more()
    sealer.engine.do_handshake()
    for byte in sealer._outgoing.read() + sealer.seal(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
        sock.sendall(bytes((byte,)))
    assert sealer.read().startswith(b"HTTP/1.1 200 ")


def test_views_that_take_long_keep_nobody_from_connecting(make_app: MakeApp) -> None:
    app = make_app(http=secure(workers=1, backlog=1))
    app.socket("echo")(lambda req: req.data)
    gate = Gate(app)
    app.start()
    with Secure(app) as held, Secure(app) as waiting:
        held.ask("/gate")
        gate.wait()
        waiting.ask("/gate")
        with app.test_client() as client:
            assert client.request("echo", "through") == "through"
        gate.open.set()
        assert held.answer().body == waiting.answer().body == b"through"


def test_too_many_connections(serve: Serve, raw: Open) -> None:
    app = serve(**secure(max_connections=1))
    app.route("/")(lambda req: "here")
    app.start()
    client = raw(app)
    assert client.get("/").status == 200
    with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
        raw(app)
    client.sock.close()
    assert eventually(lambda: connects(app))


def connects(app: Daebus) -> bool:
    try:
        dial(app.http.port).close()
    except OSError:
        return False
    return True


def test_no_room_for_a_handshake(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkerPool, "submit", lambda self, job: False)
    app = serve(**secure())
    app.start()
    sock = connect(app.http.port)
    sock.sendall(Sealer(sock).hello())
    assert received(sock) == TLS_REFUSAL


def test_an_error_in_the_context_of_the_user(
    serve: Serve, raw: Open, caplog: pytest.LogCaptureFixture
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    names: list[str | None] = []

    def choose(sock: Any, name: str | None, context: ssl.SSLContext) -> None:
        names.append(name)

    context.sni_callback = choose
    app = serve(ssl_context=context)
    app.start()
    assert raw(app).get("/nothing").status == 404
    assert len(names) == 1


# --- certificates of clients ---------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_certificates_of_clients(serve: Serve, raw: Open, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    app = serve(ssl_context=context)
    app.route("/")(lambda req: "known")
    app.start()
    known = client_context(version)
    authority().issue_cert("client@example.org").configure_cert(known)
    assert raw(app, context=known).get("/").body == b"known"
    stranger = client_context(version)
    CA().issue_cert("client@example.org").configure_cert(stranger)
    for unknown in (client_context(version), stranger):
        with pytest.raises(ssl.SSLError, match="ALERT"):  # TLS 1.3 tells it to the first read
            raw(app, context=unknown).get("/")
    assert raw(app, context=known).get("/").body == b"known"


# --- the end -------------------------------------------------------------------------


def test_stop_closes_what_waits(serve: Serve, raw: Open, connect: Connect) -> None:
    app = serve(**secure())
    app.start()
    silent, begun = connect(app.http.port), connect(app.http.port)
    begun.sendall(Sealer(begun).hello()[:50])
    idle = raw(app)
    assert idle.get("/nothing").status == 404
    assert app.stop() == []
    assert idle.ended()
    assert received(silent) == received(begun) == b""


def test_a_request_in_flight_is_finished(serve: Serve, raw: Open) -> None:
    app = serve(**secure())
    gate = Gate(app)
    app.start()
    client = raw(app)
    client.ask("/gate")
    gate.wait()
    thread = threading.Thread(target=app.stop)
    thread.start()
    running = server_of(app)
    assert running is None or eventually(lambda: running.socket.fileno() == -1)
    gate.open.set()
    assert client.answer().body == b"through"
    assert client.ended()
    thread.join(5)
    assert not thread.is_alive()


def test_a_stop_in_the_middle_of_a_handshake(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    handshake = TlsSocket.handshake

    def slow(self: TlsSocket) -> Any:
        inside.set()
        assert go_on.wait(5)
        return handshake(self)

    monkeypatch.setattr(TlsSocket, "handshake", slow)
    app = serve(**secure())
    app.start()
    sock = connect(app.http.port)
    sock.sendall(Sealer(sock).hello())
    assert inside.wait(5)
    running = server_of(app)
    thread = threading.Thread(target=app.stop)
    thread.start()
    assert eventually(lambda: running.socket.fileno() == -1)
    go_on.set()
    thread.join(5)
    assert not thread.is_alive()
    received(sock)


def test_a_forked_child_says_nothing_for_its_parent(app: Daebus, raw: Open) -> None:
    client = raw(app)
    assert client.get("/").status == 200
    pid = os.fork()
    if not pid:
        try:
            app.stop()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert client.get("/").status == 200


# --- arguments -----------------------------------------------------------------------


# A key of no certificate, behind a password.
ENCRYPTED = """\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,7628055DDB3001CCFD32ED3205DE932D

4Ur4/lj0jj/P7N5TZlNKHmdSZIIU1xZtaPIQiuymjxuE5DE3AoiZwpewMipG1/cu
8rwXRi0NWH+0XOS7O3XId6XQRMQ4rgJRwtp35khQ7SyNjQwfwJf22PAvsjGYgHbe
PfiHsGbss0KXz+yVIo6VdY8ML6wpQqd9pgIV8Dt55wU=
-----END EC PRIVATE KEY-----
"""


class Files:
    """PEM files for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        cert = authority().issue_cert("127.0.0.1")
        self.cert, self.key, self.both = folder / "cert", folder / "key", folder / "both"
        self.encrypted = folder / "encrypted"
        cert.cert_chain_pems[0].write_to_path(self.cert)
        cert.private_key_pem.write_to_path(self.key)
        cert.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.encrypted.write_text(ENCRYPTED)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_files(serve: Serve, raw: Open, files: Files) -> None:
    for options in (
        {"certfile": files.cert, "keyfile": files.key},
        {"certfile": str(files.both)},
    ):
        app = serve(**options)
        app.start()
        context = client_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        client = raw(app, context=context)
        assert client.sock.selected_alpn_protocol() == "http/1.1"  # type: ignore[attr-defined]
        assert client.get("/nothing").status == 404
        old = client_context()
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            raw(app, context=old)


def test_a_renewed_certificate_counts_from_the_next_start(
    serve: Serve, raw: Open, files: Files
) -> None:
    app = serve(certfile=files.both)
    app.start()
    before = raw(app).sock.getpeercert(True)  # type: ignore[attr-defined]
    app.stop()
    authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(files.both)
    app.start()
    assert raw(app).sock.getpeercert(True) != before  # type: ignore[attr-defined]
    app.stop()
    files.both.unlink()
    with pytest.raises(ValueError, match="certfile must be a PEM file"):
        app.start()
    assert not app.running


def test_wrong_files(files: Files, tmp_path: Path) -> None:
    nowhere, other = tmp_path / "nowhere", tmp_path / "other"
    authority().issue_cert("127.0.0.1").private_key_pem.write_to_path(other)
    for options, text in (
        ({"certfile": nowhere}, f"certfile must be a PEM file, and there is none at '{nowhere}'"),
        ({"certfile": files.cert, "keyfile": nowhere}, "keyfile must be a PEM file"),
        ({"keyfile": files.key}, "keyfile needs a certificate; name that too, as certfile"),
        ({"certfile": files.cert}, "name the key as keyfile if it has a file of its own: "),
        ({"certfile": files.key}, "must hold a certificate and its private key"),
        ({"certfile": files.both, "keyfile": other}, "must hold a certificate and its private key"),
        ({"certfile": files.cert, "keyfile": files.encrypted}, "is encrypted; load it into"),
        ({"certfile": files.both, "ssl_context": server_context()}, "not both"),
        ({"keyfile": files.key, "ssl_context": server_context()}, "not both"),
    ):
        with pytest.raises(ValueError, match=r".") as error:
            DaebusHttp(**options)
        assert text in str(error.value)


@pytest.mark.parametrize("context", ["adhoc", True, ("cert", "key")])
def test_what_is_no_context(context: Any) -> None:
    with pytest.raises(ValueError, match=r"must be an ssl\.SSLContext, not .*CLIENT_AUTH"):
        DaebusHttp(ssl_context=context)


def test_a_context_for_clients() -> None:
    with pytest.raises(ValueError, match=r"one for servers.*ssl\.Purpose\.CLIENT_AUTH"):
        DaebusHttp(ssl_context=ssl.create_default_context())


def test_secure_tells(serve: Serve) -> None:
    assert serve(**secure()).http.secure
    assert not serve().http.secure


def test_a_port_for_upgrades_alone_speaks_tls_too() -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(port=0, **secure()))
    app.attach(DaebusWebSocket(port=0))
    with app, Raw(None, app.http.port) as plain, Raw(None, app.websocket.port) as other:
        for client in (plain, other):
            client.send("GET / HTTP/1.1\r\n\r\n")
            assert client.answer().code == "https_required"
        with dial(app.websocket.port or 0) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 426 ")
