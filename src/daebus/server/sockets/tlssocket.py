"""TLS around a connected socket, for one reader and any number of writers.

Rules of this module:

1. CPython does not promise that two threads may use one ``SSLSocket`` at once. So the
   socket is read and written raw, and the TLS engine works between two buffers in
   memory, under a lock that nobody holds while waiting.
2. All plaintext there is leaves with the read that brought it: a poller sees the socket
   alone, so nothing may wait behind it.
3. A sealed record must be sent whole, but callers count plaintext and may stop where the
   socket stops. So as long as ciphertext waits, ``send`` has reported one byte less than
   was sealed: the caller comes again with that byte, and it is owed, not sealed twice.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Literal

from ...interrupts.stack import held, inside
from ...waits import monotonic
from .transport import DONTWAIT, SMALL_READ

__all__ = ["PlainTextError", "TlsSocket"]

# Plaintext sealed in one go. Not less than what an outbox joins to one write: where a
# write of several frames stops in the middle, the owed byte could be the first of a frame
# that counts as not begun.
MAX_SEALED = 262144

# Ciphertext that may wait for the kernel. Beyond it a peer makes the engine answer (key
# updates, say) and reads nothing.
MAX_PENDING = 2 * MAX_SEALED

# The plaintext of one record, RFC 8446 section 5.1.
_RECORD = 16384

# Records without data (key updates, in practice) that a peer may send within a period, and
# its seconds. Each has keys computed, for which nobody else should wait: one that renews its
# keys does so once in millions of records.
MAX_BARREN = 32
BARREN_PERIOD = 60.0

# Of a record: its type, its version and its length come first, RFC 8446 section 5.1.
_HEADER = 5

_NOTHING = memoryview(b"")


class PlainTextError(ConnectionError):
    """The client's first byte is a letter: it speaks plain HTTP rather than TLS."""


class TlsSocket:
    """TLS around a socket, with the methods of a socket that daebus uses.

    Args:
        sock: connected; closed with this object.
        context: for servers.

    Threads:
        One at a time reads, or shakes hands. ``send`` may be called by any, also meanwhile,
        and ``shutdown`` as well; they never wait.
    """

    __slots__ = (
        "_barren",
        "_barren_since",
        "_context",
        "_ended",
        "_engine",
        "_held",
        "_incoming",
        "_lock",
        "_outgoing",
        "_owed",
        "_pending",
        "_shaken",
        "_shut",
        "_skip",
        "_sock",
    )

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._context = context
        self._lock = threading.Lock()
        # None until the first byte has come: it costs more than the rest of a silent client.
        self._engine: ssl.SSLObject | None = None  # guarded by: _lock
        self._incoming = ssl.MemoryBIO()  # guarded by: _lock; ciphertext from the peer
        self._outgoing = ssl.MemoryBIO()  # guarded by: _lock; ciphertext for the peer
        self._pending = _NOTHING  # guarded by: _lock; ciphertext that waits
        self._owed = 0  # guarded by: _lock; bytes sealed but not reported, 0 or 1
        self._shaken = False  # guarded by: _lock; the handshake is done
        self._shut = False  # guarded by: _lock; close_notify was sent
        # The reader's alone:
        self._ended = False  # the peer sent close_notify, or broke the protocol
        self._skip = 0  # bytes to come of the record that has begun
        self._held = b""  # a part of the header of the next one
        self._barren = 0  # records without data since then
        self._barren_since = 0.0

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        return self._sock.fileno()

    def settimeout(self, seconds: float | None, /) -> None:
        """Set how long a read waits: 0 never, None for ever."""
        self._sock.settimeout(seconds)

    def setblocking(self, flag: bool, /) -> None:
        """Set whether a read waits."""
        self._sock.setblocking(flag)

    # --- the handshake ----------------------------------------------------------

    def handshake(self) -> Literal["done", "read", "write"]:
        """Go on with the handshake as far as that is possible without waiting.

        Returns:
            Whether it is done, or what the socket must be waited for.

        Raises:
            PlainTextError: the client does not speak TLS; nothing was answered.
            OSError: it failed; the alert that says why was sent.
        """
        with self._lock:
            if not self._flush_locked():
                return "write"
            if self._shaken:
                return "done"
        try:
            data = self._sock.recv(SMALL_READ)
        except (BlockingIOError, InterruptedError):
            return "read"
        if not data:
            raise ConnectionResetError("the client left during the handshake")
        with self._lock:
            if self._engine is None:
                if data[:1].isalpha():
                    raise PlainTextError("the client does not speak TLS")
                self._engine = self._context.wrap_bio(
                    self._incoming, self._outgoing, server_side=True
                )
            for piece, _ in self._pieces(data):
                self._incoming.write(piece)
            try:
                self._engine.do_handshake()
                self._shaken = True
            except ssl.SSLWantReadError:
                pass
            finally:
                flushed = self._flush_locked()
            if not flushed:
                return "write"
            return "done" if self._shaken else "read"

    def take(self) -> bytes:
        """Return what came in the same packet as the end of the handshake."""
        return self._open(b"")

    # --- as a socket ------------------------------------------------------------

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Read all plaintext there is; ``b""`` is the end of the stream.

        Args:
            size: bytes to read from the socket. The plaintext is as much at most, and one
                record that had begun to come before.
            flags: as for a socket.

        Raises:
            BlockingIOError: there is none, if the socket or the flags say not to wait; it
                may be that a part of a record came, or one without data. The socket was
                read once: what else it has is for the next turn.
            OSError: the connection is broken.
        """
        while not self._ended:
            data = self._sock.recv(size, flags)
            if not data:
                return b""
            # After our close_notify what still comes is only counted and dropped.
            if self._shut:  # unguarded: set once, by the thread that drains the rest
                return data
            plain = self._open(data)
            if plain:
                return plain
            if not self._ended and (flags & DONTWAIT or self._sock.gettimeout() == 0):
                raise BlockingIOError("no whole record with data has come")
        return b""

    def send(self, data: bytes | memoryview, flags: int = 0, /) -> int:
        """Seal and send as much as the kernel takes at once.

        Args:
            data: must begin with what the last call left over, if it left anything.
            flags: ignored; it never waits.

        Returns:
            How much is done with.

        Raises:
            BlockingIOError: nothing, the kernel's buffer is full.
            OSError: the connection is broken.
        """
        if self._lock.locked() and inside():
            raise BlockingIOError("this very thread was interrupted while it reads")
        with self._lock:
            if not self._flush_locked():
                raise BlockingIOError("the kernel takes no more ciphertext")
            size = len(data)
            done = self._owed if size else 0
            self._owed -= done
            if done == size:
                return size
            engine = self._engine
            assert engine is not None, "there was no handshake"
            view = memoryview(data)
            while done < size:
                end = min(size, done + MAX_SEALED)
                while done < end:  # a record each
                    done += engine.write(view[done:end])
                if not self._flush_locked():
                    self._owed = 1
                    if done == 1:
                        raise BlockingIOError("the kernel takes no more ciphertext")
                    return done - 1
            return size

    def shutdown(self, how: int, /) -> None:
        """Shut the socket down; send close_notify first if only the write side ends."""
        if how == socket.SHUT_WR:
            self._say_goodbye()
        self._sock.shutdown(how)

    def close(self) -> None:
        """Send close_notify unless it was sent, and close the socket."""
        if self._sock.fileno() >= 0:
            self._say_goodbye()
            self._sock.close()

    def detach(self) -> int:
        """Give up the descriptor, without a word to the peer, and return it."""
        return self._sock.detach()

    # --- the engine -------------------------------------------------------------

    def _open(self, data: bytes) -> bytes:
        """Return the plaintext of all records that are complete now; perhaps none."""
        parts: list[bytes] = []
        with held, self._lock:
            engine = self._engine
            assert engine is not None, "there was no handshake"
            for piece, records in self._pieces(data):
                before = len(parts)
                self._incoming.write(piece)
                self._read_engine_locked(engine, parts)
                self._count_barren(records - (len(parts) - before))
                if self._ended:
                    break
            if self._outgoing.pending:
                try:
                    self._flush_locked()
                except OSError:  # the peer is gone; what it sent before still counts
                    self._ended = True
                if len(self._pending) > MAX_PENDING:
                    self._ended = True
        if self._ended:
            # Pollers must see that there is something to learn, once the plaintext is used.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RD)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_engine_locked(self, engine: ssl.SSLObject, parts: list[bytes]) -> None:
        """Add the plaintext of each record that is complete."""
        assert self._lock.locked()
        try:
            while self._incoming.pending or engine.pending():
                part = engine.read(_RECORD)
                if not part:  # the peer's close_notify
                    self._ended = True
                    return
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # a broken record; the alert that says so is ready
            self._ended = True

    def _pieces(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Cut ciphertext into pieces that few records end in, so that none takes long.

        Yields:
            A piece, and how many records end in it. Part of a header is held back.
        """
        if self._held:
            data, self._held = self._held + data, b""
        start, end, records = 0, self._skip, 0
        while end <= len(data):
            if end:  # else it is where the first one begins
                records += 1
            if records == MAX_BARREN:
                yield data[start:end], records
                start, records = end, 0
            if len(data) - end < _HEADER:
                break
            end += _HEADER + int.from_bytes(data[end + 3 : end + _HEADER], "big")
        if end <= len(data):
            self._held, self._skip = data[end:], 0
            yield data[start:end], records
        else:
            self._skip = end - len(data)
            yield data[start:], records

    def _count_barren(self, records: int) -> None:
        """Give up a peer that has this thread work for nothing."""
        if records <= 0:
            return
        now = monotonic()
        if now - self._barren_since > BARREN_PERIOD:
            self._barren, self._barren_since = 0, now
        self._barren += records
        if self._barren > MAX_BARREN:
            self._ended = True

    def _flush_locked(self) -> bool:
        """Hand ciphertext to the kernel; return False if some has to wait."""
        assert self._lock.locked()
        if self._outgoing.pending:
            sealed = self._outgoing.read()
            if self._pending:
                sealed = b"".join((self._pending, sealed))
            self._pending = memoryview(sealed)
        if self._pending:
            try:
                sent = self._sock.send(self._pending, DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return False
            if sent < len(self._pending):
                self._pending = self._pending[sent:]
                return False
            self._pending = _NOTHING
        return True

    def _say_goodbye(self) -> None:
        """Send close_notify, if there is room: a truncated stream must not look whole."""
        with self._lock, contextlib.suppress(OSError):
            if self._shut:
                return
            self._shut = True
            if self._shaken and self._flush_locked():
                assert self._engine is not None
                with contextlib.suppress(ssl.SSLError):  # it wants the peer's as well
                    self._engine.unwrap()
                self._flush_locked()
