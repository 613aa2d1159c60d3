"""One SQLite file: its schema, what is read from it, and what is written.

Rules of this module:

1. A file is ours if its header says so, or if there is nothing in it. Any other is refused and
   not touched.
2. All writes are in transactions. One that is *durable* is on the disk when it has ended, with
   all before it; the others survive the process, but not a power cut.
3. Offsets of the keys that one step has changed may come as one, that of its end. They are
   told apart when they are read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ....errors import PersistError
from ..history import Entry, Saved
from ..position import Kind

__all__ = ["Database", "Found", "owner_of", "problem_of"]

# In the header of the file, where SQLite keeps whose it is.
APPLICATION_ID = 0x64616562  # "daeb"
SCHEMA = 1

# Seconds that a write waits for a lock of another program that looks into the file.
_BUSY = 5.0

# Bytes of the log beside the database that are kept from one checkpoint to the next.
_WAL_BYTES = 4 << 20

# Pages that are given back to the system at a time, if most of the file is unused.
_SPARE_PAGES = 256

_TABLES = """
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    epoch TEXT NOT NULL, top INTEGER NOT NULL, clean INTEGER NOT NULL
);
CREATE TABLE messages (
    topic INTEGER NOT NULL, offset INTEGER NOT NULL, type NOT NULL, data BLOB NOT NULL,
    time REAL NOT NULL, PRIMARY KEY (topic, offset)
) WITHOUT ROWID;
CREATE TABLE "values" (
    topic INTEGER NOT NULL, key NOT NULL, offset INTEGER NOT NULL, data BLOB NOT NULL,
    time REAL NOT NULL, expires REAL, PRIMARY KEY (topic, key)
) WITHOUT ROWID;
CREATE TABLE owner (pid INTEGER NOT NULL, runs INTEGER NOT NULL);
INSERT INTO owner VALUES (0, 0);
"""


class Found(NamedTuple):
    """A topic that the file holds.

    Attributes:
        id: its number in the file.
        kind: of topic.
        epoch: of its offsets.
        top: offset of its last message or change.
        clean: nothing that was published is missing.
        empty: it has no messages or values.
    """

    id: int
    kind: Kind
    epoch: str
    top: int
    clean: bool
    empty: bool


class Database:
    """An open file.

    Args:
        path: absolute.
        mode: ``rwc`` makes the file ours if it is empty. ``ro`` only reads; ``immutable``
            too, where not even the files beside the database can be made.

    Attributes:
        found: the topics that were in it when it was opened, by name.

    Raises:
        PersistError: it is not ours, of a later version, or damaged.
        sqlite3.Error: it cannot be read, or be made.

    Threads:
        One at a time.
    """

    def __init__(self, path: Path, mode: str = "rwc") -> None:
        self._path = path
        flags = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?{flags}",
            uri=True,
            timeout=_BUSY,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self._check(make=mode == "rwc")
            self.found = self._topics()
        except sqlite3.DatabaseError as exc:
            self.close()
            if isinstance(exc, sqlite3.OperationalError):
                raise
            raise PersistError(
                f"{path} cannot be used: {exc}; move it away, or write persist= with another "
                f"path, and a new one is made"
            ) from exc
        except BaseException:
            self.close()
            raise

    def _check(self, *, make: bool) -> None:
        """Refuse what is not ours, and prepare what is."""
        path = self._path
        (number,) = self._one("PRAGMA application_id")
        if number != APPLICATION_ID:
            (tables,) = self._one("SELECT count(*) FROM sqlite_master")
            if tables or number:
                raise PersistError(
                    f"{path} is a database of another program; write persist= with another path"
                )
        elif (version := self._one("PRAGMA user_version")[0]) != SCHEMA:
            raise PersistError(
                f"{path} was written by another version of daebus: its schema is {version}, this "
                f"one knows {SCHEMA}; update daebus, or write persist= with another path"
            )
        else:
            (state,) = self._one("PRAGMA quick_check(1)")
            if state != "ok":
                raise sqlite3.DatabaseError(f"it is damaged ({state!r:.200})")
        if not make:
            return
        execute = self._connection.execute
        if number != APPLICATION_ID:
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        (mode,) = self._one("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise PersistError(
                f"{path} is where SQLite cannot keep a write-ahead log; write persist= with a path "
                f"on a local disk"
            )
        execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        if number != APPLICATION_ID:
            with self.transaction(durable=True):
                for statement in _TABLES.split(";"):
                    execute(statement)
                execute(f"PRAGMA user_version = {SCHEMA}")
                execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _one(self, statement: str) -> Any:
        return self._connection.execute(statement).fetchone()

    def _topics(self) -> dict[str, Found]:
        if self._one("PRAGMA application_id")[0] != APPLICATION_ID:
            return {}
        rows = self._connection.execute(
            "SELECT name, id, kind, epoch, top, clean, "
            "NOT EXISTS (SELECT 1 FROM messages WHERE topic = id) AND "
            'NOT EXISTS (SELECT 1 FROM "values" WHERE topic = id) FROM topics'
        )
        return {
            name: Found(number, kind, epoch, top, bool(clean), bool(empty))
            for name, number, kind, epoch, top, clean, empty in rows
        }

    # --- reading ----------------------------------------------------------------

    def read(self, found: Found) -> Saved:
        """Return all that is kept of a topic."""
        if found.kind == "history":
            rows = self._connection.execute(
                "SELECT offset, type, data, time, NULL FROM messages WHERE topic = ? "
                "ORDER BY offset",
                (found.id,),
            )
        else:
            rows = self._connection.execute(
                'SELECT offset, key, data, time, expires FROM "values" WHERE topic = ? '
                "ORDER BY offset",
                (found.id,),
            )
        entries = [
            Entry(offset, _text(key), data, time, expires)
            for offset, key, data, time, expires in rows
        ]
        return Saved(found.epoch, found.top, _distinct(entries))

    # --- writing ----------------------------------------------------------------

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """Write all or nothing.

        Args:
            durable: wait for the disk, so that a power cut takes nothing of it, nor of what
                was written before.
        """
        execute = self._connection.execute
        execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        execute("BEGIN IMMEDIATE")
        try:
            yield
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # it may have ended it already
                execute("ROLLBACK")
            raise

    def own(self, pid: int) -> int:
        """Mark the file as open, and all topics as not known to be whole.

        Returns:
            How often that was done: it tells whether another owner has been here since.
        """
        with self.transaction(durable=True):
            self._connection.execute("UPDATE owner SET pid = ?, runs = runs + 1", (pid,))
            self._connection.execute("UPDATE topics SET clean = 0")
            (runs,) = self._one("SELECT runs FROM owner")
        return int(runs)

    def finish(self, whole: Iterable[str]) -> None:
        """Mark the topics that are whole, and nobody as the owner."""
        with self.transaction(durable=True):
            self._connection.executemany(
                "UPDATE topics SET clean = 1 WHERE name = ?", ((name,) for name in whole)
            )
            self._connection.execute("UPDATE owner SET pid = 0")

    def touch(self) -> None:
        """Write something that changes nothing: a transaction without any waits for nothing."""
        self._connection.execute("UPDATE owner SET pid = pid")

    def replace(self, name: str, kind: Kind, saved: Saved) -> int:
        """Write a topic anew; return its number."""
        execute = self._connection.execute
        (number,) = execute(
            "INSERT INTO topics (name, kind, epoch, top, clean) VALUES (?, ?, ?, ?, 0) "
            "ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, epoch = excluded.epoch, "
            "top = excluded.top, clean = 0 RETURNING id",
            (name, kind, saved.epoch, saved.top),
        ).fetchone()
        self._empty(number)
        (self.append if kind == "history" else self.change)(number, saved.entries)
        return int(number)

    def clear(self, number: int, epoch: str) -> None:
        """Empty a topic, whose offsets are counted anew."""
        self._empty(number)
        self.advance(number, epoch, 0)

    def delete(self, number: int) -> None:
        """Forget a topic."""
        self._empty(number)
        self._connection.execute("DELETE FROM topics WHERE id = ?", (number,))

    def _empty(self, number: int) -> None:
        self._connection.execute("DELETE FROM messages WHERE topic = ?", (number,))
        self._connection.execute('DELETE FROM "values" WHERE topic = ?', (number,))

    def advance(self, number: int, epoch: str, top: int) -> None:
        """Note how far a topic has come."""
        self._connection.execute(
            "UPDATE topics SET epoch = ?, top = ? WHERE id = ?", (epoch, top, number)
        )

    def append(self, number: int, entries: Sequence[Entry]) -> None:
        """Add messages of a history."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?)",
            ((number, e.offset, _storable(e.key), e.data, e.time) for e in entries),
        )

    def trim(self, number: int, floor: int) -> None:
        """Delete the messages that the log has let go of."""
        self._connection.execute(
            "DELETE FROM messages WHERE topic = ? AND offset < ?", (number, floor)
        )

    def change(self, number: int, entries: Sequence[Entry]) -> None:
        """Set values of a state."""
        self._connection.executemany(
            'INSERT OR REPLACE INTO "values" VALUES (?, ?, ?, ?, ?, ?)',
            (
                (number, _storable(e.key), e.offset, e.data, e.time, e.expires)
                for e in entries
            ),
        )  # fmt: skip

    def remove(self, number: int, keys: Iterable[str]) -> None:
        """Remove keys of a state."""
        self._connection.executemany(
            'DELETE FROM "values" WHERE topic = ? AND key = ?',
            ((number, _storable(key)) for key in keys),
        )

    def shrink(self) -> None:
        """Give unused pages back to the system, a few at a time, if they are the most."""
        (free,), (pages,) = self._one("PRAGMA freelist_count"), self._one("PRAGMA page_count")
        if free > _SPARE_PAGES and free * 2 > pages:
            self._connection.execute(f"PRAGMA incremental_vacuum({_SPARE_PAGES})").fetchall()

    def close(self) -> None:
        """Close it; the last who does removes the files beside it."""
        with suppress(sqlite3.Error):  # such as a disk that is gone
            self._connection.close()


def owner_of(path: Path) -> int | None:
    """Return the process that has marked a file as its own; None if that cannot be told."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=1.0)
    except sqlite3.Error:
        return None
    try:
        return connection.execute("SELECT pid FROM owner").fetchone()[0] or None
    except (sqlite3.Error, TypeError):
        return None
    finally:
        connection.close()


def problem_of(exc: Exception) -> str:
    """Return what the system says of a disk that does not take something."""
    return str(exc.strerror if isinstance(exc, OSError) and exc.strerror else exc) or repr(exc)


def _storable(text: str) -> str | bytes:
    """Return a text as SQLite takes it: it has no half surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(stored: str | bytes) -> str:
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def _distinct(entries: list[Entry]) -> list[Entry]:
    """Return entries whose offsets differ, from those in order in which some are the same."""
    for index in range(len(entries) - 2, -1, -1):
        later = entries[index + 1].offset
        if entries[index].offset >= later:
            entries[index] = entries[index]._replace(offset=later - 1)
    return entries
