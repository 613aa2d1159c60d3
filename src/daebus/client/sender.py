"""Messages that leave: requests, from the wait for a connection to the answer, and plain sends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..errors import Disconnected, Refused, RequestError
from ..waits import lock_timeout, monotonic, until
from .message import Message, encode
from .queues import LOOK, SLICE, Inbox, Queue
from .requests import Answer, Requests
from .session import Session
from .wire import Lost, is_late

__all__ = ["Sender", "listed"]

# Messages that the text of a timeout shows at most, and characters of each.
_SHOWN = 10
_SHOWN_LENGTH = 80


class Sender:
    """Sends for one client.

    Args:
        session: has the connection.
        requests: where answers are waited for.
        inbox: reads on beyond its bound while a request waits.
        messages: what waits in it, for the text of a timeout.
    """

    def __init__(
        self, session: Session, requests: Requests, inbox: Inbox, messages: Queue[Message]
    ) -> None:
        self._session = session
        self._requests = requests
        self._inbox = inbox
        self._messages = messages

    def send(self, text: str) -> None:
        """Send a message now.

        Raises:
            Disconnected: there is no connection, or it was lost in the middle.
            Refused: there will be none.
        """
        wire = self._session.current()
        if wire is None:
            self._session.check()
            raise Disconnected("there is no connection to the server now")
        sent = wire.is_open
        try:
            wire.send(text)
        except Lost as exc:
            raise _disconnected(exc, sent=sent) from None

    def request(
        self,
        message_type: str,
        data: Any,
        seconds: float,
        *,
        repeat: bool,
        on_progress: Callable[[Any], object] | None,
        cancel: threading.Event | None,
    ) -> Any:
        """Send a request and wait for its answer; see ``Client.request``."""
        encode(message_type, data)  # what cannot be sent is said at once, not when it is open
        deadline = monotonic() + lock_timeout(seconds)
        lost: Disconnected | None = None
        self._inbox.begin_wait()
        try:
            while True:
                try:
                    wire = self._session.wait_open(deadline, cancel)
                except TimeoutError:
                    raise self._given_up(message_type, seconds, cancel) from lost
                except (Disconnected, Refused) as exc:
                    raise lost or exc from None
                ident, answer = self._requests.number(), Answer()
                try:
                    if not self._requests.add(ident, answer, wire):
                        continue  # that connection was lost meanwhile
                    answer.sent = wire.is_open
                    text, undo = encode(message_type, data, ident), encode("cancel", ident=ident)
                    if not wire.send_by(text, undo, deadline, cancel):
                        raise self._given_up(message_type, seconds, cancel)
                    if not _wait_for(answer, deadline, on_progress, cancel):
                        wire.owe(undo)
                        raise self._given_up(message_type, seconds, cancel)
                    return answer.get()
                except Lost as exc:
                    problem = _disconnected(exc, sent=answer.sent)
                    if problem.sent and not repeat:
                        raise problem from None
                    lost = problem if problem.sent else lost
                except Disconnected as exc:
                    if exc.sent and not repeat:
                        raise
                    lost = exc if exc.sent else lost
                finally:
                    self._requests.forget(ident)
        finally:
            self._inbox.end_wait()

    def _given_up(
        self, message_type: str, seconds: float, cancel: threading.Event | None
    ) -> Exception:
        if cancel is not None and cancel.is_set():
            return RequestError({"error": "the request was given up", "code": "cancelled"})
        return TimeoutError(
            f"no answer to {message_type!r} came within {seconds:g} s; {listed(self._messages)}"
        )


def _disconnected(exc: Lost, *, sent: bool) -> Disconnected:
    return Disconnected(
        f"the connection was lost with code {exc.code}",
        code=exc.code,
        reason=exc.reason,
        sent=sent,
    )


def _wait_for(
    answer: Answer,
    deadline: float,
    on_progress: Callable[[Any], object] | None,
    cancel: threading.Event | None,
) -> bool:
    """Wait for an answer; False if it is late, or given up."""
    while True:
        answer.clear()
        while answer.progress and not is_late(deadline, cancel):
            value = answer.progress.popleft()
            if on_progress is not None:
                on_progress(value)
        if answer.done:
            return True
        if is_late(deadline, cancel):
            return False
        answer.wait(min(until(deadline), SLICE if cancel is None else LOOK))


def listed(messages: Queue[Message]) -> str:
    """Return the messages that did come, for the text of a timeout."""
    waiting = messages.snapshot(_SHOWN)
    if not waiting:
        return "nothing came"
    shown = ", ".join(f"{message.type!r}: {message.data!r}"[:_SHOWN_LENGTH] for message in waiting)
    return f"these wait: {shown}"
