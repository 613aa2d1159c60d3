"""The methods of ``DaebusWebSocket`` for topics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...checks.annotations import checked
from ...checks.arguments import check_client_id, check_name, positive, seconds, seconds_or_none
from ...checks.functions import check_function, fitting
from ...interrupts.stack import inside
from ..topics.envelopes import message
from ..topics.spec import Spec, check_topic
from ..topics.state import State
from ..topics.topic import Topic
from .context import Section

__all__ = ["SubscribeHook", "TopicMethods"]

SubscribeHook = TypeVar("SubscribeHook", bound=Callable[[str, str], Any])


class TopicMethods(Section):
    """Topics, from any thread, before the start or while the app runs."""

    @checked
    def topic(
        self,
        name: str,
        *,
        history: int = 1000,
        history_bytes: int = 1 << 20,
        max_age: float | None = 300.0,
        replay_limit: int = 1000,
        auto: bool | int = False,
        persist: str | Path | None = None,
        shared: bool = True,
    ) -> Topic:
        """Declare a topic whose messages each matter: alarms, lines of a log, a chat.

        The newest messages are kept, within three bounds. A client that was away is sent what it
        has missed, or is told that it cannot be. Subscribers that read slowly are pulled forward
        from what is kept, so they fill no outbox and delay nobody.

        Args:
            name: 1 to 128 printable characters. With ``*`` it declares a family: all topics
                whose names fit.
            history: messages that are kept.
            history_bytes: bytes of them.
            max_age: seconds that they are kept; None for no limit.
            replay_limit: messages that a new subscriber is sent at once, at most.
            auto: subscribe every client as it connects; a number is that of the newest messages
                that it is sent.
            persist: a file that keeps the topic over a restart of the program; several may
                share one. It is made if it is not there; its folder is not.
            shared: with a backplane it is one topic on all nodes, and Redis keeps it, so it has no
                file. False for a topic of this process alone.

        Returns:
            The topic; ``topic["device/7"]`` is one of a family.

        Raises:
            DuplicateHandlerError: the topic is declared already, or a handler for messages of
                type ``subscribe`` or ``unsubscribe`` is registered.
            ValueError: an argument is out of range, or there is a backplane and the topic would be
                shared and have a file.
        """
        spec = Spec(
            "history",
            check_topic(name, "topic({})", family=True),
            count=positive("history", history),
            max_bytes=positive("history_bytes", history_bytes),
            max_age=seconds_or_none("max_age", max_age),
            replay_limit=positive("replay_limit", replay_limit),
            auto=_auto(name, auto),
            persist=_file(persist),
            shared=shared,
        )
        topic = self._context.topics.declare(spec)
        assert isinstance(topic, Topic)
        return topic

    @checked
    def state(
        self,
        name: str,
        *,
        message_type: str = "state",
        max_keys: int = 1000,
        max_bytes: int = 1 << 20,
        ttl: float | None = None,
        min_interval: float = 0.0,
        auto: bool = False,
        persist: str | Path | None = None,
        shared: bool = True,
    ) -> State:
        """Declare a topic of which only the latest values matter: temperatures, progress.

        It is a mapping: ``boiler["celsius"] = 21.4`` sends the value to all subscribers, and a
        new subscriber is sent all values first.

        Args:
            name: 1 to 128 printable characters. With ``*`` it declares a family.
            message_type: the ``"type"`` of its messages.
            max_keys: keys at most; as many that were removed are remembered.
            max_bytes: bytes of keys and values, as JSON.
            ttl: seconds after which a key is removed unless it is set again; None for never.
            min_interval: seconds between two messages; changes in between leave together,
                each key with its latest value.
            auto: subscribe every client as it connects.
            persist: a file that keeps the state over a restart of the program; see ``topic``.
            shared: see ``topic``.

        Returns:
            The state; ``state["device/7"]`` is one of a family.

        Raises:
            DuplicateHandlerError: as for ``topic``.
            ValueError: an argument is out of range.
        """
        spec = Spec(
            "state",
            check_topic(name, "state({})", family=True),
            message_type=message_type,
            count=positive("max_keys", max_keys),
            max_bytes=positive("max_bytes", max_bytes),
            ttl=seconds_or_none("ttl", ttl),
            min_interval=_seconds_or_zero("min_interval", min_interval),
            auto=_auto(name, auto),
            persist=_file(persist),
            shared=shared,
        )
        state = self._context.topics.declare(spec)
        assert isinstance(state, State)
        return state

    @checked
    def on_subscribe(self, topic_pattern: str) -> Callable[[SubscribeHook], SubscribeHook]:
        """Decorate a function that is asked before a client is subscribed to a topic.

        It gets the client's id and the topic. A falsy result other than ``None`` refuses: the
        client is answered ``forbidden``. A ``ClientError`` that it raises is the answer. All
        hooks whose pattern matches are called, until one refuses. Nothing of the topic is sent
        before.

        Args:
            topic_pattern: a pattern of names as in ``fnmatch``: ``"device/*"``, ``"*"`` for all.
                A name fits itself, also one with brackets.

        Raises:
            TypeError: the pattern is not a string, or the function is async.

        Threads:
            It runs in the client's thread, or in that which calls ``subscribe``. It may
                publish.
        """
        check_name(topic_pattern, "on_subscribe({})")
        fits = fitting(topic_pattern)

        def register(hook: SubscribeHook) -> SubscribeHook:
            check_function("an on_subscribe hook", hook, ("client_id", "topic"), kinds=("plain",))
            self._context.dispatcher.subscribing.hooks.append((fits, hook))
            return hook

        return register

    def subscribe(self, client_id: str, topic: str, *, last: int = 0) -> bool:
        """Subscribe a client to a topic, for pages that send nothing.

        The client is sent a message of type ``subscribed`` with what an answer has. It does not
        count against ``max_topics``.

        Args:
            client_id: the client; it may be subscribed already.
            topic: the name of one topic.
            last: how many of the newest messages it is sent; a state is sent whole.

        Returns:
            False if the client is not connected, or its path has a raw handler.

        Raises:
            ClientError: there is no such topic, or an ``on_subscribe`` hook refuses.
            TypeError: the name is not a string.
            ValueError: it is not the name of one topic.

        Threads:
            Any; waits only for the ``on_subscribe`` hooks, which run in this thread.
        """
        self._context.check_fork()
        check_topic(topic, "subscribe(client_id, {})")
        if last < 0:
            raise ValueError(f"last must be 0 or more messages, not {last!r}")
        link = self._context.link(client_id)
        self._context.dispatcher.subscribing.check(client_id, topic)
        if link is None or link.peer.raw:
            return False
        subscribe = partial(self._context.topics.announce, link, topic, last)
        if inside():
            link.runtime.minder.call_later(0.0, subscribe)
            return link.open
        return subscribe()

    def unsubscribe(self, client_id: str, topic: str) -> bool:
        """End a client's subscription, whoever asked for it.

        The client is sent a message of type ``unsubscribed``, and nothing more of the topic.

        Returns:
            False if it was not subscribed.

        Raises:
            TypeError: the name is not a string.
            ValueError: it is not the name of one topic.

        Threads:
            Any; never waits for a client.
        """
        self._context.check_fork()
        check_topic(topic, "unsubscribe(client_id, {})")
        link, hub = self._context.link(client_id), self._context.hub
        if link is None or hub is None or not hub.registry.subscribers.has(client_id, topic):
            return False
        topics = self._context.topics
        payload = message("unsubscribed", {"topic": topic}, topic)
        if inside():
            link.runtime.minder.call_later(0.0, partial(topics.unsubscribe, link, topic, payload))
            return True
        return topics.unsubscribe(link, topic, payload)

    def get_topics(self) -> dict[str, int]:
        """Return how many subscribers each topic has, in the order of their declaration."""
        hub, feeds = self._context.hub, self._context.topics.feeds()
        if hub is None:
            return {feed.name: 0 for feed in feeds}
        return {feed.name: hub.registry.subscribers.count(feed.name) for feed in feeds}

    def get_client_topics(self, client_id: str) -> list[str]:
        """Return the topics that a client is subscribed to, in the order in which it came."""
        check_client_id(client_id)
        hub = self._context.hub
        return [] if hub is None else hub.registry.subscribers.of(client_id)


def _auto(name: str, auto: bool | int) -> int | None:
    if auto is not False and "*" in name:
        raise ValueError(f"family {name!r} cannot be auto={auto!r}; subscribe clients one by one")
    if auto < 0:
        raise ValueError(f"auto must be 0 or more messages, not {auto!r}")
    return None if auto is False else 0 if auto is True else auto


def _seconds_or_zero(name: str, value: float) -> float:
    """Return a time that may be 0 as well; see ``seconds``."""
    if value < 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {value!r}")
    return seconds(name, value) if value else 0.0


def _file(path: str | Path | None) -> Path | None:
    """Return the path of a file, as it is now: a daemon may change its folder later.

    Raises:
        ValueError: it is empty.
    """
    if path is None:
        return None
    if not str(path):
        raise ValueError("persist is an empty path; write persist='topics.db'")
    return Path(path).resolve()
