"""What is run: the servers, and the cases each of them takes part in."""

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks import pythons

FOLDER = Path(__file__).parent
NODE_MODULES = Path(sys.prefix) / "node" / "node_modules"


@dataclass(frozen=True)
class Server:
    """A server under test.

    Attributes:
        name: in results and tables.
        command: how to start it; ``{port}``, ``{cpu}`` (the server's core) and ``{python}``
            are filled in.
        needs: modules it imports; it is left out where one is missing.
        dialect: how it talks; see ``wire.Dialect``. Servers of HTTP have no use for it.
        python: the interpreter of ``pythons`` that it runs with; empty for ours.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    dialect: str = "websocket"
    python: str = ""

    def missing(self) -> str | None:
        """Return why it cannot run here, or None."""
        if self.command[0] == "node":
            if shutil.which("node") is None:
                return "node is not installed"
            if not (NODE_MODULES / "ws").is_dir():
                return "the ws package of node is not installed"
        if self.python:
            path = pythons.path_of(self.python)
            if path is None:
                return f"no Python is here that is {self.python}; name one in BENCH_PYTHONS"
            others = [module for module in self.needs if module != "daebus"]
            if others and not pythons.has(path, *others):
                return f"{', '.join(others)} cannot be imported with {path}"
            return None
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                return f"the Python package {module} is not installed"
        return None


def _python(name: str, file: str, *options: str, needs: str = "", dialect: str = "") -> Server:
    command = (sys.executable, str(FOLDER / "servers" / file), "{port}", *options)
    return Server(name, command, tuple(needs.split()), dialect or "websocket")


def _other(python: str, name: str, file: str, *options: str, needs: str = "") -> Server:
    command = ("{python}", str(FOLDER / "servers" / file), "{port}", *options)
    dialect = "lines" if name == "raw_threads" else "websocket"
    return Server(f"{name}_{python}", command, tuple(needs.split()), dialect, python)


def _gunicorn(application: str) -> Server:
    command = (
        sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread",
        "--threads", "8", "--worker-connections", "4000", "--backlog", "1024",
        "--keep-alive", "120", "--graceful-timeout", "1", "--no-control-socket",
        "--log-level", "warning",
        "--chdir", str(FOLDER / "servers"), application,
    )  # fmt: skip
    return Server("gunicorn", command, ("daebus", "gunicorn"))


SERVERS = {
    server.name: server
    for server in (
        _python("daebus", "daebus_server.py", needs="daebus"),
        _python("daebus_orjson", "daebus_server.py", "--orjson", needs="daebus orjson"),
        _python("daebus_affinity", "daebus_server.py", "--affinity", "{cpu}", needs="daebus"),
        _python("daebus_host", "daebus_host_server.py", needs="daebus"),
        _python("daebus_host_0.5ms", "daebus_host_server.py", "--switch", "0.0005", needs="daebus"),
        _python("raw_threads", "raw_threads_server.py", dialect="lines"),
        _python("websockets_sync", "websockets_sync_server.py", needs="websockets"),
        _python("websockets_asyncio", "websockets_asyncio_server.py", needs="websockets"),
        _python("flask_sock", "flask_sock_server.py", needs="flask_sock simple_websocket"),
        _python("aiohttp", "aiohttp_server.py", needs="aiohttp"),
        _python("daebus_http", "http_site.py", "daebus", needs="daebus"),
        _python("werkzeug", "http_site.py", "werkzeug", needs="daebus"),
        _python("waitress", "http_site.py", "waitress", needs="daebus waitress"),
        _python("cheroot", "http_site.py", "cheroot", needs="daebus cheroot"),
        _gunicorn("http_site:application"),
        *(
            _other(python, name, file, needs=needs)
            for python in ("newest", "nogil")
            for name, file, needs in (
                ("daebus", "daebus_server.py", "daebus websockets werkzeug"),
                ("scale", "daebus_scale_server.py", "daebus websockets werkzeug"),
                ("raw_threads", "raw_threads_server.py", ""),
            )
        ),
        _other("newest", "daebus_affinity", "daebus_server.py", "--affinity", "{cpu}"),
        _other("newest", "aiohttp", "aiohttp_server.py", needs="aiohttp"),
        _other("newest", "picows", "picows_server.py", needs="picows"),
        _other("newest", "websockets_sync", "websockets_sync_server.py", needs="websockets"),
        Server("node_ws", ("node", str(FOLDER / "servers" / "node_ws_server.js"), "{port}")),
    )
}


@dataclass(frozen=True)
class Case:
    """One measure: a mode with its numbers, run for several servers in several rounds.

    Attributes:
        mode: a function of ``modes.MODES`` or ``http.MODES``.
        clients: how many read and write; for ``beside``, how many are slow.
        servers: names of ``SERVERS``.
        size: bytes of data in each message.
        pinned: the server runs on one core only.
        seconds: length of the measured window.
        rounds: at most so many; see ``--rounds``.
        cores: it belongs to the comparison of interpreters, with all cores free.
    """

    mode: str
    clients: int
    servers: tuple[str, ...]
    size: int = 64
    pinned: bool = True
    seconds: float = 1.5
    rounds: int = 9
    cores: bool = False

    @property
    def name(self) -> str:
        """A key for results, such as ``echo-100-64-pinned``."""
        where = "cores" if self.cores else "pinned" if self.pinned else "free"
        return f"{self.mode}-{self.clients}-{self.size}-{where}"


_PEERS = ("websockets_sync", "websockets_asyncio", "flask_sock", "aiohttp", "node_ws")
_ALL = ("daebus", "raw_threads", *_PEERS)
_HTTP = ("daebus_http", "werkzeug", "waitress", "cheroot", "gunicorn")


def full() -> list[Case]:
    """Return the cases of ``make bench``."""
    few = ("daebus", "raw_threads", "websockets_sync")
    return [
        *(Case("echo", n, ("daebus", "daebus_orjson", *_ALL[1:])) for n in (1, 10, 100)),
        Case("echo", 500, (*few, "flask_sock", "aiohttp"), seconds=2.0),
        Case("echo", 100, few, size=16384),
        *(Case("echo", n, (*few, "daebus_affinity"), pinned=False) for n in (10, 100)),
        *(Case("fanout", n, _ALL) for n in (100, 1000)),
        Case("slow", 100, _ALL, size=16384, seconds=3.0, rounds=2),
        Case("connect", 16, _ALL),
        Case("idle", 2000, _ALL, seconds=3.0, rounds=1),
        Case("host", 10, ("daebus_host", "daebus_host_0.5ms"), seconds=2.0),
        Case("host", 10, ("daebus_host", "daebus_host_0.5ms"), seconds=2.0, pinned=False),
        Case("many", 5000, ("daebus",), rounds=1),
        Case("get", 16, _HTTP, seconds=2.0),
        Case("get", 16, _HTTP, size=65536, seconds=2.0),
        Case("fresh", 16, _HTTP, seconds=2.0),
        *(Case("beside", n, _HTTP, seconds=2.0) for n in (100, 1000)),
        *cores_and_gil(),
    ]


def cores_and_gil() -> list[Case]:
    """Return the cases that compare interpreters, all cores free; part of ``make bench``."""
    bare = ("daebus_nogil", "daebus_newest", "raw_threads_nogil", "raw_threads_newest")
    peers = ("aiohttp_newest", "picows_newest", "websockets_sync_newest")
    return [
        *(
            Case("echo", n, (*bare, "daebus_affinity_newest", *peers), pinned=False, cores=True)
            for n in (10, 100, 500)
        ),
        Case("fanout", 100, (*bare, *peers), pinned=False, cores=True),
        Case("idle", 500, (*bare, *peers), pinned=False, cores=True, seconds=1.0, rounds=1),
        Case("scale", 2, ("scale_nogil", "scale_newest"), pinned=False, cores=True),
    ]


def quick() -> list[Case]:
    """Return the cases of a smoke run: every mode once, small."""
    few = ("daebus", "raw_threads", "websockets_sync")
    return [
        Case("echo", 10, (*few, "daebus_orjson", "flask_sock", "aiohttp", "node_ws"), seconds=0.3),
        Case("echo", 10, ("daebus", "daebus_affinity"), pinned=False, seconds=0.3),
        Case("fanout", 50, few, seconds=0.3),
        Case("slow", 10, few, size=16384, seconds=0.5),
        Case("connect", 16, few, seconds=0.3),
        Case("idle", 100, few, seconds=0.3),
        Case("host", 10, ("daebus_host", "daebus_host_0.5ms"), seconds=0.3),
        Case("many", 200, ("daebus",)),
        Case("get", 16, _HTTP, seconds=1.0),
        Case("fresh", 16, _HTTP[:1], seconds=1.0),
        Case("beside", 50, _HTTP[:1], seconds=1.0),
    ]


def cores() -> tuple[int, int]:
    """Return the core of the server and the core of the generator, as far apart as there are."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]
