"""A file of topics, from the moment when this process owns it: what it held, and its database.

Rules of this module:

1. A mistake of the program, such as a folder that is not there, is an exception. A disk that is
   full or broken is not, as long as what it holds can be read.
2. What was whole is marked as open before anything can be published, and waits for the disk.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ....errors import PersistError
from ..history import Saved
from ..position import Kind
from .database import Database, Found, owner_of, problem_of
from .ownership import Ownership

__all__ = ["KeptFile", "Loaded"]

# What is wrong with a path rather than with a disk, and does not mend itself.
_MISTAKES = {
    errno.EACCES, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.EPERM,
}  # fmt: skip


class Loaded(NamedTuple):
    """A topic as the file had it.

    Attributes:
        number: of the topic in the file.
        saved: all of it.
        clean: nothing that was published is missing.
    """

    number: int
    saved: Saved
    clean: bool


class KeptFile:
    """One file.

    Args:
        path: absolute.

    Attributes:
        runs: how often the file has been opened to be written; None if it could not be.

    Threads:
        One at a time, but for ``load``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: int | None = None
        self._ownership = Ownership(path)
        self._database: Database | None = None
        self._reading: Database | None = None  # until nobody else may use a database
        self._found: dict[str, Found] = {}  # those that no topic has taken yet
        self._clean: list[str] = []  # those that were whole when the file was opened
        self._opened = False

    @property
    def database(self) -> Database:
        """What is written to; only while the file is open for that."""
        assert self._database is not None
        return self._database

    # --- opening ------------------------------------------------------------------

    def open(self, timeout: float) -> OSError | sqlite3.Error | None:
        """Become the owner of the file, and see what is in it.

        Args:
            timeout: seconds to wait for another owner.

        Returns:
            What keeps the disk from taking writes; None if it takes them.

        Raises:
            PersistError: it cannot be used.
        """
        try:
            return self._open(timeout)
        except BaseException:  # a signal handler may have raised it while we waited
            self.release()
            raise

    def _open(self, timeout: float) -> OSError | sqlite3.Error | None:
        try:
            self.open_to_write(timeout)
        except PersistError:
            raise
        except (OSError, sqlite3.Error) as exc:
            self._open_to_read(exc)
            return exc
        return None

    def open_to_write(self, timeout: float) -> None:
        """Become the owner, if need be, and open the database.

        Raises:
            PersistError: it cannot be used.
            OSError, sqlite3.Error: the disk takes no writes.
        """
        ownership, path = self._ownership, self.path
        if not ownership.holds() or ownership.read_only:
            ownership.release()
            if not ownership.take(timeout):
                raise PersistError(self._taken())
            if ownership.read_only:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        database = Database(path)
        try:
            self.runs = database.own(os.getpid())
        except BaseException:
            database.close()
            raise
        self._database = database
        if not self._opened:
            self._opened = True
            self._reading, self._found = database, database.found
            self._clean = [name for name, found in self._found.items() if found.clean]

    def _taken(self) -> str:
        if self._ownership.is_taken_here:
            return (
                f"{self.path} is in use by another app of this process; write persist= with "
                f"another path there"
            )
        pid = owner_of(self.path)
        return (
            f"{self.path} is in use by {'another process' if pid is None else f'process {pid}'}; "
            f"end that, or write persist= with another path"
        )

    def _open_to_read(self, problem: OSError | sqlite3.Error) -> None:
        """Open a file that cannot be written, if that is the disk's fault.

        Raises:
            PersistError: it is not, or the file cannot be read.
        """
        path, folder, text = self.path, self.path.parent, problem_of(problem)
        self._opened = True  # what comes to light later does not fit what topics have by then
        if not os.path.isdir(folder):
            raise PersistError(
                f"{path} cannot be opened: there is no folder {folder}; make it, or write "
                f"persist= with another path"
            ) from problem
        if (isinstance(problem, OSError) and problem.errno in _MISTAKES) or not _may_write(folder):
            raise PersistError(
                f"{path} cannot be opened: {text}; this user must be allowed to write it, and to "
                f"make files in {folder}"
            ) from problem
        with suppress(FileNotFoundError):
            if path.stat().st_size:
                self._reading = _open_for_reading(path)
                self._found = {
                    name: found._replace(clean=False) for name, found in self._reading.found.items()
                }

    # --- what it held ---------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the topics in the file that ``load`` was not asked for."""
        return list(self._found)

    def discard_empty(self, name: str) -> bool:
        """Forget a topic of which the file has nothing but the name; False if there is more."""
        found = self._found.get(name)
        if found is None or not found.empty:
            return False
        if self._database is not None:
            with self._database.transaction(durable=False):
                self._database.delete(found.id)
        del self._found[name]
        return True

    def load(self, name: str, kind: Kind) -> Loaded | None:
        """Return what the file holds of a topic, once; None if there is nothing.

        Raises:
            PersistError: it is of another kind, or cannot be read.
        """
        found = self._found.get(name)
        if found is None:
            return None
        if found.kind != kind:
            raise PersistError(
                f"{self.path} holds a {found.kind} topic {name!r}, and this one is a {kind}; write "
                f"another name, or persist= with another path"
            )
        try:
            reading = self._reading
            if reading is not None:
                saved = reading.read(found)
            else:
                reading = _open_for_reading(self.path)
                try:
                    saved = reading.read(found)
                finally:
                    reading.close()
        except sqlite3.Error as exc:
            raise PersistError(
                f"{self.path} cannot be read: {exc}; move it away, or write persist= with another "
                f"path"
            ) from exc
        del self._found[name]
        return Loaded(found.id, saved, found.clean)

    def let_go(self) -> None:
        """End the reading with the database, which another thread is about to use."""
        reading, self._reading = self._reading, None
        if reading is not None and reading is not self._database:
            reading.close()

    # --- the end ----------------------------------------------------------------------

    def is_there(self) -> bool:
        """Tell whether the file was neither moved nor deleted."""
        return self._ownership.holds()

    def finish(self, whole: Iterable[str]) -> None:
        """Mark the topics that are whole, and those that nobody has touched; close the file."""
        untouched = [name for name, found in self._found.items() if found.clean]
        self.database.finish([*whole, *untouched])
        self.release()

    def undo(self) -> None:
        """Close the file as it was found, since nothing was published."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.finish(self._clean)
        self.release()

    def close(self) -> None:
        """Close the database; the file stays owned."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def release(self) -> None:
        """Close the file, for whoever comes next."""
        self.let_go()
        self.close()
        self._ownership.release()

    def abandon(self) -> None:
        """Let go of a forked child's copy.

        The database must be neither used nor closed there: the frame of the thread, which
        does not exist in the child, keeps it.
        """
        self._ownership.abandon()


def _open_for_reading(path: Path) -> Database:
    """Open a file that is not to be written, even where nothing can be made beside it.

    Raises:
        PersistError: it cannot be read.
    """
    problem: Exception | None = None
    for mode in ("ro", "immutable"):
        try:
            return Database(path, mode)
        except sqlite3.Error as exc:
            problem = exc
    raise PersistError(
        f"{path} cannot be read: {problem}; move it away, or write persist= with another path"
    ) from problem


def _may_write(folder: Path) -> bool:
    """Tell whether this user is allowed to make files in a folder; the disk may not be."""
    return os.access(folder, os.W_OK) or bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
