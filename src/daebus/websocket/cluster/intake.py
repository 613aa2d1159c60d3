"""What comes from the backplane: counted first, then handled once."""

from __future__ import annotations

from collections.abc import Callable

from ...backplane.frames import FrameError, Header, Unsigned, unpack
from ...server.threads.safelog import get_logger
from .ledger import Ledger

__all__ = ["Handler", "Intake"]

logger = get_logger("daebus.backplane")

Handler = Callable[[Header, bytes], None]


class Intake:
    """Reads frames and has them handled.

    Args:
        incarnation: our own.
        key: with which frames are signed; None if they are not.
        ledger: counts them.
        hear_self: called for a beat of our own.

    Attributes:
        handlers: by kind of frame.
        channels: who is given what comes on other channels than a node's, as it is.
        unsigned: how many were refused for their signature.

    Threads:
        Those of the backplane; it does not wait.
    """

    def __init__(
        self,
        incarnation: str,
        key: bytes | None,
        ledger: Ledger,
        hear_self: Callable[[], None],
    ) -> None:
        self._incarnation = incarnation
        self._key = key
        self._ledger = ledger
        self._hear_self = hear_self
        self.handlers: dict[str, Handler] = {}
        self.channels: dict[str, Callable[[str, bytes], None]] = {}
        self.unsigned = 0

    def receive(self, channel: str, frame: bytes) -> None:
        """Count a frame and have it handled."""
        other = self.channels.get(channel)
        if other is not None:
            other(channel, frame)
            return
        try:
            header, payload = unpack(frame, channel, self._key)
        except Unsigned:
            self.refused(channel)
            return
        except FrameError as exc:
            logger.warning("what came on %s is no frame of ours: %s", channel, exc)
            return
        node, incarnation = header.node, header.incarnation
        if incarnation == self._incarnation:
            if header.kind == "beat":
                self._hear_self()
            return
        if header.kind == "tail":
            self._ledger.told(channel, node, incarnation, header.number)
            return
        if header.number and not self._ledger.take(channel, node, incarnation, header.number):
            return
        handler = self.handlers.get(header.kind)
        if handler is None:
            return
        try:
            handler(header, payload)
        except Exception:  # such as for fields that no node of ours would send
            logger.exception("a frame of node %s cannot be carried out", node, kind=header.kind)

    def refused(self, channel: str) -> None:
        """Count a frame that is not signed as ours are."""
        self.unsigned += 1
        logger.warning("a frame on %s has no signature of ours; it is dropped", channel)

    def note_numbers(self, header: Header) -> None:
        """Note the numbers that a sender tells, see ``Outgoing.tell_numbers``."""
        numbers, used = header.more.get("q"), header.more.get("all")
        if isinstance(numbers, dict):
            for channel, number in numbers.items():
                if isinstance(number, int):
                    self._ledger.told(channel, header.node, header.incarnation, number)
        if isinstance(used, list):
            self._ledger.unused(header.node, header.incarnation, used)
