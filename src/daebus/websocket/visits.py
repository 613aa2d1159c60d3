"""Clients that read topics over HTTP: judged as those that connect, without a connection."""

from __future__ import annotations

import contextvars
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ClientError
from ..server.handoff import Handshake, Refusal
from ..server.threads.safelog import get_logger
from ..server.watching import Shown, TopicEvent, Wanted
from .admission.admission import Admission
from .admission.authentication import Known
from .topics.cursor import Watcher
from .topics.envelopes import message
from .topics.position import Answer, Kind, Position
from .topics.table import Topics

__all__ = ["Visits"]

logger = get_logger("daebus.websocket")

# What the codes of errors in messages are over HTTP; 400 for all others.
_STATUSES = {"unknown_topic": 404, "forbidden": 403, "too_many_topics": 400}

Headers = tuple[tuple[str, str], ...]
Check = Callable[[str, str], None]


class Visits:
    """Shows topics to clients that speak HTTP.

    Args:
        admission: judges them.
        topics: of the component.
        check: raises ``ClientError`` for a client that may not subscribe to a topic.
        ping_interval: see ``Watch``.
        refused: counts refusals by their code.

    Threads:
        Those of ``TopicReader``.
    """

    def __init__(
        self,
        admission: Admission,
        topics: Topics,
        check: Check,
        ping_interval: float | None,
        refused: Callable[[str], None],
    ) -> None:
        self._admission = admission
        self._topics = topics
        self._check = check
        self._ping_interval = ping_interval
        self._refused = refused
        # By the id of the request. Single operations on a dict, so no lock.
        self._identities: dict[str, Any] = {}

    def identity(self, client_id: str) -> Any:
        """Return the identity of a client, None if there is none, or no such client."""
        return self._identities.get(client_id)

    def readable(self, handshake: Handshake) -> Headers:
        """Return the headers with which a page of another place may read answers."""
        return self._admission.readable(handshake)

    def show(self, handshake: Handshake, topic: str) -> Shown | Refusal:
        """Return what a topic holds, or why the client may not know."""
        visit = self._enter(handshake)
        if isinstance(visit, Refusal):
            return visit
        try:
            refusal = visit.ask([topic])
            if refusal is not None:
                return refusal
            return self._look(topic, visit.headers)
        finally:
            visit.end()

    def _look(self, topic: str, headers: Headers) -> Shown:
        kind, position, floor, contents = self._topics.show(topic)
        name = "messages" if kind == "history" else "values"
        fields = {"topic": topic, "kind": kind, **position._asdict()}
        head = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        body = b'%b,"%b":%b}' % (head[:-1].encode(), name.encode(), contents)
        tag = f"{position.epoch}.{position.offset}"
        if kind == "history" and floor > 1:  # what has grown old is gone from the page
            tag = f"{tag}.{floor}"
        return Shown(tag, body, headers)

    def watch(
        self, handshake: Handshake, wanted: Sequence[Wanted], wake: Callable[[], object]
    ) -> _Watch | Refusal:
        """Have a client watch topics, or return why it may not."""
        visit = self._enter(handshake)
        if isinstance(visit, Refusal):
            return visit
        readers: list[_Reader] = []
        try:
            refusal = visit.ask([want.topic for want in wanted])
            if refusal is None:
                for want in wanted:
                    since = None if want.since is None else Position(*want.since)
                    answer, watcher = self._topics.watch(want.topic, since, want.last, wake)
                    readers.append(_Reader(answer, watcher, since))
                return _Watch(readers, visit, self._ping_interval)
        except BaseException:
            _end(readers, visit)
            raise
        _end(readers, visit)
        return refusal

    def _enter(self, handshake: Handshake) -> _Visit | Refusal:
        headers = self._admission.readable(handshake)
        seat = self._admission.visit(handshake)
        if isinstance(seat, Refusal):
            self._refused(seat.code)
            return replace(seat, headers=(*seat.headers, *headers))
        known, place = seat
        client_id = f"http-{secrets.token_hex(8)}"
        self._identities[client_id] = known.identity

        def leave() -> None:
            if self._identities.pop(client_id, self) is not self:
                self._admission.left(handshake.remote_address, place)

        return _Visit(client_id, known, headers, self._check, leave)


class _Visit:
    """One client, as long as its request or its stream lasts.

    Args:
        client_id: of the request.
        known: who it is.
        headers: to be added to every answer.
        check: see ``Visits``.
        end: gives its place back; any number of times.
    """

    def __init__(
        self,
        client_id: str,
        known: Known,
        headers: Headers,
        check: Check,
        end: Callable[[], None],
    ) -> None:
        self.client_id = client_id
        self.known = known
        self.headers = headers
        self.end = end
        self._check = check

    def ask(self, topics: Sequence[str]) -> Refusal | None:
        """Return why the client may not read these topics; runs user code."""
        for topic in topics:
            try:
                # A fresh context: the thread may have run another client's connection before.
                contextvars.Context().run(self._check, self.client_id, topic)
            except ClientError as exc:
                return Refusal(_STATUSES.get(exc.code, 400), exc.code, str(exc), self.headers)
            except BaseException:  # a SystemExit must not end the thread
                logger.exception("on_subscribe failed for a client that asked for topics")
                return Refusal(
                    500, "internal_server_error", "the request failed", headers=self.headers
                )
        return None


class _Reader:
    """One topic of a stream, and where it stands.

    Attributes:
        position: behind the last message that it can go on from; None before the first.
    """

    def __init__(self, answer: Answer, watcher: Watcher, since: Position | None) -> None:
        self.answer = answer
        self.kind: Kind = answer.kind
        self.watcher = watcher
        self.position: Position | None
        if answer.kind == "history":
            self.position = Position(answer.epoch, answer.offset - answer.replay)
        else:
            self.position = since if answer.recovered else None

    def take(self, limit: int) -> Iterator[tuple[str, bytes, bool]]:
        """Yield type and envelope of the next messages, and whether one may go on behind it."""
        events = self.watcher.take(limit)
        epoch = self.watcher.position.epoch
        for number, event in enumerate(events, 1):
            # A state is whole behind the last message of a catch-up alone.
            fit = self.kind == "history" or (number == len(events) and not self.watcher.more)
            if fit:
                self.position = Position(epoch, event.offset)
            yield event.message_type, event.payload, fit


class _Watch:
    """Several topics, in turns; see ``Watch``."""

    def __init__(
        self, readers: Sequence[_Reader], visit: _Visit, ping_interval: float | None
    ) -> None:
        self.more = True
        self.headers = visit.headers
        self.ping_interval = ping_interval
        self.expires = visit.known.expires
        self._visit = visit
        self._readers = list(readers)
        self._greeted = False

    def take(self, limit: int) -> list[TopicEvent]:
        """Return the next messages; first of all the answers for all topics."""
        if not self._greeted:
            self._greeted = True
            answers = [reader.answer.as_dict() for reader in self._readers]
            payload = message("subscribed", {"topics": answers})
            return [TopicEvent("subscribed", payload, self._positions())]
        taken = []
        for reader in self._readers:
            for message_type, payload, fit in reader.take(limit // len(self._readers)):
                positions = self._positions() if fit else None
                taken.append(TopicEvent(message_type, payload, positions))
        self.more = any(reader.watcher.more for reader in self._readers)
        return taken

    def _positions(self) -> tuple[tuple[str, str, int], ...] | None:
        known = tuple(
            (reader.answer.topic, *reader.position)
            for reader in self._readers
            if reader.position is not None
        )
        return known or None

    def close(self) -> None:
        """End it."""
        _end(self._readers, self._visit)


def _end(readers: Sequence[_Reader], visit: _Visit) -> None:
    for reader in readers:
        reader.watcher.close()
    visit.end()
