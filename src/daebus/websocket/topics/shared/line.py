"""The way from the topics of a component to the backplane, for one start of the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....backplane.frames import FrameError, Header, Template, Unsigned, unpack
from ....backplane.protocol import Backplane
from ....backplane.store import SharedStore
from ....errors import TooLargeError
from ....server.threads.minder import Minder

__all__ = ["Line"]

# Bytes that a header adds to a change, about.
_HEADER = 256


class Line:
    """What followers ask of the backplane; a ``Bus``.

    Args:
        backplane: which has a store, and was started.
        node: name of the node.
        writer: the incarnation of the node.
        channels: who is given what comes on which channel.
        minder: has the clock.
        refused: is told of each frame that is not signed as it should be.

    Attributes:
        store: of the backplane.
        writer: as given.
        patience: seconds that changes wait in an outage.
    """

    def __init__(
        self,
        backplane: Backplane,
        node: str,
        writer: str,
        channels: dict[str, Callable[[str, bytes], None]],
        minder: Minder,
        refused: Callable[[str], object],
    ) -> None:
        self.store: SharedStore = backplane.store
        self.writer = writer
        self.patience = backplane.options.queue_age
        self._channels = channels
        self._backplane = backplane
        self._node = node
        self._minder = minder
        self._refused = refused
        self._secret = backplane.options.key
        self._max_frame = backplane.options.max_frame

    @property
    def up(self) -> bool:
        """True while the backplane can be reached, as far as is known."""
        return self._backplane.up

    def hear(self, channel: str, handler: Callable[[str, bytes], None]) -> None:
        """Receive what is published on a channel."""
        self._channels[channel] = handler
        self._backplane.subscribe(channel)

    def unhear(self, channel: str) -> None:
        """Receive it no more."""
        self._backplane.unsubscribe(channel)
        self._channels.pop(channel, None)

    def hears(self, channel: str) -> bool:
        """Tell whether it is received by now."""
        return self._backplane.subscribed(channel, 0)

    def clock(self) -> float:
        """Return the moment."""
        return self._minder.clock()

    def later(self, seconds: float, call: Callable[[], object]) -> object:
        """Have something called by the minder."""
        return self._minder.call_later(seconds, call)

    def judge(self, size: int) -> None:
        """Refuse a change that is too large.

        Raises:
            TooLargeError: it is.
        """
        if size + _HEADER > self._max_frame:
            raise TooLargeError(
                f"a publication of {size} bytes is larger than what other nodes take "
                f"(max_frame={self._max_frame}); send less, or write max_frame={size + _HEADER}"
            )

    def frame(self, kind: str, topic: str, number: int, payload: bytes, **more: Any) -> bytes:
        """Return what is published of a change."""
        template = Template(self._node, self.writer, kind, topic, payload, more=more)
        if self._secret is None:
            return template.number(number)
        return template.number(number, self.store.channel(topic), self._secret)

    def read(self, topic: str, frame: bytes) -> tuple[Header, bytes] | None:
        """Take that apart; None if it is not of ours."""
        return self.take(self.store.channel(topic), frame)

    def take(self, channel: str, frame: bytes) -> tuple[Header, bytes] | None:
        """Take apart what was published on a channel; None if it is not of ours."""
        try:
            return unpack(frame, channel, self._secret)
        except Unsigned:
            self._refused(channel)
        except FrameError:
            pass
        return None
