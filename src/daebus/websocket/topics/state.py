"""State topics: ``State``, as the program sees it."""

from __future__ import annotations

import json
import threading
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any, Final, NamedTuple, Protocol, TypeVar, overload

from ...checks.arguments import seconds_or_none
from ...data.encoder import Encoder
from ...errors import EncodeError
from .changes import StateFeed
from .feed import Retired
from .handle import Handle
from .live import Shared

__all__ = ["State"]


_Result = TypeVar("_Result")

# In place of a default: there is none.
_RAISE: Final = object()


class _Passed(NamedTuple):
    """The key that a loop over a state has come to, and its value as the loop began."""

    shared: Shared
    topic: str
    key: str
    value: bytes


class _Loop(threading.local):
    """The latest loop of a thread.

    ``dict(state)`` goes through the keys, and asks for the value of each. Another thread, or a
    time to live, may remove one in between, which must not end that with a ``KeyError``.
    """

    passed: _Passed | None = None


_loop: Final = _Loop()


class _Mapping(Protocol):
    """What ``dict`` takes for a mapping."""

    def keys(self) -> Iterable[str]:
        """Return the keys."""

    def __getitem__(self, key: str, /) -> Any:
        """Return the value of a key."""


class State(Handle[StateFeed], MutableMapping[str, Any]):
    """A topic of which only the latest values matter: temperatures, progress, who is there.

    It is a mapping of strings to what JSON can carry. Every change is sent to the subscribers;
    a new one is sent all values first. ``DaebusWebSocket.state`` makes it.

    Values are kept as JSON: what is read is a copy, as JSON gives it back, so a tuple comes
    back as a list, and changing a list that was read changes nothing here.

    A name with ``*`` stands for a family: ``state["device/7"]`` is one of it, and the other
    methods raise ``TypeError``.

    Threads:
        Every method may be called by any thread, and never waits for a client.
    """

    def __getitem__(self, key: str) -> Any:
        if self._spec.is_family:
            return State(self._member(key), self._find, self._shared)
        value = self._feed().value(key)
        if value is None:
            passed = _loop.passed
            if passed is None or passed.key is not key or not self._is_of(passed):
                raise KeyError(key)
            value = passed.value
        return json.loads(value.decode())

    def _is_of(self, passed: _Passed) -> bool:
        return passed.topic == self.name and passed.shared is self._shared

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        if not self._change({}, (_key(key),)):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return self._pass_through(self._feed().values())

    def _pass_through(self, values: list[tuple[str, bytes]]) -> Iterator[str]:
        try:
            for key, value in values:
                _loop.passed = _Passed(self._shared, self.name, key, value)
                yield key
        finally:
            _loop.passed = None

    def __len__(self) -> int:
        return len(self._feed().values())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._feed().value(key) is not None

    def items(self) -> ItemsView[str, Any]:
        """Return keys and values, all of one moment once the loop begins."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """Return the values, all of one moment once the loop begins."""
        return _Values(self)

    def copy(self) -> dict[str, Any]:
        """Return all keys and values of one moment.

        ``dict(state)`` has the keys of one moment too, but asks for one value after the other.
        """
        return {key: json.loads(value.decode()) for key, value in self._feed().values()}

    def set(self, key: str, value: Any, *, ttl: float | None = None) -> bool:
        """Set the value of a key, and send it to the subscribers if it has changed.

        Args:
            key: any string.
            value: what JSON can carry.
            ttl: seconds after which the key is removed; None for those of the state.

        Returns:
            False if it had that value already, so that nothing is sent; its time to live
                begins anew.

        Raises:
            EncodeError: the value has no JSON form.
            StateLimitError: there would be too many keys or bytes.
            TypeError: the key is not a string.

        Threads:
            Any; never waits for a client. The app need not run.
        """
        seconds_or_none("ttl", ttl)
        name = _key(key)
        return self._change({name: _encode(name, value, self._shared.encoder)}, (), ttl)

    @overload
    def update(self, other: _Mapping, /, **values: Any) -> None: ...
    @overload
    def update(self, other: Iterable[tuple[str, Any]], /, **values: Any) -> None: ...
    @overload
    def update(self, /, **values: Any) -> None: ...
    def update(self, other: _Mapping | Iterable[tuple[str, Any]] = (), /, **values: Any) -> None:
        """Set several keys with one message.

        Raises:
            EncodeError: a value has no JSON form; nothing is changed.
            StateLimitError: there would be too many keys or bytes; nothing is changed.
            TypeError: a key is not a string.
        """
        encoder = self._shared.encoder
        given = dict(other, **values)
        self._change({_key(key): _encode(key, value, encoder) for key, value in given.items()})

    @overload
    def pop(self, key: str, /) -> Any: ...
    @overload
    def pop(self, key: str, /, default: Any) -> Any: ...
    def pop(self, key: str, /, default: Any = _RAISE) -> Any:
        """Remove a key and return its value, in one step.

        Called by what interrupts its own thread amid a change of this state, it may remove
        the key a moment later, and returns the default.

        Raises:
            KeyError: there is none, and no default was given.
            TypeError: the key is not a string.
        """
        found = self._take(_key(key))
        if found is not None:
            return json.loads(found[1].decode())
        if default is _RAISE:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[str, Any]:
        """Remove the newest key, in one step; return it and its value.

        Raises:
            KeyError: there are none.
        """
        found = self._take(None)
        if found is None:
            raise KeyError(f"state {self.name!r} is empty")
        return found[0], json.loads(found[1].decode())

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set a key that is not there, in one step; return the value that it has then.

        Raises:
            EncodeError: the value has no JSON form.
            StateLimitError: there would be too many keys or bytes.
            TypeError: the key is not a string.
        """
        name = _key(key)
        value = _encode(name, default, self._shared.encoder)
        return json.loads(self._in_turn(lambda feed: feed.add(name, value)).decode())

    def clear(self) -> None:
        """Remove all keys, with one message."""
        self._change({}, [key for key, _ in self._feed().values()])

    def _change(
        self, values: Mapping[str, bytes], removed: Iterable[str] = (), ttl: float | None = None
    ) -> bool:
        gone = list(removed)
        if gone:
            _loop.passed = None
        return self._in_turn(lambda feed: feed.change(values, gone, ttl))

    def _take(self, key: str | None) -> tuple[str, bytes] | None:
        _loop.passed = None
        return self._in_turn(lambda feed: feed.take(key))

    def _in_turn(self, action: Callable[[StateFeed], _Result]) -> _Result:
        self._shared.check()
        while True:
            try:
                return action(self._feed())
            except Retired:
                continue

    def __repr__(self) -> str:
        return f"<State {self.name!r}>"


class _Items(ItemsView[str, Any]):
    _mapping: State

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._mapping.copy().items())


class _Values(ValuesView[Any]):
    _mapping: State

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping.copy().values())


def _key(key: object) -> str:
    """Return a key as a plain string: no code of the user's may run under a lock."""
    if not isinstance(key, str):
        raise TypeError(f"the key of a state is a string, not {key!r:.100}; write {str(key)!r:.40}")
    return key if key.__class__ is str else str.__str__(key)


def _encode(key: str, value: Any, encoder: Encoder) -> bytes:
    try:
        return encoder.dumps(value)
    except EncodeError as exc:
        raise EncodeError(f"the value of {key!r:.100} cannot be sent: {exc}") from exc.__cause__
