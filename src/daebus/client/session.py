"""The thread that owns the connection: it connects, reads, keeps the heartbeat, comes back.

Rules of this module:

1. One attempt at a time, by one thread, which also makes every change of the status.
2. What comes of a connection until its end is the matter of ``reading``.
"""

from __future__ import annotations

import math
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import DaebusError, Disconnected, Refused
from ..interrupts.flag import Flag
from ..server.threads.safelog import get_logger
from ..waits import monotonic, until
from .queues import LOOK, SLICE, Inbox
from .reading import Reading
from .requests import Requests
from .rules import Backoff, is_final_code, is_final_status, retry_after
from .subscriptions import Subscriptions
from .wire import Address, Lost, Unreachable, Wire, header_value

__all__ = ["ClientStatus", "Session", "Settings", "Status"]

logger = get_logger("daebus.client")

# Seconds for the last attempt at the first connection, at least.
_LAST_ATTEMPT = 0.25

Status = Literal["connecting", "open", "waiting", "refused", "closed"]


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What ``on_status`` is told.

    Attributes:
        status: ``connecting``, ``open``, ``waiting``, ``refused`` or ``closed``.
        code: why it is not open: a close code, the HTTP status of a refusal, or 4900 for a
            server that answered no heartbeat; None if there is nothing to say.
        reason: the same as text.
        retry_in: seconds until the next attempt, where the status is ``waiting``.
    """

    status: Status
    code: int | None = None
    reason: str = ""
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client was told."""

    address: Address
    headers: Mapping[str, str]
    token: str | Callable[[], str] | None
    timeout: float
    reconnect: bool
    heartbeat: float
    heartbeat_timeout: float
    ssl_context: ssl.SSLContext | None
    name: str


class Reader(Protocol):
    """Where what comes goes to; called in the session's thread."""

    def came(self, message: str | bytes) -> object:
        """Take a message; return its id if it may answer a heartbeat."""

    def changed(self, status: ClientStatus) -> None:
        """Take a new status."""

    def ended(self) -> None:
        """Note that there will be no other connection."""


class Session:
    """The connections of one client, one after the other.

    Args:
        settings: of the client.
        reader: is told.
        requests: are told of each connection, and of its end.
        subscriptions: likewise.
        inbox: tells whether there is room for more.

    Attributes:
        status: as it was told last.
        had_connection: one was open.
        over: there will be no other one, because of ``problem``; None if the client was closed.
        problem: see there.
    """

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        requests: Requests,
        subscriptions: Subscriptions,
        inbox: Inbox,
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._requests = requests
        self._subscriptions = subscriptions
        self._inbox = inbox
        self._backoff = Backoff()
        self._token: str | None = None
        self._token_failed = False
        self._renewed = False  # the token, since a connection has lasted
        self._wire: Wire | None = None  # the one that is being opened, or open
        self._open: Wire | None = None
        self._changed = Flag()  # set, and replaced, when ``_open`` or the end changes
        self._closing = Flag()
        self._reading = Reading(
            inbox,
            reader.came,
            requests.number,
            self._closing,
            settings.heartbeat,
            settings.heartbeat_timeout,
        )
        self.had_connection = False
        self._deadline = math.inf  # of the first connection
        self.status = ClientStatus("closed")
        self.problem: Exception | None = None
        self.over = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._deadline = monotonic() + self._settings.timeout
        name = f"daebus-client-{self._settings.name}"
        # Not made before: 3.13.0 takes one that was made before a fork for one that has ended.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wait_open(self, deadline: float, cancel: threading.Event | None = None) -> Wire:
        """Wait for an open connection.

        Raises:
            TimeoutError: there was none by then, or it was given up.
            Disconnected, Refused: there will be none.
        """
        while True:
            changed, wire = self._changed, self._open
            if cancel is not None and cancel.is_set():
                raise TimeoutError
            if wire is not None:
                return wire
            self.check()
            if monotonic() >= deadline:
                raise TimeoutError
            changed.wait(min(until(deadline), SLICE if cancel is None else LOOK))

    def wait_first(self) -> None:
        """Wait until there was a connection, or there will be none.

        Raises:
            Disconnected, Refused: there will be none.
        """
        # The attempt that runs when the time is over may still say why there is none.
        deadline = self._deadline + 1.0
        while not self.had_connection:
            changed = self._changed
            self.check()
            if monotonic() >= deadline:
                raise Disconnected(
                    f"there was no connection to {self._settings.address.label} within "
                    f"{self._settings.timeout:g} s"
                )
            changed.wait(min(until(deadline), SLICE))

    def check(self) -> None:
        """Raise what has ended it, if something has.

        Raises:
            Disconnected, Refused: it will not be open again.
        """
        if self._closing.is_set():
            raise Disconnected("the client was closed")
        if self.over:
            raise copy_of(self.problem)

    def current(self) -> Wire | None:
        """Return the connection, if there is one."""
        return self._open

    def close(self, deadline: float) -> bool:
        """End it; return whether the thread has ended by then."""
        self._closing.set()
        self._inbox.wake()
        wire, opened = self._wire, self._open
        if opened is not None:
            opened.close(1000, min(1.0, until(deadline) / 2))
        elif wire is not None:
            wire.abort()
        thread = self._thread
        if thread is None:
            return True
        if thread is not threading.current_thread() and thread.ident is not None:
            thread.join(until(deadline))
        return not thread.is_alive()

    def after_fork(self) -> None:
        """Let go of the socket in a forked child."""
        if self._wire is not None:
            self._wire.after_fork()

    # --- in the thread

    def _run(self) -> None:
        problem: Exception | None = None
        try:
            while not self._closing.is_set() and problem is None:
                problem = self._attempt()
        except BaseException as exc:  # whatever it is, nobody else would hear of it
            logger.exception("the client %s died", self._settings.name)
            problem = Disconnected(f"the client died: {exc!r}")
        if self._closing.is_set():
            problem = None
        self.problem, self.over = problem, True
        refused = isinstance(problem, Refused)
        code = getattr(problem, "status", None) if refused else getattr(problem, "code", None)
        text = "" if problem is None else getattr(problem, "reason", "") or str(problem)
        self._tell(ClientStatus("refused" if refused else "closed", code, text))
        self._requests.end(problem or Disconnected("the client was closed"))
        self._subscriptions.end(problem)
        self._reader.ended()
        self._wake()

    def _attempt(self) -> Exception | None:
        """Make one connection and keep it; return what makes it the last."""
        self._tell(ClientStatus("connecting"))
        wire = self._wire = Wire(self._settings.name)
        try:
            if self._closing.is_set():
                return None
            problem = self._connect(wire)
            if problem is None:
                problem = self._keep(wire)
        finally:
            self._wire = None
            wire.finish()
        if self._closing.is_set():
            return None
        return self._after(problem)

    def _connect(self, wire: Wire) -> DaebusError | None:
        settings = self._settings
        try:
            headers = self._headers()
        except Exception as exc:
            logger.exception("the token function of the client %s raised", settings.name)
            failed = Disconnected(f"there is no token: {exc!r:.200}")
            failed.__cause__, self._token_failed = exc, True
            return failed
        try:
            wire.open(
                settings.address,
                headers,
                settings.ssl_context,
                settings.timeout if self.had_connection else min(settings.timeout, self._left()),
            )
        except Refused as exc:
            self._backoff.asked = exc.retry_after
            return exc
        except Unreachable as exc:
            problem = Disconnected(
                f"there is no connection to {settings.address.label}: {exc.__cause__}",
                code=1006,
                reason=str(exc.__cause__),
            )
            problem.__cause__ = exc.__cause__
            return problem
        return None

    def _left(self) -> float:
        return max(0.05, self._deadline - monotonic())

    def _keep(self, wire: Wire) -> Disconnected:
        """Read a connection to its end, and say how it ended."""
        began = monotonic()
        self._requests.begin(wire)
        self._subscriptions.resume(wire)
        self._open, self.had_connection = wire, True
        self._tell(ClientStatus("open"))
        self._wake()
        logger.info("connected to %s", self._settings.address.label)
        try:
            end = self._reading.run(wire)
        except Lost as exc:
            end = exc
        finally:
            self._open = None
        problem = Disconnected(
            f"the connection was closed with code {end.code}"
            + (f": {end.reason}" if end.reason else ""),
            code=end.code,
            reason=end.reason,
        )
        wire.abort(end)
        self._wake()
        self._subscriptions.lose()
        self._requests.end(
            Disconnected("the client was closed") if self._closing.is_set() else problem
        )
        if self._backoff.lasted(monotonic() - began):
            self._renewed = False
        return problem

    def farewell(self, data: object) -> None:
        """Take a ``goodbye``: it says when to come back."""
        if isinstance(data, dict):
            self._backoff.asked = retry_after(data.get("retry_after"))

    # --- what comes next

    def _after(self, problem: DaebusError) -> Exception | None:
        """Wait until it is time for the next attempt; return what says that there is none."""
        if self._renews(problem):
            return None
        if self._is_final(problem):
            return problem
        delay = self._backoff.next()
        rest = math.inf if self.had_connection else self._deadline - monotonic()
        if delay >= rest:
            asked = (problem.retry_after if isinstance(problem, Refused) else None) or 0.0
            last = min(_LAST_ATTEMPT, self._settings.timeout / 4)
            if asked >= rest or rest <= 2 * last:
                return problem
            delay = max(asked, rest - last)
        code = problem.status if isinstance(problem, Refused) else getattr(problem, "code", None)
        reason = problem.text if isinstance(problem, Refused) else getattr(problem, "reason", "")
        self._tell(ClientStatus("waiting", code, reason, delay))
        logger.info("%s; the next attempt is in %.1f s", problem, delay)
        self._closing.wait(delay)
        return None

    def _is_final(self, problem: DaebusError) -> bool:
        if not self._settings.reconnect:
            return True
        if isinstance(problem, Refused):
            return is_final_status(problem.status)
        if not self.had_connection and (
            self._token_failed or isinstance(problem.__cause__, ssl.SSLCertVerificationError)
        ):
            return True  # the program is told, rather than left to wait
        return isinstance(problem, Disconnected) and is_final_code(problem.code or 1006)

    def _headers(self) -> dict[str, str]:
        headers, token = dict(self._settings.headers), self._settings.token
        if self._token is None and token is not None:
            given = token if isinstance(token, str) else token()
            self._token = header_value("the token", given)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _renews(self, problem: DaebusError) -> bool:
        """Ask for a new token, if that is what is wrong and it was not asked for already."""
        wanted = (isinstance(problem, Refused) and problem.status == 401) or (
            isinstance(problem, Disconnected) and problem.code == 4401
        )
        token = self._settings.token
        if not wanted or self._renewed or token is None or isinstance(token, str):
            return False
        if not self._settings.reconnect and self.had_connection:
            return False
        self._renewed, self._token = True, None
        return True

    # --- telling

    def _tell(self, status: ClientStatus) -> None:
        self.status = status
        self._reader.changed(status)

    def _wake(self) -> None:
        changed, self._changed = self._changed, Flag()
        changed.set()


def copy_of(problem: Exception | None) -> Exception:
    """Return an exception for one of several who get it: each raises it with its own traceback."""
    if isinstance(problem, Refused):
        return Refused(problem.status, problem.code, problem.text, retry_after=problem.retry_after)
    if isinstance(problem, Disconnected):
        return Disconnected(str(problem), code=problem.code, reason=problem.reason)
    return problem or Disconnected("the client was closed")
