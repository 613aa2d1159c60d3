"""Several threads register at once, and nothing is lost; also while messages come."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import Blueprint, Daebus, DaebusHttp, DaebusWebSocket
from daebus.errors import DuplicateHandlerError
from daebus.http.site.hooks import Hooks
from daebus.http.site.mounts import Mounts
from daebus.http.site.views import Views
from daebus.websocket.messages.handlers import HandlerTable
from daebus.websocket.messages.request import WebSocketRequest
from tests.support.fixture_types import Connect
from tests.support.peer import Peer

THREADS = 4
EACH = 20


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*jobs: Callable[[], object]) -> list[BaseException]:
    """Run jobs in threads that begin together; return what they raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        gate.wait(5)
        try:
            job()
        except BaseException as exc:
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return raised


def numbered(register: Callable[[str], object]) -> list[Callable[[], object]]:
    """Return jobs that register names of their own each."""

    def job(first: int) -> None:
        for number in range(first, first + EACH):
            register(f"n{number}")

    return [lambda first=i * EACH: job(first) for i in range(THREADS)]  # type: ignore[misc]  # a default argument


NAMES = {f"n{number}" for number in range(THREADS * EACH)}


def handler(req: Any) -> None:
    """Do nothing."""


def test_no_handler_and_no_middleware_is_lost() -> None:
    table = HandlerTable(lambda req, handler: None)
    seen: list[int] = []

    def middlewares() -> None:
        for number in range(20):

            def middleware(req: WebSocketRequest, proceed: Any, number: int = number) -> Any:
                seen.append(number)
                return proceed(req)

            table.add_middleware(middleware)

    add: Callable[[str], object] = lambda name: table.add(name, handler)  # noqa: E731  # one of many
    assert at_once(*numbered(add), middlewares, lambda: table.add_binary(handler)) == []
    assert table.by_type.keys() == NAMES
    for compiled in (*table.by_type.values(), table.binary):
        seen.clear()
        assert compiled is not None
        if compiled is not table.binary:
            compiled(None)  # type: ignore[arg-type]  # nobody looks at it
            assert seen == list(range(20))


def test_no_view_hook_or_mounted_app_is_lost() -> None:
    views, hooks, mounts = Views(), Hooks(), Mounts()

    def register(name: str) -> None:
        views.add(f"/{name}", lambda req: None, ["GET"], cross_site=False)
        hooks.add_before(lambda req: None)
        hooks.add_after(lambda req, response: None)
        mounts.add(f"/{name}", lambda environ, start_response: [])

    assert at_once(*numbered(register)) == []
    assert {mount.prefix[1:] for mount in mounts.all} == NAMES
    assert len(hooks.before) == len(hooks.after) == len(NAMES)
    found = {id(views.match(environ(f"/{name}"), f"/{name}")[0]) for name in NAMES}
    assert len(found) == len(NAMES)


def environ(path: str) -> dict[str, Any]:
    return {
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "x",
        "PATH_INFO": path,
        "REQUEST_METHOD": "GET",
    }


def test_a_view_is_found_while_others_are_registered() -> None:
    views = Views()
    views.add("/here/<name>", lambda req, name: None, ["GET"], cross_site=False)
    done = threading.Event()

    def more() -> None:
        try:
            for number in range(EACH):
                views.add(f"/{number}/<name>", lambda req, name: None, ["GET"], cross_site=False)
        finally:
            done.set()

    def look() -> None:
        while not done.is_set():
            views.match(environ("/here/x"), "/here/x")

    assert at_once(more, look, look) == []


def test_no_raw_handler_task_or_step_of_a_blueprint_is_lost() -> None:
    app = Daebus("registering")
    app.attach(DaebusHttp(port=0))

    def register(name: str) -> None:
        blueprint = Blueprint(name)
        blueprint.raw(f"/{name}/<rest>")(lambda connection, rest: None)
        app.register(blueprint)
        app.thread(name, auto_start=False)(lambda running: None)

    jobs = numbered(register)
    assert at_once(*jobs[:-1], lambda: (jobs[-1](), app.attach(DaebusWebSocket()))) == []
    taken = 0
    for name in NAMES:
        try:
            app.websocket.raw(f"/{name}/<rest>")(lambda connection, rest: None)
        except DuplicateHandlerError:
            taken += 1
    assert taken == len(NAMES)
    assert app.stats()["tasks"]["thread"].keys() == NAMES


@pytest.mark.parametrize("kind", ["socket", "binary", "view", "error", "mount", "raw", "identity"])
def test_of_several_that_take_one_place_one_wins(kind: str) -> None:
    app = Daebus("registering")
    app.attach(DaebusHttp(port=0))
    ws = app.attach(DaebusWebSocket())

    def register() -> None:
        match kind:
            case "socket":
                app.socket("one")(lambda req: None)
            case "binary":
                ws.on_binary(lambda req: None)
            case "view":
                app.route("/one")(lambda req: None)
            case "error":
                app.error_handler(404)(lambda req, exc: None)
            case "mount":
                app.mount("/", lambda environ, start_response: [])
            case "raw":
                ws.raw("/one")(lambda connection: None)
            case "identity":
                ws.authenticate(lambda req: "one")

    raised = at_once(*[register] * 8)
    assert [type(exc) for exc in raised] == [DuplicateHandlerError] * 7


def test_messages_find_their_handler_while_others_are_registered(
    app: Daebus, connect: Connect
) -> None:
    app.start()
    peer = Peer.joined(connect(app.http.port))
    done = threading.Event()

    def talk() -> None:
        while not done.is_set():
            peer.say("echo", 1)
            assert peer.message()["type"] == "response"

    def register() -> None:
        try:
            jobs = numbered(lambda name: app.socket(name)(lambda req: req.data))
            assert at_once(*jobs) == []
        finally:
            done.set()

    assert at_once(talk, register) == []
    peer.say("n7", 7)
    assert peer.message()["data"] == 7


class Dying:
    """Garbage whose end takes Python code, so that another thread may run amid a collection."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


def test_views_are_compiled_one_by_one() -> None:
    """CPython 3.11 cannot make syntax trees in two threads at once, and Werkzeug makes some."""
    views = Views()

    def register(name: str) -> None:
        views.add(f"/{name}/<a>/<b>", lambda req, a, b: None, ["GET"], cross_site=False)
        [Dying() for _ in range(5)]

    before = gc.get_threshold()
    gc.set_threshold(50, 2, 2)
    try:
        assert at_once(*numbered(register)) == []
    finally:
        gc.set_threshold(*before)
