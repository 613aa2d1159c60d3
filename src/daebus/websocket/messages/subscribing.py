"""The messages with which clients subscribe to topics and leave them.

They are answered by the topic, under its lock, so that the answer comes before whatever it
announces. No middleware stands before them: whether a client may subscribe is asked of the
``on_subscribe`` hooks.
"""

from __future__ import annotations

from ...checks.functions import Ask, allows
from ...errors import ClientError
from ...server.threads.safelog import get_logger
from ..connection.link import Link
from ..protocol import envelope
from ..topics.position import Answer, parse_request
from ..topics.table import Topics
from .options import Handler
from .request import WebSocketRequest

__all__ = ["Subscribing"]

logger = get_logger("daebus.websocket")


class Subscribing:
    """Answers ``subscribe`` and ``unsubscribe``, and asks who may.

    Args:
        topics: of the component.

    Attributes:
        hooks: those of ``on_subscribe``.
        handlers: of the messages, by type.
    """

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self.hooks: list[Ask] = []
        self.handlers: dict[str, Handler] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
        }

    def check(self, client_id: str, topic: str) -> None:
        """Ask the hooks whether a client may subscribe.

        Raises:
            ClientError: ``unknown_topic`` or ``forbidden``.
            Exception: a hook raised it.

        Threads:
            Any; waits for the hooks, which run in this thread.
        """
        if not self._topics.knows(topic):
            raise ClientError(f"there is no topic {topic[: envelope.MAX_ECHO]!r}", "unknown_topic")
        if not allows(self.hooks, "on_subscribe", client_id, topic):
            raise ClientError("this client may not subscribe to it", "forbidden")

    def welcome(self, link: Link) -> None:
        """Subscribe a client that has just connected to what it need not ask for.

        Threads:
            The client's own.
        """
        for feed in self._topics.auto:
            try:
                self.check(link.client_id, feed.name)
                self._topics.announce(link, feed.name, feed.spec.auto or 0)
            except ClientError as exc:
                logger.debug("client %s: topic %r: %s", link.client_id, feed.name, exc)
            except BaseException:  # a hook of the user's must not end the connection
                logger.exception(
                    "client %s was not subscribed to %r", link.client_id, feed.name, kind=feed.name
                )

    def _subscribe(self, req: WebSocketRequest) -> None:
        asked = parse_request(req.data)
        self.check(req.client_id, asked.topic)

        def answer(answer: Answer) -> bytes:
            return req._as_response(envelope.encode("response", answer.as_dict()))

        link = req._activity.link
        self._topics.subscribe(link, asked.topic, answer, asked.since, asked.last, counted=True)

    def _unsubscribe(self, req: WebSocketRequest) -> None:
        topic = parse_request(req.data).topic
        data = {"topic": topic[: envelope.MAX_ECHO], "subscribed": False}
        payload = req._as_response(envelope.encode("response", data))
        self._topics.unsubscribe(req._activity.link, topic, payload)
