"""The methods of ``DaebusWebSocket`` that put other parts of a program on topics."""

from __future__ import annotations

import logging

from ...checks.annotations import checked
from ..topics.bridges import LogHandler, Pipe, Queue, check_queue
from ..topics.spec import Spec, check_topic
from ..topics.state import State
from ..topics.topic import Topic
from .context import Section

__all__ = ["Bridges"]


class Bridges(Section):
    """Logs and queues as topics."""

    @checked
    def log_handler(self, topic: str, level: int | str = logging.NOTSET) -> logging.Handler:
        """Return a handler that publishes what is logged: ``logging.getLogger().addHandler(…)``.

        Messages are of type ``log``, with ``time`` (Unix), ``level``, ``logger``, ``message`` and,
        for an exception, ``traceback``; texts are cut after 8,192 characters. What daebus itself
        logs is passed over, since sending it could be the reason for the next line.

        Args:
            topic: the name of a history topic; declared with its defaults if it is not yet.
            level: as for ``logging.Handler``.

        Raises:
            TypeError: the topic is a state or a family.
            ValueError: there is no such level, or the name is not one of a topic.

        Threads:
            Any may log; it never waits for a client and never raises.
        """
        found = self._topic(topic, "log_handler({})")
        if not isinstance(found, Topic):
            raise TypeError(f"{topic!r} is a state, and lines of a log need a history topic")
        return LogHandler(found, level)

    @checked
    def pipe(self, queue: Queue, topic: str, *, message_type: str = "message") -> None:
        """Publish what comes out of a queue, as long as the app runs.

        Each item is the data of a message; a state is updated with it. An item that cannot be
        sent is logged and dropped.

        Args:
            queue: a ``queue.Queue``, a ``multiprocessing.Queue``, or what has their ``get``.
            topic: the name of a topic or a state; a history topic with the defaults is declared
                if there is none.
            message_type: of the messages of a history topic.

        Raises:
            TypeError: the queue has no ``get``, or one without a timeout, such as that of a
                ``multiprocessing.SimpleQueue``.
            ValueError: the name is not one of a topic.

        Threads:
            Any, at any time. A thread for each queue reads it; a stop waits up to a quarter of a
                second for it. What is in the queue then stays there.
        """
        check_queue(queue)
        found = self._topic(topic, "pipe(queue, {})")
        self._context.pipes.add(lambda: Pipe(queue, found, message_type))

    def _topic(self, name: str, example: str) -> Topic | State:
        """Find a topic, or declare it."""
        check_topic(name, example)
        topics = self._context.topics
        found = topics.handle(name)
        return topics.declare(Spec("history", name)) if found is None else found
