"""Questions to one connected client, whoever waits for the answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...errors import CallError, CallTimeout, ClientGone
from ...interrupts.stack import held, inside
from ..clients.broadcast import reply
from ..connection.link import Link
from ..protocol import envelope
from .activity import Activity
from .pending import Pending, Settles

__all__ = ["ask", "put"]


def ask(
    link: Link | None, client_id: str, kind: str, message: bytes, answer: Settles
) -> Callable[[], bool]:
    """Send a question.

    Args:
        link: the connection of the client; None if it has none here.
        client_id: the client.
        kind: the message type.
        message: the envelope, without an id.
        answer: is settled once, with what comes back, under the connection's lock.

    Returns:
        What gives the answer up; it returns False if that has arrived.

    Raises:
        ClientGone: the connection is no longer open.
        CallError: too many calls wait already, or the client is on a raw path.
        CallTimeout: the client's outbox is full, and the question was dropped.

    Threads:
        Any; in the client's own handler it may wait for room in the outbox.
    """
    activity = None if link is None else Activity.of(link)
    if link is None or activity is None:
        raise ClientGone(client_id)
    if link.peer.raw:
        raise CallError(
            f"client {client_id} is on the raw path {link.peer.path!r}, which has no calls; "
            f"ask with connection.send() and connection.recv()",
            "raw_path",
        )
    return put(link, activity.pending, kind, message, answer)


def put(
    link: Link, pending: Pending, kind: str, message: bytes, answer: Settles
) -> Callable[[], bool]:
    """Send a question on a connection that is at hand; the rest is as with ``ask``."""
    ident = pending.ask(answer)
    sent = reply(link.writer, envelope.stamp(message, ident))
    if not sent and pending.forget(ident):
        raise CallTimeout(f"{kind!r} was dropped, as client {link.client_id} does not read")
    if (held.count or link.writer.lock.locked()) and inside():
        link.runtime.minder.call_later(0.0, link.reader.listen)
    else:
        link.reader.listen()
    return partial(pending.forget, ident)
