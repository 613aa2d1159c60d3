"""What every test shares: nothing of daebus may survive a test, and the browser."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.server.threads.safelog import forget_repeats
from tests.support.child import Child
from tests.support.fixture_types import Connect, MakeApp
from tests.support.waiting import eventually, stable_id


def pytest_configure() -> None:
    """Keep byte code under ``build`` where the environment has none written, as containers do.

    Each program that a test starts would compile daebus, for longer than most tests take.
    """
    if sys.dont_write_bytecode:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(Path(__file__).parents[1] / "build" / "pycache")
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with contextlib.suppress(ImportError):
        _set_up_hypothesis()


def _set_up_hypothesis() -> None:
    """Let no property fail for the time it takes; CI tries the same examples each time."""
    from hypothesis import HealthCheck, settings

    fixed: dict[str, Any] = {"derandomize": True, "database": None} if "CI" in os.environ else {}
    slow = [HealthCheck.too_slow]
    settings.register_profile("daebus", deadline=None, suppress_health_check=slow, **fixed)
    settings.load_profile("daebus")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name cases that have no stable ``repr`` by their type: workers must agree on names."""
    return stable_id(val) if " at 0x" in repr(val) or "set(" in repr(val) else None


def _daebus_threads() -> dict[threading.Thread, str]:
    return {
        thread: thread.name for thread in threading.enumerate() if thread.name.startswith("daebus-")
    }


def _descriptors() -> set[str]:
    """Return what the open descriptors of this process refer to, sockets and pipes only."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:", "anon_inode:[eventpoll]")):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """No daebus thread and no socket survives a test, unless it is marked ``leaves_thread``."""
    if not os.path.isdir("/proc/self/fd") or "browser" in request.fixturenames:
        yield
        return
    # Compared with what was there before: one test that leaks is to blame, not all after it.
    before, threads = _descriptors(), _daebus_threads().keys()
    yield
    if request.node.get_closest_marker("leaves_thread") is not None:
        return

    def survivors() -> list[str]:
        return [name for thread, name in _daebus_threads().items() if thread not in threads]

    assert eventually(lambda: not survivors()), f"threads survived: {survivors()}"
    assert eventually(lambda: not _descriptors() - before), "descriptors survived"


@pytest.fixture(autouse=True, scope="session")
def machine() -> Iterator[None]:
    """For the tests this machine is called ``x``, which heads of requests ask for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "x")
        yield


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """What one test has had logged does not make a repeat of what the next one logs."""
    yield
    forget_repeats()


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Make apps with both components on a free port; they are stopped when the test ends.

    Keyword arguments go to ``DaebusWebSocket``, those in ``http`` to ``DaebusHttp``.
    """
    apps: list[Daebus] = []

    def make(*, debug: bool = False, http: dict[str, Any] | None = None, **options: Any) -> Daebus:
        app = Daebus("test", debug=debug)
        app.attach(DaebusHttp(port=0, **(http or {})))
        app.attach(DaebusWebSocket(**options))
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.stop(timeout=5)


@pytest.fixture
def app(make_app: MakeApp) -> Daebus:
    """An app with both components, not started, with an ``echo`` handler."""
    made = make_app()
    made.socket("echo")(lambda req: req.data)
    return made


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open raw TCP connections to 127.0.0.1, with a timeout of 5 s; they are closed at the end."""
    opened: list[socket.socket] = []

    def make(port: int | None) -> socket.socket:
        assert port is not None
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        opened.append(sock)
        return sock

    yield make
    for sock in opened:
        sock.close()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """Start Python programs; they are killed when the test ends."""
    children: list[Child] = []

    def start(code: str, **options: Any) -> Child:
        children.append(Child(code, **options))
        return children[-1]

    yield start
    for one in children:
        one.end()


@pytest.fixture
def ipv6() -> None:
    """Skip where this machine has no IPv6 address of its own."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6: {exc}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, or a skip (a failure where ``DAEBUS_REQUIRE_BROWSER`` is set)."""
    path = shutil.which("chromium")
    problem = "" if path else "there is no chromium on this machine"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        problem = "the playwright package is not installed"
    if problem:
        if os.environ.get("DAEBUS_REQUIRE_BROWSER"):
            pytest.fail(problem)
        pytest.skip(problem)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield chromium
        chromium.close()
