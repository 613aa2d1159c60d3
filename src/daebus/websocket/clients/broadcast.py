"""The one door through which everything is sent, and the result of each send.

Rules of this module:

1. A target is a frozen value of strings, so that a send could be passed to other processes.
2. The payload is encoded once, and one frame is built for each kind of compression.
3. While writing, only the lock of the connection that is written to is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

from ...interrupts.stack import held
from ...server.sockets.transport import DONTWAIT
from ..connection.outbox import DROPPED, GONE, QUEUED, TAKEN
from ..connection.sent import OUTCOMES, SendResult
from ..connection.states import OPEN
from ..connection.writer import Writer
from ..protocol.codec import TEXT, frame
from ..topics.cursor import Cursor
from ..topics.live import Offered, Span
from .registry import Registry

__all__ = ["ALL", "OUTCOMES", "PLAIN", "Door", "Policy", "SendResult", "Target", "reply"]


class Target(NamedTuple):
    """The receivers of a message. A tuple of strings, so that JSON can carry it.

    Attributes:
        kind: all clients, those in a room, those of a user, or one client by its id.
        name: of the room, user or client; empty for all.
    """

    kind: Literal["all", "room", "user", "client"]
    name: str = ""


ALL: Final = Target("all")


class Policy(NamedTuple):
    """How a message is sent.

    Attributes:
        droppable: drop it for a client that is too slow, rather than cut that client.
        conflate: a key; a waiting message with the same key is replaced.
        exclude: ids of clients that do not get it.
    """

    droppable: bool = False
    conflate: str | None = None
    exclude: tuple[str, ...] = ()


PLAIN: Final = Policy()


class Door:
    """Sends payloads to targets.

    Args:
        registry: the connected clients.
        deflate: whether clients may have negotiated compression.

    Threads:
        Any. Waits only where ``deliver`` says so.
    """

    def __init__(self, registry: Registry, *, deflate: bool) -> None:
        self._registry = registry
        self._deflate = deflate

    def deliver(self, target: Target, payload: bytes, policy: Policy = PLAIN) -> SendResult:
        """Send one encoded message.

        Args:
            target: the receivers.
            payload: the envelope.
            policy: how to send it.

        Returns:
            How many clients it was sent to or queued for.

        Threads:
            Any. Waits only if the message is for the calling handler's client alone:
                ``send_timeout`` at most.
        """
        if target.kind == "client":
            link = self._registry.get(target.name)
            if link is None or target.name in policy.exclude:
                return OUTCOMES[GONE]
            return reply(link.writer, payload, policy)
        writers = self._writers(target)
        if policy.exclude:
            links = map(self._registry.get, policy.exclude)
            excluded = {link.writer for link in links if link is not None}
            writers = [writer for writer in writers if writer not in excluded]
        droppable, conflate = policy.droppable, policy.conflate
        if not self._deflate:
            return SendResult(*_offer_to_all(writers, frame(TEXT, payload), droppable, conflate))
        groups: dict[object, list[Writer]] = {}
        for writer in writers:
            groups.setdefault(writer.compression, []).append(writer)
        counts = [
            _offer_to_all(group, group[0].compress(TEXT, payload), droppable, conflate)
            for group in groups.values()
        ]
        return SendResult(*map(sum, zip(*counts, strict=True)))

    def publish(self, cursors: Sequence[Cursor], payloads: Sequence[bytes], span: Span) -> Offered:
        """Send encoded messages of a topic, in one write each, to those that are current.

        The others have them from the log, when they come to them.

        Args:
            cursors: of the subscribers.
            payloads: the envelopes.
            span: what they cover.

        Threads:
            Any, under the lock of the topic; never waits for a client.
        """
        count = len(payloads)
        if not self._deflate:
            return _offer_current(cursors, _join(frame, payloads), count, span)
        groups: dict[object, list[Cursor]] = {}
        for cursor in cursors:
            groups.setdefault(cursor.writer.compression, []).append(cursor)
        offered = [
            _offer_current(group, _join(group[0].writer.compress, payloads), count, span)
            for group in groups.values()
        ]
        return Offered(
            sum(part.reached for part in offered),
            sum(part.queued for part in offered),
            [writer for part in offered for writer in part.gone],
        )

    def deliver_each(
        self, client_ids: Iterable[str], payload: bytes, policy: Policy = PLAIN
    ) -> dict[str, SendResult]:
        """Send one encoded message to several clients; return a result for each.

        Threads:
            Any; never waits for a client.
        """
        frames: dict[object, bytes] = {}
        results: dict[str, SendResult] = {}
        for client_id in client_ids:
            if client_id in results:
                continue
            link = self._registry.get(client_id)
            if link is None:
                results[client_id] = OUTCOMES[GONE]
                continue
            writer = link.writer
            data = frames.get(writer.compression)
            if data is None:
                data = frames[writer.compression] = writer.compress(TEXT, payload)
            results[client_id] = OUTCOMES[writer.offer(data, policy.droppable, policy.conflate)]
        return results

    def _writers(self, target: Target) -> Sequence[Writer]:
        if target.kind == "room":
            return self._registry.rooms.writers(target.name)
        if target.kind == "user":
            return self._registry.users.writers(target.name)
        if target.kind == "all":
            return self._registry.writers()
        raise ValueError(f"{target.kind!r} is not a kind of target")


def reply(
    writer: Writer, payload: bytes, policy: Policy = PLAIN, *, patient: bool = False
) -> SendResult:
    """Send one encoded message on a connection that is at hand.

    Answers, progress and calls belong to one connection, so they need no target.

    Args:
        writer: of the connection.
        payload: the envelope.
        policy: how; nobody is excluded.
        patient: see ``Writer.reply``.

    Threads:
        Any; may wait for room as ``Writer.reply`` does.
    """
    done = writer.reply(
        writer.compress(TEXT, payload),
        droppable=policy.droppable,
        conflate=policy.conflate,
        patient=patient,
    )
    return OUTCOMES[done]


def _offer_to_all(
    writers: Iterable[Writer], data: bytes, droppable: bool, conflate: str | None
) -> tuple[int, int, int]:
    """Offer one frame to many writers.

    The common case of ``Writer.offer`` is inlined: a call for each client was measured to
    cost a fifteenth of a delivery.

    Returns:
        How many sent or queued it, how many of those queued it, and how many dropped it.
    """
    size, flags, reached, queued, dropped = len(data), DONTWAIT, 0, 0, 0
    deep = held.count
    for writer in writers:
        outlet = writer.outlet
        # If this very thread has it, or something ``held``, ``offer`` knows what to do.
        if not (deep or writer.lock.locked()):
            with writer.lock:
                if (
                    writer.state == OPEN
                    and outlet.outbox is None
                    and not (outlet.held or writer.late)
                ):
                    try:
                        written = outlet.send(data, flags)
                    except BlockingIOError:
                        written = 0
                    except BaseException as exc:
                        writer.failed_locked(exc)
                        written = 0
                    if written:
                        reached += 1
                        writer.messages_out += 1
                        if written == size:
                            outlet.bytes_out += size
                        else:
                            writer.keep_rest_locked(data, written, conflate)
                            queued += 1
                        continue
        done = writer.offer(data, droppable, conflate)
        if done in TAKEN:
            reached += 1
            queued += done == QUEUED
        elif done == DROPPED:
            dropped += 1
    return reached, queued, dropped


def _join(compress: Callable[[int, bytes], bytes], payloads: Sequence[bytes]) -> bytes:
    return b"".join([compress(TEXT, payload) for payload in payloads])


def _offer_current(cursors: Iterable[Cursor], data: bytes, count: int, span: Span) -> Offered:
    """Offer so many frames to subscribers that are current, as ``_offer_to_all`` does one."""
    before, offset, epoch, patient = span
    size, flags, reached, queued = len(data), DONTWAIT, 0, 0
    gone: list[Writer] = []
    for cursor in cursors:
        writer = cursor.writer
        outlet = writer.outlet
        if patient:
            with writer.lock:
                if (
                    cursor.sent == before
                    and writer.state == OPEN
                    and outlet.outbox is None
                    and cursor.epoch is epoch
                    and not (outlet.held or writer.late)
                ):
                    try:
                        written = outlet.send(data, flags)
                    except BlockingIOError:
                        written = 0
                    except BaseException as exc:
                        writer.failed_locked(exc)
                        written = 0
                    if written:
                        cursor.sent = offset
                        reached += 1
                        writer.messages_out += count
                        if written == size:
                            outlet.bytes_out += size
                        else:
                            writer.keep_rest_locked(data, written, None, given=True)
                            queued += 1
                        continue
        done = cursor.pull(patient=patient)
        if done == GONE:
            gone.append(writer)
        else:
            reached += 1
            queued += done == QUEUED
    return Offered(reached, queued, gone)
