"""Topics in a file, without an app around them."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from daebus.server.threads.vitals import Vitals
from daebus.waits import monotonic
from daebus.websocket.topics.history import History, Saved
from daebus.websocket.topics.persistence.keeper import Keeper
from daebus.websocket.topics.persistence.kept import Kept
from daebus.websocket.topics.persistence.kept_file import Loaded
from daebus.websocket.topics.position import Kind
from daebus.websocket.topics.store import Appended, Changed, Cleared
from daebus.websocket.topics.values import Values

__all__ = ["KeptHistory", "KeptState", "Run", "rows"]


class _KeptLog:
    """What a feed does with its log and its store, in one thread."""

    kind: Kind
    retired = False

    def __init__(self, keeper: Keeper, log: Any) -> None:
        self.log = log
        self.data = threading.RLock()
        self.name: str = log.topic
        self.loaded: Loaded | None = keeper.file.load(self.name, self.kind)
        self.kept: Kept = keeper.keep(
            self.name, self.kind, self, self.loaded, count=1000, max_bytes=1 << 20
        )
        if self.loaded is not None:
            now, clean = time.time(), self.loaded.clean
            log.restore(self.loaded.saved, now, monotonic(), keep_epoch=clean)
            if log.dump() != self.loaded.saved:
                self.kept.fall_behind()
        else:
            self.kept.fall_behind()

    def span(self) -> tuple[str, int, int]:
        with self.data:
            return self.log.epoch, self.log.floor, self.log.top

    def dump(self) -> Saved:
        with self.data:
            saved: Saved = self.log.dump()
        return saved

    def clear(self) -> None:
        with self.data:
            self.log.clear()
        self.kept.note(Cleared(self.name, self.log.epoch))


class KeptHistory(_KeptLog):
    kind = "history"

    def publish(self, data: bytes, message_type: str = "message") -> None:
        now = time.time()
        with self.data:
            offset = self.log.append(message_type, data, now, monotonic()).offset
        self.kept.note(Appended(self.name, self.log.epoch, offset, message_type, data, now))

    def texts(self) -> list[bytes]:
        return [entry.data for entry in self.log.dump().entries]


class KeptState(_KeptLog):
    kind = "state"

    def change(self, values: dict[str, bytes], removed: list[str] | None = None) -> None:
        now = time.time()
        with self.data:
            done, gone = self.log.change(values, removed or [], time=now)
        for key in [*done, *gone]:
            value = values.get(key)
            self.kept.note(Changed(self.name, self.log.epoch, self.log.top, key, value, now, None))

    def values(self) -> dict[str, bytes]:
        return {entry.key: entry.data for entry in self.log.dump().entries}


class Run:
    """One start of a program that keeps topics in a file."""

    def __init__(self, path: Path, *, timeout: float = 5.0, **options: Any) -> None:
        self.keeper = Keeper(path, Vitals(), gather=0.01, **{"retry": 0.05} | options)
        self.keeper.open(timeout)

    def history(self, name: str = "alarms", **options: Any) -> KeptHistory:
        return KeptHistory(self.keeper, History(name, **options))

    def state(self, name: str = "boiler", **options: Any) -> KeptState:
        return KeptState(self.keeper, Values(name, message_type="state", **options))

    def start(self) -> Run:
        self.keeper.start()
        return self

    def stop(self) -> None:
        self.keeper.begin_stop()
        if self.keeper.thread.ident is not None:
            self.keeper.thread.join(10)
            assert not self.keeper.thread.is_alive()


def rows(path: Path, statement: str = "SELECT data FROM messages ORDER BY offset") -> list[Any]:
    """Look into a file as another program does; one column alone comes without its tuple."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
    try:
        found = connection.execute(statement).fetchall()
    except sqlite3.OperationalError:  # there is nothing in it yet
        return []
    finally:
        connection.close()
    return [row[0] if len(row) == 1 else row for row in found]
