"""Bodies and uploads that go to the disk, and how much of it they may take together.

Everything in here is an ``OSError`` for whoever writes, a full disk and a full spool alike;
clients are answered 503.
"""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from ...server.threads.safelog import get_logger

__all__ = ["Spool", "Upload"]

logger = get_logger("daebus.http")


class Spool:
    """Counts the bytes and files of all requests of one app.

    Args:
        max_bytes: of all files together.

    Attributes:
        has_room: tells whether a descriptor may be used for another file.

    Threads:
        Any. ``_lock`` is held for additions only.
    """

    def __init__(self, max_bytes: int) -> None:
        self.has_room: Callable[[], bool] = lambda: True
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # What was given back since: files may be closed by their destructor, and so by a
        # thread that has the lock. A list, as a deque cannot be copied while others change it.
        self._back: list[tuple[int, int]] = []
        self._bytes = 0  # guarded by: _lock
        self._files = 0  # guarded by: _lock

    @property
    def files(self) -> int:
        """How many files are open."""
        return self._files - sum(files for _, files in list(self._back))  # unguarded: a hint

    def open(self) -> IO[bytes]:
        """Return a new file without a name, gone when it is closed.

        Raises:
            OSError: there is no room for it.
        """
        if not self.has_room():
            logger.warning(
                "refused a body or an upload: no descriptor is left for it; let the process open "
                "more files, or write DaebusHttp(max_connections=...) with less"
            )
            raise OSError(errno.EMFILE, "no descriptor is left for a body")
        with _told():
            return cast(IO[bytes], _File(self))

    def take(self, size: int, *, files: int = 0) -> None:
        """Count bytes that are about to be written.

        Raises:
            OSError: they are too many.
        """
        with self._lock:
            for _ in range(len(self._back)):
                gone, closed = self._back.pop()
                self._bytes -= gone
                self._files -= closed
            full = self._bytes + size > self._max_bytes
            if not full:
                self._bytes += size
                self._files += files
        if full:
            logger.warning(
                "refused a body or an upload: those on the disk would exceed %d bytes together; "
                "if they are to be let in, write DaebusHttp(max_spool=...) with more",
                self._max_bytes,
            )
            raise OSError(errno.ENOSPC, f"bodies on the disk would exceed {self._max_bytes} bytes")

    def give_back(self, size: int, *, files: int = 0) -> None:
        """Count no longer what has been deleted, from the next ``take`` on."""
        self._back.append((size, files))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Log what the disk refuses: the client is told no more than that."""
    try:
        yield
    except OSError as exc:
        logger.warning(
            "cannot store a body or an upload in %s: %s; make room there, or set TMPDIR to "
            "another folder",
            tempfile.gettempdir(),
            exc,
        )
        raise


class _File(io.BufferedRandom):
    """One file; its bytes are given back when it is closed."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(cast(Any, tempfile.TemporaryFile(buffering=0)))  # noqa: SIM115  # closed with this
        self._spool = spool
        self._taken = 0
        self._open = True
        spool.take(0, files=1)

    def write(self, data: Any, /) -> int:
        """Write, and count what is written."""
        size = len(data)
        self._spool.take(size)
        self._taken += size
        with _told():
            return super().write(data)

    def seek(self, target: int, whence: int = 0, /) -> int:
        """Move, and write what is left in the buffer before that."""
        with _told():
            return super().seek(target, whence)

    def close(self) -> None:
        """Delete the file."""
        # What could not be written is still in its buffer, and of no use to anybody.
        with contextlib.suppress(OSError):
            super().close()
        if getattr(self, "_open", False):
            self._open = False
            self._spool.give_back(self._taken, files=1)


class Upload:
    """An uploaded file: in memory while it is small, then in a file of the spool.

    Args:
        spool: where it goes.
        max_memory: bytes that stay in memory.
    """

    def __init__(self, spool: Spool, max_memory: int) -> None:
        self._spool = spool
        self._max_memory = max_memory
        self._file: IO[bytes] = io.BytesIO()

    def write(self, data: bytes) -> int:
        """Add to its end."""
        file = self._file
        if isinstance(file, io.BytesIO) and file.tell() + len(data) > self._max_memory:
            self._file = self._spool.open()
            self._file.write(file.getvalue())
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._file)

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
