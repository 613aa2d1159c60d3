"""Requests that are judged as an upgrade is: the check, and those for topics.

User code says who may ask, so they are answered in a thread of the WebSocket side, where a slow
``authenticate`` delays nobody else.
"""

from __future__ import annotations

from collections.abc import Callable

from ...interrupts.flag import Flag
from ...server.acceptor import Acceptor
from ...server.conn import Conn
from ...server.handoff import Checked, Refusal, UpgradeHandler
from ...server.threads.safelog import get_logger
from ..protocol.parser import Request
from ..site.own import CHECK, OWN, OwnAnswer, check_answer
from .environ import split_target
from .eventstream import EventStream
from .exchange import Exchange
from .topics import TopicPages
from .upgrade import is_preflight, note_check, note_visit

__all__ = ["Visitors"]

logger = get_logger("daebus.http")

Visit = Callable[[Conn, Request], None]


class Visitors:
    """Answers such requests.

    Args:
        acceptor: owns the clients between their requests.
        exchange: reads requests.
        upgrades: judges them.
        topics: answers requests for topics; None if there are none.
        answered: writes an answer of ours to a client, and goes on with it.

    Threads:
        ``find`` is for any; what it returns runs in a thread of the WebSocket side.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        exchange: Exchange,
        upgrades: UpgradeHandler,
        topics: TopicPages | None,
        answered: Callable[[Conn, Request, OwnAnswer], None],
    ) -> None:
        self._acceptor = acceptor
        self._exchange = exchange
        self._upgrades = upgrades
        self._topics = topics
        self._answered = answered

    def find(self, request: Request) -> Visit | None:
        """Return who answers a request, None if it is not such a one."""
        if OWN not in request.head.target and self._topics is None:
            return None
        path = split_target(request.head)[0]
        if self._topics is not None and self._topics.owns(path):
            return self._show
        if path == CHECK and (request.head.method in ("GET", "HEAD") or is_preflight(request.head)):
            return self._check
        return None

    def streams(self) -> int:
        """Return how many sockets watch topics."""
        return 0 if self._topics is None else len(self._topics.watchers)

    def leave(self, spread: float, *, refused: bool) -> Flag | None:
        """End those that watch topics little by little; see ``Watchers.leave``."""
        return (
            None if self._topics is None else self._topics.watchers.leave(spread, refused=refused)
        )

    def stop(self) -> None:
        """End those that watch topics."""
        if self._topics is not None:
            self._topics.watchers.stop()

    def abandon(self) -> None:
        """Close a forked child's copies of the sockets that watch topics."""
        if self._topics is not None:
            self._topics.watchers.abandon()

    def _check(self, client: Conn, request: Request) -> None:
        """Judge the upgrade that a client asks about, where an upgrade would be; go on."""
        try:
            upgrade = note_check(client, request, self._exchange.environ_of)
            if isinstance(upgrade, Refusal):
                checked = Checked(upgrade)
            else:
                checked = self._upgrades.check(upgrade)
            self._answered(client, request, check_answer(checked))
        except BaseException:
            logger.exception("a check failed")
            self._acceptor.close(client)

    def _show(self, client: Conn, request: Request) -> None:
        """Answer a request for topics; go on, or leave the client to its stream."""
        assert self._topics is not None
        stream: EventStream | None = None
        try:
            head = request.head
            handshake = note_visit(client, request, self._exchange.environ_of)
            answer = self._topics.answer(handshake, head.method, *split_target(head))
            if isinstance(answer, OwnAnswer):
                self._answered(client, request, answer)
                return
            stream = answer
            request.body.close()
            if self._exchange.access is not None:
                self._exchange.access.note(client, head, request.seen, "200", 0)
            self._acceptor.release(client)
            client.state.close()
            self._topics.begin(stream, client.sock, self._exchange.date_line())
        except BaseException:
            logger.exception("a request for topics failed")
            if stream is not None:
                stream.end()
            self._acceptor.close(client)
