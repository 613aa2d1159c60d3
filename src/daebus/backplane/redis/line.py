"""One connection to one server, used by one thread.

redis-py connects, encrypts and parses. What it does by itself beyond that is left out: it neither
connects anew, nor checks health, nor waits for longer than it is told; whoever has the line must
know that it was lost. RESP 2 is spoken, since with RESP 3 redis-py logs what the server pushes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...errors import DaebusError
from ...waits import monotonic
from .address import Address

__all__ = ["ANSWER_TIMEOUT", "SLICE", "Ended", "Line", "Lost", "Quiet", "require_redis"]

# Seconds for the connection, and for the answer to a command: whoever is silent for longer counts
# as away. Redis answers in less than a millisecond.
ANSWER_TIMEOUT = 2.0

# Seconds after which a thread that waits for a server looks whether it is to end.
SLICE = 0.1

# The oldest redis-py whose timeouts hold (PR 4119 of it).
_OLDEST = (8, 0, 1)

Command = Sequence[Any]


class Lost(Exception):
    """The connection is of no use any more; the text says why."""


class Ended(Lost):
    """Whoever waited is to end: the server is not to blame."""


class Quiet(Exception):
    """Nothing came within the time."""


def require_redis() -> None:
    """Import redis-py.

    Raises:
        DaebusError: it is too old.
        ImportError: it is not installed.
    """
    try:
        import redis
    except ImportError:
        raise ImportError(
            "DaebusRedis needs the package redis; type pip install 'redis>=8.0.1,<9'"
        ) from None
    numbers = [int(part) for part in str(redis.__version__).split(".")[:3] if part.isdigit()]
    if tuple(numbers) < _OLDEST:
        raise DaebusError(
            f"DaebusRedis needs redis 8.0.1 or later, not {redis.__version__}; type "
            f"pip install 'redis>=8.0.1,<9'"
        )


class Line:
    """A connection; ``close`` it in any case.

    Args:
        address: of the server.
        title: told to the server, for those who look at its list of clients.
        ended: whether to give up while it waits.
    """

    def __init__(self, address: Address, title: str, ended: Callable[[], bool]) -> None:
        self.address = address
        self._title = title
        self._ended = ended
        self._connection: Any = None

    def open(self) -> None:
        """Connect and be let in.

        Raises:
            Lost: it cannot be reached, or does not let us in.
        """
        import redis

        address = self.address
        kinds: dict[bool, Any] = {False: redis.Connection, True: redis.SSLConnection}
        place: dict[str, Any] = {"host": address.host, "port": address.port}
        make = kinds[address.tls]
        if address.path:
            make, place = redis.UnixDomainSocketConnection, {"path": address.path}
        try:
            connection = make(
                **place,
                **address.options,
                protocol=2,
                socket_timeout=ANSWER_TIMEOUT,
                socket_connect_timeout=ANSWER_TIMEOUT,
                health_check_interval=0,
                driver_info=None,
            )
            self._connection = connection
            connection.connect()
        except Exception as exc:
            raise Lost(_text(exc)) from None
        # Not by redis-py, whose waits cannot be ended.
        try:
            if address.password or address.username:
                who = [address.username] if address.username else []
                self.ask("AUTH", *who, address.password or "")
            if address.db:
                self.ask("SELECT", address.db)
            self.ask("CLIENT", "SETNAME", self._title)
        except redis.ResponseError as exc:
            raise Lost(_text(exc)) from None

    def send(self, commands: Iterable[Command]) -> None:
        """Send commands, each of which will be answered.

        Raises:
            Lost: they cannot be sent; nobody knows how many were.
        """
        connection = self._connection
        if connection is None:
            raise Lost("it is closed")
        try:
            connection.send_packed_command([b"".join(map(_pack, commands))], check_health=False)
        except Exception as exc:
            raise Lost(_text(exc)) from None

    def read(self, timeout: float) -> Any:
        """Return the next answer or message; an answer that is an error as the exception.

        Raises:
            Quiet: nothing came within that time.
            Lost: nothing will come any more.
        """
        import redis

        connection = self._connection
        if connection is None:
            raise Lost("it is closed")
        try:
            return connection.read_response(timeout=timeout, disconnect_on_error=False)
        except redis.TimeoutError:
            raise Quiet from None
        except redis.ResponseError as exc:
            return exc
        except Exception as exc:  # of sockets, TLS and the parser: what they raise is not said
            raise Lost(_text(exc)) from None

    def answer(self) -> Any:
        """Return the next answer, as ``read`` does.

        Raises:
            Lost: none came in time, or it is to end.
        """
        deadline = monotonic() + ANSWER_TIMEOUT
        while True:
            try:
                return self.read(SLICE)
            except Quiet:
                if self._ended():
                    raise Ended("it is to end") from None
                if monotonic() > deadline:
                    raise Lost(f"it has not answered for {ANSWER_TIMEOUT:.0f} s") from None

    def ask(self, *command: Any) -> Any:
        """Send a command and return its answer.

        Raises:
            Lost: see ``answer``.
            redis.ResponseError: the answer is an error.
        """
        self.send([command])
        answer = self.answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Close it; in a forked child its copy, without a word to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _pack(command: Command) -> bytes:
    """Return a command as it is sent; redis-py takes several times as long for it."""
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        if not isinstance(part, bytes):
            part = str(part).encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(part), part))
    return b"".join(parts)


def _text(exc: BaseException) -> str:
    return f"{exc}" or type(exc).__name__
