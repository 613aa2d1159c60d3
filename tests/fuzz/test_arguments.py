"""Random arguments: each is refused by name, or the app starts, serves and stops in time.

The arguments are read from the signatures, so that a new one is tried without a word here.
What is refused is a ``ValueError`` or ``TypeError`` that names the argument. An app that
starts answers a GET and an echo where its limits leave room for that; where they do not,
it refuses or closes, and goes on.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import logging
import math
import os
import re
import socket
import ssl
import threading
import time
import types
import typing
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from tests.support.fuzz import PATIENCE, seeds
from tests.support.peer import CLOSE, TEXT, Peer, frame, upgrade_request
from tests.support.tls import client_context, server_context

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE)]

Values = st.SearchStrategy[Any]

# Examples that share a seed: few enough to end soon after the time is over.
EXAMPLES = 25

# Seconds until a client gives up waiting for an answer or the end of its connection.
WAIT = 8.0

STOP = 5.0

RSV1 = 0x40  # of a compressed message

ODD_NUMBERS = (
    *(0, 1, 2, -1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 10**30, -(10**30), 10**400),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-300, 1e-9, 86400.0 * 365, 1e18, 1e308),
    *(math.inf, -math.inf, math.nan, True, False, 1j, Decimal(1), Decimal("nan"), Fraction(1, 2)),
)
ODD_TEXTS = (
    *("", " ", "/", "//", "x", "/x", "/é", "/x y", "/{x}", "\0", "a\0b", "a\r\nb: c", "\ud800"),
    *("*", "null", "None", "1", "é", "٣", "a" * 70, "a" * 300, ".", "..", "http://", "[", "[::1"),
    *("xn--" + "a" * 50, "https://example.com", "10.0.0.0/8", "10.0.0.1/8", "a,b", "deflate"),
)
ODD_THINGS: tuple[Any, ...] = (
    None,
    b"",
    b"x",
    bytearray(b"x"),
    (),
    [],
    {},
    {"x": 1},
    object(),
    int,
    print,
)

odd_numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers(), st.floats())
odd_texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20))
odd = st.one_of(odd_numbers, odd_texts, st.sampled_from(ODD_THINGS))
anything = st.one_of(odd, st.lists(odd, max_size=3), st.dictionaries(odd_texts, odd, max_size=2))

# What a number must be at least so that one GET and one small message get through. Others
# must not be below their default, or 10 if that is None.
ENOUGH = {
    **dict.fromkeys(("workers", "backlog", "max_rooms", "max_spool", "max_body"), 1),
    **dict.fromkeys(("max_fragments", "max_outbox_messages", "background_queue"), 1),
    **dict.fromkeys(("background_workers", "lifetime_jitter", "unix_mode", "max_strikes"), 0),
    **dict.fromkeys(("max_clients", "max_clients_per_ip", "max_connections"), 4),
    **dict.fromkeys(("max_line", "max_message_size", "max_outbox"), 256),
    "max_head": 1024,
    "max_headers": 10,
    "stack_size": 1 << 20,
}
LARGE_IS_TIGHT = ("min_rate",)

# Options within an argument may be named in its place.
PARTS = {"cors": r"allow\w+|expose_headers|max_age"}


def parameters(component: type) -> dict[str, tuple[Any, Any]]:
    """Return annotation and default of every argument of a component."""
    hints = typing.get_type_hints(component.__init__)  # type: ignore[misc]  # of no instance
    found = inspect.signature(component).parameters
    return {name: (hints[name], item.default) for name, item in found.items()}


def of_type(hint: Any) -> Values:
    """Return values of an annotation, whether or not they make sense."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(of_type, inner))
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if hint is type(None):
        return st.none()
    if hint is bool:
        return st.booleans()
    if hint is int:
        numbers = [n for n in ODD_NUMBERS if isinstance(n, int)]
        return st.one_of(st.integers(1, 100), st.integers(1, 1 << 40), st.sampled_from(numbers))
    if hint is float:
        odd_floats = [n for n in ODD_NUMBERS if isinstance(n, float)]
        return st.one_of(st.integers(1, 60), st.floats(0.001, 1e6), st.sampled_from(odd_floats))
    if hint in (str, Path):
        return odd_texts
    if hint is socket.socket:
        return st.nothing()
    if hint is ssl.SSLContext:
        return st.builds(server_context)
    if origin is not None and issubclass(origin, typing.Mapping):
        return st.dictionaries(odd_texts, odd, max_size=2)
    if origin is not None and issubclass(origin, typing.Collection):
        element = of_type(inner[0])
        if element.is_empty:
            return st.just(())
        return st.one_of(st.lists(element, max_size=3), st.lists(element, max_size=3).map(tuple))
    return st.nothing()


def harmless(name: str, value: Any) -> bool:
    """Tell whether trying a value touches nothing that is not the test's."""
    if name == "fd":  # one of this process
        return isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 20
    if name == "port":  # of a program on this machine
        return isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535
    if name == "unix":  # a file elsewhere
        return "/" not in str(value) and "\\" not in str(value) and value not in (".", "..")
    return True


SENSIBLE: dict[str, Values] = {
    "host": st.sampled_from(["127.0.0.1", "localhost", ["127.0.0.1"], ("127.0.0.1", "127.0.0.2")]),
    "unix": st.sampled_from(["fuzz.sock", Path("fuzz.sock")]),
    "static": st.sampled_from([".", Path(".")]),
    "cors": st.fixed_dictionaries(
        {"allowed_origins": st.sampled_from(["*", ["https://example.com"]])},
        optional={
            "allowed_methods": anything,
            "allowed_headers": anything,
            "expose_headers": anything,
            "allow_credentials": anything,
            "max_age": anything,
        },
    ),
    "trusted_proxies": st.lists(
        st.one_of(odd_texts, st.ip_addresses().map(str), st.just("unix")), max_size=3
    ),
    "path": st.sampled_from(["/", "/ws", "/a/b"]),
    "affinity": st.sampled_from([{0}, [0, 1], range(1)]),
    "subprotocols": st.lists(st.sampled_from(["chat", "v1", "v2"]), max_size=3),
    "stack_size": st.one_of(st.integers(1 << 20, 1 << 24), st.integers(1 << 15, 1 << 20)),
}


def arguments(component: type) -> Values:
    """Return up to three arguments, each of its type, sensible, or anything at all."""
    known = parameters(component)

    def value(name: str) -> Values:
        kinds = [of_type(known[name][0]), anything]
        if name in SENSIBLE:
            kinds.append(SENSIBLE[name])
        return st.one_of(*kinds).filter(lambda it: harmless(name, it))

    def values(names: list[str]) -> Values:
        return st.fixed_dictionaries({name: value(name) for name in names})

    names = st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=3, unique=True)
    return names.flatmap(values)


def leave_room(component: type, given: dict[str, Any]) -> bool:
    """Tell whether one GET and one small message must get through."""
    for name, (_, default) in parameters(component).items():
        if name not in given or given[name] is None:
            continue
        value = given[name]
        if name == "path" and not re.fullmatch(r"/[a-z/]*", value):
            return False  # cannot be asked for as it is
        if name in ("port", "fd") or isinstance(value, bool):
            continue
        if isinstance(value, (int, float)):
            numeric = isinstance(default, (int, float))
            enough = ENOUGH.get(name, default if numeric else 10)
            if not (value <= enough if name in LARGE_IS_TIGHT else value >= enough):
                return False
    return True


def dial(app: Daebus, port: int) -> socket.socket:
    """Connect to a port, or else to the socket file."""
    sock = socket.socket(socket.AF_INET if port else socket.AF_UNIX)
    sock.settimeout(WAIT)
    try:
        # Relative, as it was given: a path must not have much more than a hundred bytes.
        file = os.path.relpath(app.http.addresses[0].removeprefix("unix:"))
        sock.connect(("127.0.0.1", port) if port else file)
        if app.http.secure:
            return client_context().wrap_socket(sock, server_hostname="127.0.0.1")
        return sock
    except BaseException:
        sock.close()
        raise


def get(app: Daebus) -> str:
    """Ask for a page; return what came."""
    with dial(app, app.http.port) as sock:
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        data = b""
        while part := sock.recv(65536):
            data += part
        return data.decode("latin-1")


def echo(app: Daebus, path: str, kind: str) -> Any:
    """Send a message, compressed where that is spoken, and return what comes back for it."""
    text = json.dumps({"type": kind, "data": "hello"}).encode()
    with dial(app, app.websocket.port or 0) as sock:
        peer = Peer(sock)
        answer = peer.ask(upgrade_request(path, {"Sec-WebSocket-Extensions": "permessage-deflate"}))
        assert answer.status == 101, answer
        if "sec-websocket-extensions" in answer.headers:
            sock.sendall(frame(TEXT | RSV1, deflated(text)))
        else:
            peer.send(TEXT, text)
        while True:
            opcode, payload = peer.frame()
            if opcode == CLOSE:
                return payload
            if opcode == TEXT:
                return json.loads(inflated(payload))["data"]


def deflated(data: bytes) -> bytes:
    """Compress one message (RFC 7692 section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(data: bytes) -> bytes:
    """Return what may have been compressed; JSON starts with no byte that deflate would."""
    if data.startswith(b"{"):
        return data
    return zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff")


def gone(what: Callable[[], Any]) -> Any:
    """Return what came, or the way in which the server refused; a silent one fails."""
    try:
        return what()
    except TimeoutError as exc:
        raise AssertionError(f"neither an answer nor an end within {WAIT:g} s") from exc
    except (AssertionError, EOFError, OSError) as exc:
        return exc


class Complaints(logging.Handler):
    """What daebus logged that it should not have had to."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))


@contextlib.contextmanager
def complaints() -> Iterator[list[str]]:
    """Collect the errors that daebus logs, and what ends its threads."""
    handler = Complaints()
    logger = logging.getLogger("daebus")
    logger.addHandler(handler)
    before = threading.excepthook
    threading.excepthook = lambda args: handler.lines.append(f"{args.thread}: {args.exc_value!r}")
    try:
        yield handler.lines
    finally:
        threading.excepthook = before
        logger.removeHandler(handler)


def threads() -> list[str]:
    """Return the names of daebus's threads."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("daebus-")]


def build(component: type, given: dict[str, Any]) -> Daebus | None:
    """Return an app, or None if the arguments were refused by name."""
    http, socket_, app_ = (
        given if component is kind else {} for kind in (DaebusHttp, DaebusWebSocket, Daebus)
    )
    if not {"port", "unix", "fd", "sock"} & http.keys():
        http = {"port": 0, **http}
    try:
        app = Daebus(**{"name": "fuzz", **app_})
        made = DaebusHttp(**http)
        talking = DaebusWebSocket(**socket_)
    except (ValueError, TypeError) as exc:
        named = "|".join([*given, *(PARTS[name] for name in given if name in PARTS)])
        if not re.search(rf"\b({named})\b", str(exc)):
            raise AssertionError("refused, but no argument is named") from exc
        return None
    if made.port:  # the default, which may be somebody else's
        return None
    app.attach(made)
    app.attach(talking)
    app.route("/hello")(lambda req: "hello")
    app.socket("echo")(lambda req: req.data)
    app.socket("pool", run_in="pool")(lambda req: req.data)
    return app


def check(component: type, given: dict[str, Any]) -> None:
    """Try these arguments."""
    note(f"{component.__name__}({given!r:.2000})")
    app = build(component, given)
    if app is None:
        return
    strict = leave_room(component, given)
    with complaints() as lines:
        # Twice, since the deadline of one connection hides that of another.
        if run(app, given, lines, served=False, strict=strict):
            run(app, given, lines, served=True, strict=strict)
    assert not lines, "\n".join(lines)
    assert not threads()


def run(
    app: Daebus, given: dict[str, Any], lines: list[str], *, served: bool, strict: bool
) -> bool:
    """Start, use and stop the app; return False if this system does not let it listen there."""
    try:
        app.start()
    except OSError:
        assert {"host", "port", "unix", "fd", "sock", "unix_mode"} & given.keys()
        return False
    try:
        serves(app, given, served=served, strict=strict)
    except (AssertionError, OSError) as exc:
        raise AssertionError("\n".join([repr(exc), *lines])) from exc
    finally:
        before = time.monotonic()
        app.stop(timeout=STOP)
        seconds = time.monotonic() - before
    assert seconds < STOP + 2, f"the stop took {seconds:.1f} s"
    return True


def serves(app: Daebus, given: dict[str, Any], *, served: bool, strict: bool) -> None:
    """Ask for a page and for echoes, beside a connection that waits, served before or not."""
    path = given["path"] if strict and given.get("path") else "/"
    with dial(app, app.http.port) as waiting:
        if served:
            with contextlib.suppress(OSError):
                waiting.sendall(b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                waiting.recv(65536)
        # Several: one may wake an acceptor that has not begun a long wait yet.
        kinds = ("echo", "pool", "echo")
        answers = [gone(functools.partial(echo, app, path, kind)) for kind in kinds]
        for _ in range(3):
            page = gone(functools.partial(get, app))
    assert app.running
    if strict:
        assert isinstance(page, str), page
        assert page.startswith("HTTP/1.1 200 "), page
        assert page.endswith("\r\n\r\nhello"), page
        assert answers == ["hello"] * 3, answers


@pytest.fixture(autouse=True)
def own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Keep files in a folder of the test, names unasked, and logs out of memory."""
    monkeypatch.chdir(tmp_path)
    caplog.handler.setLevel(logging.CRITICAL)
    real = socket.getaddrinfo

    def look(host: Any, port: Any, *args: Any) -> Any:
        family, kind = (*args, 0, 0)[:2]
        # No name leaves this machine, and nothing is served to others.
        flags = 0 if host == "localhost" else socket.AI_NUMERICHOST
        found = real(host, port, family, kind, 0, flags)
        if not str(found[0][4][0]).startswith(("127.", "::1")):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look)


@pytest.mark.parametrize("component", [DaebusHttp, DaebusWebSocket, Daebus])
def test_arguments_are_refused_by_name_or_served(component: type) -> None:
    """A failure prints the arguments; the seed before it repeats them."""
    options = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for number in seeds():
        seed(number)(options(given(arguments(component))(lambda it: check(component, it))))()
