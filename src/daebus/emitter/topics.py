"""A topic and a state of an app, as an emitter sees them: it changes them, and reads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..backplane.store import Done, SharedStore, Write, describe
from ..checks.arguments import seconds_or_none
from ..data.encoder import PLAIN
from ..errors import EncodeError
from ..websocket.protocol.envelope import dumps
from .changes import Send

__all__ = ["EmittedState", "EmittedTopic"]

# Makes a frame of kind, payload and further fields of a topic, and has it sent.
Emit = Callable[[str, str, bytes, Mapping[str, Any], Callable[[SharedStore], Send]], None]


class EmittedTopic:
    """A topic of the app; ``Emitter.topic`` makes it.

    Threads:
        Any may publish; it does not wait.
    """

    def __init__(self, name: str, emit: Emit) -> None:
        self.name = name
        self._emit = emit

    def __repr__(self) -> str:
        return f"<EmittedTopic {self.name!r}>"

    def publish(self, data: Any, message_type: str = "message") -> None:
        """Append a message, which every subscriber gets; see ``Topic.publish``.

        Raises:
            BackplaneError, EncodeError, StateError, TooLargeError: as ``Emitter.broadcast_to_all``.
        """
        payload = dumps(message_type, data)

        def sender(store: SharedStore) -> Send:
            def send(write: Write, done: Done) -> None:
                # As many are kept, and as long, as the processes of the app have said.
                store.append(write, count=0, floor=0, life=None, done=done)

            return send

        self._emit("topic", self.name, payload, {"m": str(message_type)}, sender)


class EmittedState:
    """A state of the app, to write to; ``Emitter.state`` makes it.

    Its values are those of the app: what is not set stays as it is.

    Threads:
        Any may change it; it does not wait.
    """

    def __init__(self, name: str, emit: Emit) -> None:
        self.name = name
        self._emit = emit

    def __repr__(self) -> str:
        return f"<EmittedState {self.name!r}>"

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        self._change({}, [_key(key)])

    def set(self, key: str, value: Any, *, ttl: float | None = None) -> None:
        """Set a key.

        Args:
            key: any string.
            value: what JSON can carry.
            ttl: seconds after which the key is removed; None for never.

        Raises:
            BackplaneError, EncodeError, StateError, TooLargeError: as ``Emitter.broadcast_to_all``.
            TypeError: the key is not a string.
        """
        seconds_or_none("ttl", ttl)
        self._change({_key(key): _encode(key, value)}, [], ttl)

    def update(
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **values: Any
    ) -> None:
        """Set several keys with one message; raises as ``set``."""
        given = dict(other, **values)
        if given:
            self._change({_key(key): _encode(key, value) for key, value in given.items()}, [])

    def _change(
        self, values: dict[str, bytes], removed: list[str], ttl: float | None = None
    ) -> None:
        milliseconds = None if ttl is None else max(1, round(1000 * ttl))
        more, payload = describe(values, removed, milliseconds)

        def sender(store: SharedStore) -> Send:
            def send(write: Write, done: Done) -> None:
                store.change(write, values, removed, ttl=milliseconds, done=done)

            return send

        self._emit("state", self.name, payload, more, sender)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key of a state is a string, not {key!r:.100}; write {str(key)!r:.40}")
    return key


def _encode(key: str, value: Any) -> bytes:
    try:
        return PLAIN.dumps(value)
    except EncodeError as exc:
        raise EncodeError(f"the value of {key!r:.100} cannot be sent: {exc}") from exc.__cause__
