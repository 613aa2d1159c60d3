"""Which topics are kept in which files, from a start of the app to its stop."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....errors import PersistError
from ....interrupts.flag import Flag
from ....server.threads.pool import join_all
from ....server.threads.vitals import Vitals
from ....waits import monotonic
from ..feed import Feed
from ..history import Saved
from ..table import Topics

if TYPE_CHECKING:
    from .keeper import Keeper
    from .kept_file import KeptFile, Loaded

__all__ = ["Persistence"]


class _Source:
    """A topic as the thread of its file sees it."""

    def __init__(self, feed: Feed[Any]) -> None:
        self._feed = feed

    @property
    def retired(self) -> bool:
        """See ``Feed.retired``."""
        return self._feed.retired

    def span(self) -> tuple[str, int, int]:
        """See ``Feed.span``."""
        return self._feed.span()

    def dump(self) -> Saved:
        """Return all of it, with times that mean something to another process."""
        saved = self._feed.dump()
        ahead = time.time() - monotonic()
        entries = [
            entry if entry.expires is None else entry._replace(expires=entry.expires + ahead)
            for entry in saved.entries
        ]
        return saved._replace(entries=entries)


class _File:
    """A file that some thread opens, or has opened.

    Attributes:
        keeper: of the file.
        before: the same file, as this process had it last.
        ready: it is open, or cannot be opened.
        problem: why it cannot; empty once it is.
    """

    def __init__(self, keeper: Keeper, before: KeptFile | None) -> None:
        self.keeper = keeper
        self.before = before
        self.ready = Flag()
        self.problem = f"{keeper.file.path} was not opened"


class Persistence:
    """The files of one component.

    Args:
        topics: of the component.

    Threads:
        ``begin``, ``run`` and ``stop`` belong to the start and the stop of the app; any thread
        may declare topics meanwhile.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._vitals = Vitals()
        self._files: dict[Path, _File] = {}
        self._running = False
        self._before: dict[Path, KeptFile] = {}  # see _File

    def begin(self, vitals: Vitals) -> None:
        """Open the files, and make those topics of families again that are in them.

        Args:
            vitals: watches over the threads of this start.

        Raises:
            PersistError: a file cannot be used.
        """
        self._vitals = vitals
        topics = self._topics
        kept = [spec for spec in topics.specs() if spec.persist is not None]
        for spec in kept:
            assert spec.persist is not None
            self._file(spec.persist)
        for path, file in list(self._files.items()):
            for name in file.keeper.file.names():
                family = topics.family_of(name)
                if family is None or family.persist != path:
                    continue
                if not file.keeper.file.discard_empty(name):
                    topics.find(name)

    def opened(self, feed: Feed[Any]) -> None:
        """Put into a topic what its file has of it, and keep it from now on.

        Raises:
            PersistError: the file cannot be used.
        """
        spec = feed.spec
        if spec.persist is None:
            return
        file, source = self._file(spec.persist), _Source(feed)
        keeper = file.keeper
        loaded = keeper.file.load(feed.name, spec.kind)
        if loaded is not None and feed.settled:
            self._check_ours(file)
        kept = keeper.keep(
            feed.name, spec.kind, source, loaded, count=spec.count, max_bytes=spec.max_bytes
        )
        feed.store = kept
        if loaded is not None and not feed.settled:
            feed.restore(loaded.saved, time.time(), keep_epoch=loaded.clean)
        feed.settled = True
        if _is_behind(feed, source, loaded):
            kept.fall_behind()

    def run(self) -> None:
        """Start the threads.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._running = True
        for file in list(self._files.values()):
            file.keeper.start()

    def stop(self, deadline: float) -> list[threading.Thread]:
        """Write what is left, and close the files; nothing may be published any more.

        Args:
            deadline: moment of ``time.monotonic()``.

        Returns:
            The threads that did not end.
        """
        self._running = False
        for feed in self._topics.feeds():
            feed.store = None
        files, self._files = self._files, {}
        threads = []
        for path, file in files.items():
            self._before[path] = file.keeper.file
            file.keeper.begin_stop()
            threads.append(file.keeper.thread)
        return join_all(threads, deadline)

    def forget(self) -> None:
        """Let go of the files in a forked child: they are the parent's."""
        for feed in self._topics.feeds():
            feed.store = None
        for file in self._files.values():
            file.keeper.file.abandon()
        self._files, self._running = {}, False

    @property
    def has_files(self) -> bool:
        """True if a file is open."""
        return bool(self._files)

    def _file(self, path: Path) -> _File:
        """Return a file, which is opened if it is not yet.

        Raises:
            PersistError: it cannot be used.
        """
        from .keeper import Keeper  # which imports sqlite3, for those who keep topics

        file = self._files.get(path)
        if file is None:
            mine = _File(Keeper(path, self._vitals), self._before.get(path))
            file = self._files.setdefault(path, mine)
            if file is mine:
                self._open(file)
                return file
        file.ready.wait()
        if file.problem:
            raise PersistError(file.problem)
        return file

    def _open(self, file: _File) -> None:
        try:
            file.keeper.open()
            if self._running:
                file.keeper.start()
            file.problem = ""
        except PersistError as exc:
            file.problem = str(exc)
            raise
        finally:
            if file.problem:
                del self._files[file.keeper.file.path]
            file.ready.set()

    def _check_ours(self, file: _File) -> None:
        """Check that nobody else has written a file between two starts in this process.

        Raises:
            PersistError: somebody has, so it no longer fits what the topics hold.
        """
        now, before = file.keeper.file, file.before
        runs = None if before is None else before.runs
        if runs is not None and now.runs is not None and now.runs != runs + 1:
            raise PersistError(
                f"{now.path} was written by another process since the app stopped in this "
                f"one; end this process and start it again, so that it reads the file"
            )


def _is_behind(feed: Feed[Any], source: _Source, loaded: Loaded | None) -> bool:
    """Tell whether the file lacks something of a topic."""
    if loaded is not None:
        return source.dump() != loaded.saved
    # A name of a family that a client made up is not worth a row.
    return feed.spec.family is None or feed.top > 0
