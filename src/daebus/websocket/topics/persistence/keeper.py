"""The thread that writes one file, and what it does while the disk takes nothing.

Rules of this module:

1. After a failure nothing of the queue is trusted: every topic is written anew from its log.
2. What fails is tried again, less and less often, and said once.
3. Records are gathered for a moment and written together. About once a second a write waits
   for the disk: a dead process loses the moment, a power cut the second.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ....interrupts.flag import Flag
from ....server.threads.safelog import get_logger
from ....server.threads.track import track
from ....server.threads.vitals import Vitals
from ....waits import monotonic
from ..history import Entry
from ..position import Kind
from ..store import Appended, Changed, Cleared, Record
from .database import Database, problem_of
from .kept import Kept, Queue, Source
from .kept_file import KeptFile, Loaded

__all__ = ["Keeper"]

logger = get_logger("daebus.websocket")

# Seconds that a start waits for the owner before, such as the process that this one replaces.
OWNER_TIMEOUT = 10.0

# Seconds that records are gathered before they are written together.
GATHER = 0.05

# Seconds after which a write waits for the disk.
SYNC = 1.0

# Seconds until what failed is tried again: at first, and at most.
RETRY = 1.0
RETRY_MOST = 30.0

# Seconds between two looks for messages that have grown too old, and for space.
TIDY = 60.0

# Records of one transaction.
_BATCH = 5000


class Keeper:
    """One file, for one start of the app.

    Args:
        path: absolute.
        vitals: watches over the thread.
        gather: see ``GATHER``.
        sync: see ``SYNC``.
        retry: see ``RETRY``.

    Attributes:
        error: why nothing is written at present; None while all is well.
        file: what it writes.
        thread: writes it.

    Threads:
        ``open`` and ``start`` one after the other; then any.
    """

    def __init__(
        self,
        path: Path,
        vitals: Vitals,
        *,
        gather: float = GATHER,
        sync: float = SYNC,
        retry: float = RETRY,
    ) -> None:
        self.error: str | None = None
        self.file = KeptFile(path)
        self.thread = threading.Thread(
            target=vitals.guard, args=(self._run,), name=f"daebus-persist-{path.name}", daemon=True
        )
        track(self.thread, "persist")
        self._gather, self._sync = gather, sync
        self._retry = self._delay = retry
        self._topics: dict[str, Kept] = {}
        self._more = Flag()  # there may be something to do
        self._end = Flag()
        self._queue = Queue(self._wake)
        self._behind: dict[Kept, None] = {}
        self._dirty = False  # something was written that is perhaps not on the disk
        self._synced = self._tidied = monotonic() - sync

    # --- the start --------------------------------------------------------------

    def open(self, timeout: float = OWNER_TIMEOUT) -> None:
        """Become the owner of the file, and see what is in it.

        A disk that takes no writes does not keep an app from starting, as long as what it
        holds can be read.

        Args:
            timeout: seconds to wait for another owner.

        Raises:
            PersistError: it cannot be used.
        """
        problem = self.file.open(timeout)
        if problem is not None:
            self._fail(problem)

    def keep(
        self,
        name: str,
        kind: Kind,
        source: Source,
        loaded: Loaded | None,
        *,
        count: int,
        max_bytes: int,
    ) -> Kept:
        """Return a store for a topic, of which nothing is written before its first record.

        ``fall_behind`` has it written at once.

        Args:
            name: of the topic.
            kind: of the topic.
            source: the topic.
            loaded: what the file has of it; None if that is to be replaced.
            count: how many messages or keys its log holds at most.
            max_bytes: how many bytes of them.
        """
        kept = Kept(
            name, kind, source, self._queue, lambda: self.error, count=count, max_bytes=max_bytes
        )
        if loaded is not None:
            kept.is_written(loaded.number, loaded.saved)
            self._topics[name] = kept
            if self.error is not None:
                kept.fall_behind()
        return kept

    def start(self) -> None:
        """Start the thread; what was published meanwhile waits in the queue or the logs.

        Raises:
            RuntimeError: no thread can be started.
        """
        self.file.let_go()
        self.thread.start()

    # --- the end ----------------------------------------------------------------

    def begin_stop(self) -> None:
        """End the thread when all has been written; nothing may be published any more."""
        self._end.set()
        self._more.set()
        if self.thread.ident is None:  # the start failed elsewhere
            self.file.undo()

    # --- the thread -------------------------------------------------------------

    def _wake(self) -> None:
        if not self._more.is_set():
            self._more.set()

    def _run(self) -> None:
        while True:
            if self.error is None:
                self._more.wait(self._next_duty())
                self._end.wait(self._gather)
            else:
                self._end.wait(self._delay)
            ending = self._end.is_set()
            self._more.clear()
            try:
                if self.error is not None:
                    self.file.open_to_write(0.0)
                more = self._write()
                if self.error is not None:
                    logger.info("topics are kept in %s again", self.file.path)
                    self.error = None
                if ending and not more:
                    self._finish()
                    return
                if more:
                    self._more.set()
            except Exception as exc:
                self._fail(exc)
                if ending:
                    self._give_up()
                    return

    def _next_duty(self) -> float:
        """Return the seconds until something is to be done without a record."""
        duty = self._synced + self._sync if self._dirty else self._tidied + TIDY
        return duty - monotonic()

    def _write(self) -> bool:
        """Write what waits, up to a bound; return whether something waits still."""
        database = self.file.database
        batch = self._take()
        for kept in batch:
            if kept.number is None and not kept.is_behind:
                kept.fall_behind()
                self._behind[kept] = None
        behind = [kept for kept in self._behind if kept.is_drained]
        now = monotonic()
        tidy = now - self._tidied >= TIDY
        durable = now - self._synced >= self._sync
        if batch or behind or tidy or (durable and self._dirty):
            if durable and not self.file.is_there():
                raise OSError(errno.ENOENT, "the file was moved or deleted")
            with database.transaction(durable=durable):
                database.touch()  # so that there is something to be waited for
                for kept, records in batch.items():
                    _put(database, kept, records)
                for kept in behind:
                    self._rewrite(database, kept)
                if tidy:
                    self._tidy(database)
            self._dirty = not durable
            if durable:
                self._synced = now
        if tidy:
            database.shrink()
            self._tidied = now
        return bool(self._queue.records or self._queue.behind or self._behind)

    def _take(self) -> dict[Kept, list[Record]]:
        """Take records from the queue, those of each topic in order."""
        batch: dict[Kept, list[Record]] = {}
        queue = self._queue
        with suppress(IndexError):
            for _ in range(_BATCH):
                kept, record = queue.records.popleft()
                kept.taken(record)
                self._register(kept)
                batch.setdefault(kept, []).append(record)
        with suppress(IndexError):
            while True:
                kept = queue.behind.popleft()
                self._register(kept)
                self._behind[kept] = None
        return batch

    def _register(self, kept: Kept) -> None:
        """Note that a topic has something; one of a family may follow a retired namesake."""
        before = self._topics.get(kept.name)
        if before is not kept:
            self._topics[kept.name] = kept
            if before is not None:
                self._behind.pop(before, None)

    def _tidy(self, database: Database) -> None:
        """Delete what has grown too old, and topics that were given up."""
        for name, kept in list(self._topics.items()):
            if kept.source.retired and not kept.is_behind:
                if kept.number is not None:
                    database.delete(kept.number)
                del self._topics[name]
            else:
                _trim(database, kept)

    def _rewrite(self, database: Database, kept: Kept) -> None:
        """Write a topic anew from its log."""
        self._behind.pop(kept, None)
        overflowed, left_out = kept.overflowed, kept.left_out
        saved = kept.catch_up()
        kept.is_written(database.replace(kept.name, kept.kind, saved), saved)
        if overflowed:
            logger.warning(
                "topic %r is published on faster than %s is written: the queue had no room for %d "
                "records, and the topic was written anew from its log",
                kept.name,
                self.file.path,
                left_out,
            )

    # --- failures ---------------------------------------------------------------

    def _fail(self, exc: Exception) -> None:
        """Note that nothing can be written; every topic is written anew when it can."""
        self.file.close()
        is_disk = isinstance(exc, (OSError, sqlite3.Error))
        if self.error is None:
            logger.error(
                "topics are not kept in %s: %s; publishing goes on, and all is written once the "
                "file can be written again",
                self.file.path,
                problem_of(exc),
                exc_info=None if is_disk else exc,
            )
            self._delay = self._retry
        else:
            self._delay = min(2 * self._delay, RETRY_MOST)
        self.error = problem_of(exc)
        while self._take():  # the logs have what was in there
            pass
        for kept in list(self._topics.values()):
            if not kept.is_behind:
                kept.fall_behind()

    # --- the last moment ----------------------------------------------------------

    def _finish(self) -> None:
        """Mark what is whole, and close the file."""
        database = self.file.database
        with database.transaction(durable=False):
            for kept in list(self._topics.values()):
                if kept.lapses:  # a value that is set again lives longer, without a record
                    self._rewrite(database, kept)
        self.file.finish(name for name, kept in self._topics.items() if not kept.is_behind)

    def _give_up(self) -> None:
        logger.error(
            "topics in %s lack what was published last: %s; clients will be told so after the "
            "next start",
            self.file.path,
            self.error,
        )
        self.file.release()


def _put(database: Database, kept: Kept, records: Iterable[Record]) -> None:
    """Write records of one topic, but for those that are there already."""
    number = kept.number
    if number is None:  # it is written anew in a moment
        return
    messages: list[Entry] = []
    values: dict[str, Entry | None] = {}
    before = kept.top
    for record in records:
        if isinstance(record, Cleared):
            if record.epoch != kept.epoch:
                kept.cleared(record.epoch)
                database.clear(number, record.epoch)
                messages, values, before = [], {}, 0
        elif record.epoch != kept.epoch or record.offset <= kept.base:
            continue
        elif isinstance(record, Appended):
            kept.top = record.offset
            messages.append(Entry(kept.top, record.message_type, record.data, record.time))
        elif isinstance(record, Changed):
            kept.top = record.offset
            values[record.key] = (
                None
                if record.value is None
                else Entry(kept.top, record.key, record.value, record.time, record.expires)
            )
    if messages:
        floor = kept.floor()
        database.append(number, [entry for entry in messages if entry.offset >= floor])
        _trim(database, kept)
    if values:
        entries = [entry for entry in values.values() if entry is not None]
        kept.lapses = kept.lapses or any(entry.expires is not None for entry in entries)
        database.change(number, entries)
        database.remove(number, [key for key, entry in values.items() if entry is None])
    if kept.top != before:
        database.advance(number, kept.epoch, kept.top)


def _trim(database: Database, kept: Kept) -> None:
    if kept.kind == "history" and kept.number is not None:
        floor = kept.floor()
        if floor > kept.trimmed:
            database.trim(kept.number, floor)
            kept.trimmed = floor
