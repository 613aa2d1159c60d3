"""Who owns a file: one app, of one process, as long as the system holds its lock.

The lock is one of ``flock``, on the file itself, so that nothing is left beside it and nothing
stays locked when a process dies. It is apart from the locks of SQLite, which go when any
descriptor of the file is closed in the process. So ours is opened before the database and
closed behind it, and an app of this process that comes second does not open the file at all.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ....waits import comes_true

try:
    import fcntl
except ImportError:  # not on this system: nothing but this process is kept away
    fcntl = None  # type: ignore[assignment]  # which is how a missing module is written

__all__ = ["Ownership"]

# By real path: the files that apps of this process own.
_owned: dict[str, Ownership] = {}


class Ownership:
    """The lock on one file.

    Args:
        path: absolute; the file is made if it is not there, for nobody else to read.

    Attributes:
        read_only: the file can be read, and its file system takes no writes.

    Threads:
        One at a time.
    """

    def __init__(self, path: Path) -> None:
        self.read_only = False
        self._path = path
        self._key = os.path.realpath(path)
        self._fd = -1

    @property
    def is_taken_here(self) -> bool:
        """True if an app of this process has the file."""
        return _owned.get(self._key, self) is not self

    def take(self, timeout: float) -> bool:
        """Become the owner.

        Args:
            timeout: seconds to wait for another owner.

        Returns:
            False if there is another owner still.

        Raises:
            OSError: the file cannot be opened.
        """
        return comes_true(self._try, timeout)

    def holds(self) -> bool:
        """Tell whether the file at the path is the one that is locked."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def release(self) -> None:
        """Give it up; again is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if _owned.get(self._key) is self:
            del _owned[self._key]

    def abandon(self) -> None:
        """Let go of a forked child's copy; the parent keeps the file.

        A child that lives longer than its parent would keep the next owner waiting.
        """
        self.release()

    def _try(self) -> bool:
        if _owned.setdefault(self._key, self) is not self:
            return False
        done = False
        try:
            self._fd = self._open()
            done = _lock(self._fd) and self.holds()  # it may have been replaced meanwhile
        finally:
            if not done:
                self.release()
        return done

    def _open(self) -> int:
        self.read_only = False
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno != errno.EROFS or not self._path.exists():
                raise
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self.read_only = True
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a file")
        return fd


def _lock(fd: int) -> bool:
    if fcntl is None:
        return True  # type: ignore[unreachable]  # elsewhere it is
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
