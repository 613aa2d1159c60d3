"""The store of topics on Redis or Valkey."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...server.threads.safelog import get_logger
from ..names import Names, random_name
from ..store import APPLIED, Done, Kept, Known, Loaded, Value, Write
from .lane import Ask
from .line import Lost
from .outbound import Outbound
from .queue import Part
from .scripts import APPEND, CHANGE, LOAD, REBUILD, RENEW

__all__ = ["RedisStore"]

logger = get_logger("daebus.backplane")

# Topics whose keys are remembered.
_REMEMBERED = 10_000

# Seconds that a topic of a family is remembered which nobody uses.
_BRIEF = 7 * 24 * 3600

_SCRIPTS = {
    "append": APPEND,
    "change": CHANGE,
    "load": LOAD,
    "rebuild": REBUILD,
    "renew": RENEW,
}


class _Places(NamedTuple):
    """Where what belongs to a topic is."""

    channel: str
    channel_bytes: bytes
    history: tuple[str, str, str]
    state: tuple[str, str, str]
    writers: str

    def of(self, kind: str) -> tuple[str, str, str]:
        """Return the keys of a topic of that kind."""
        return self.history if kind == "history" else self.state


class RedisStore:
    """Keeps topics; a ``SharedStore``.

    What it asks for is not kept in an outage: its callers know what to ask for again.

    Args:
        outbound: sends, and has not begun to.
        names: of keys and channels.
        cluster: there is more than one server.
    """

    def __init__(self, outbound: Outbound, names: Names, *, cluster: bool) -> None:
        self._outbound = outbound
        self._names = names
        self._cluster = cluster
        self._publish = "SPUBLISH" if cluster else "PUBLISH"
        self._places = functools.lru_cache(_REMEMBERED)(self._make_places)
        self._prefix = random_name(5)
        self._number = itertools.count()
        self._server = "unknown"
        self._policy = ""
        self._warned = False
        for name, source in _SCRIPTS.items():
            outbound.script(name, source)
        outbound.on_connect.append(self._connected)

    def channel(self, topic: str) -> str:
        """Return the channel on which the changes of a topic are published."""
        return self._places(topic).channel

    def _make_places(self, topic: str) -> _Places:
        partition = self._names.partition(topic)

        def key(kind: str, *parts: str) -> str:
            return self._names.key(partition, kind, *parts)

        server = self._server_key(partition)
        return _Places(
            key("t"),
            key("t").encode(),
            (key("m", topic), key("s", topic), server),
            (key("m", topic), key("h", topic), server),
            key("w", topic),
        )

    def _server_key(self, partition: int) -> str:
        return self._names.key(partition, "server")

    # --- the server --------------------------------------------------------------

    def _connected(self, ask: Ask) -> None:
        """Tell the server which one it is, so that scripts see if it is another one by now."""
        found = _try(ask, "INFO", "server")
        # Valkey 9 has the latter.
        mode = _field(found, "redis_mode") or _field(found, "server_mode")
        if mode == "cluster" and not self._cluster:
            raise ValueError("it is one of a cluster; write DaebusRedis(url, cluster=True)")
        server = _field(found, "run_id")
        if server is None:
            logger.warning(
                "Redis does not let us see which server it is (INFO), so a copy that was put "
                "back may be taken for the original; allow this user +info"
            )
            server = "unknown"
        replication = _field(_try(ask, "INFO", "replication"), "master_replid")
        self._server = server if replication is None else f"{server}:{replication[:12]}"
        for partition in range(self._names.partitions):
            _try(ask, "SET", self._server_key(partition), self._server)
        policy = _try(ask, "CONFIG", "GET", "maxmemory-policy")
        if isinstance(policy, list) and len(policy) == 2:
            self._policy = _text(policy[1])

    def _check_policy(self) -> None:
        if self._policy not in ("", "noeviction") and not self._warned:
            self._warned = True
            logger.warning(
                "Redis has maxmemory-policy %s, and may drop topics and states; write "
                "maxmemory-policy noeviction in its configuration",
                self._policy,
            )

    # --- changes --------------------------------------------------------------------

    def _evaluate(
        self, name: str, keys: Sequence[str], args: Sequence[bytes | str | int], done: Done
    ) -> None:
        self._outbound.evaluate(name, tuple(keys), tuple(args), done, keep=False)

    def _fence(self, known: Known, kind: str) -> tuple[str | int, ...]:
        return self._server, known.epoch or "-", known.top, self._fresh(), kind

    def _fresh(self) -> str:
        """Return a name for an epoch that there never was."""
        return f"{self._prefix}{next(self._number):x}"

    def _line(self, write: Write, kind: str, *more: str | int) -> bytes:
        fence, brief = self._fence(write.known, kind), _BRIEF if write.brief else 0
        return _join(*fence, write.number, write.before, self._publish, brief, *more)

    def append(
        self, write: Write, *, count: int, floor: int, life: float | None, done: Done
    ) -> None:
        """See ``SharedStore``."""
        places = self._places(write.topic)
        keys = (*places.history, f"{places.writers}:{write.writer}")
        part = Part(keys[3], write.before, write.number)
        if self._outbound.join(keys[0], part, write.frame, done):
            return
        seconds = 0 if life is None else max(1, round(life))
        line = self._line(write, "history", count, floor, seconds)
        args = (line, places.channel_bytes, write.frame)
        self._outbound.evaluate("append", keys, args, done, keep=False, part=part)

    def change(
        self,
        write: Write,
        values: Mapping[str, bytes],
        removed: Sequence[str],
        *,
        ttl: int | None,
        only: int = 0,
        done: Done,
    ) -> None:
        """See ``SharedStore``."""
        places = self._places(write.topic)
        keys = (*places.state, f"{places.writers}:{write.writer}")
        pairs = [part for key, data in values.items() for part in (_bytes(key), data)]
        line = self._line(write, "state", "-" if ttl is None else ttl, only, len(values))
        args = (line, places.channel_bytes, write.frame, *pairs, *map(_bytes, removed))
        self._evaluate("change", keys, args, done)

    # --- reading ---------------------------------------------------------------------

    def load(self, topic: str, kind: str, known: Known, *, count: int, done: Done) -> None:
        """See ``SharedStore``."""
        self._check_policy()

        def loaded(answer: Any) -> None:
            done(answer if isinstance(answer, Exception) else read(answer))

        read = _read_history if kind == "history" else _read_state
        line = _join(*self._fence(known, kind), count)
        self._evaluate("load", self._places(topic).of(kind), (line,), loaded)

    def rebuild(
        self,
        topic: str,
        epoch: str,
        base: int,
        values: Mapping[str, tuple[int | None, bytes]],
        frame: bytes,
        done: Done,
    ) -> None:
        """See ``SharedStore``."""
        keys = self._places(topic).state[:2]
        triples = [
            part
            for key, (ttl, data) in values.items()
            for part in (_bytes(key), b"" if ttl is None else b"%d" % ttl, data)
        ]
        place = (epoch, base, self._publish, self.channel(topic), frame)
        args: tuple[bytes | str | int, ...] = (*place, *triples)
        self._evaluate("rebuild", keys, args, done)

    def renew(self, topic: str, kind: str, known: Known, frame: bytes, done: Done) -> None:
        """See ``SharedStore``."""
        line = _join(*self._fence(known, kind), self._publish)
        places = self._places(topic)
        self._evaluate("renew", places.of(kind), (line, places.channel_bytes, frame), done)

    def mark(self, topic: str, value: str, done: Done) -> None:
        """See ``SharedStore``."""
        key = self._names.key(self._names.partition(topic), "mark")

        def told(answer: Any) -> None:
            done(_text(answer) if isinstance(answer, bytes | str) else answer)

        self._outbound.command(("SET", key, value, "NX"), None, key=key, keep=False)
        self._outbound.command(("GET", key), told, key=key, keep=False)


def _read_history(answer: list[Any]) -> Loaded:
    known, kept = _head(answer), []
    for name, fields in answer[6]:
        both = dict(zip(fields[::2], fields[1::2], strict=True))
        offset = int(_text(name).partition("-")[0])
        kept.append(Kept(offset, float(both[b"t"]), both[b"f"]))
    kept.sort()
    return known._replace(kept=kept)


def _read_state(answer: list[Any]) -> Loaded:
    known, found = _head(answer), answer[6]
    values = {}
    for key, kept in zip(found[::2], found[1::2], strict=True):
        offset, time, ttl, data = kept.split(b"|", 3)
        values[key.decode("utf-8", "surrogatepass")] = Value(
            int(offset), float(time), int(ttl) if ttl else None, data
        )
    return known._replace(values=values if answer[7] else None)


def _head(answer: list[Any]) -> Loaded:
    epoch, top, base, floor, built, now = answer[:6]
    return Loaded(_text(epoch), top, base, floor, built == APPLIED, float(now), [], None)


def _try(ask: Callable[..., Any], *command: Any) -> Any:
    """Return the answer to a command; None if it is refused, such as by an ACL."""
    try:
        return ask(*command)
    except Lost:
        raise
    except Exception:  # of redis-py, which is not imported here: what the server says against it
        return None


def _field(info: Any, name: str) -> str | None:
    if isinstance(info, dict):
        value = info.get(name)
        return None if value is None else str(value)
    if not isinstance(info, bytes | str):
        return None
    for line in _text(info).splitlines():
        key, found, value = line.partition(":")
        if found and key == name:
            return value.strip()
    return None


def _join(*fields: str | int) -> bytes:
    return " ".join(map(str, fields)).encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
