"""One end of a backplane on a real server: what came to it, and when it was connected anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from daebus import DaebusRedis
from daebus.backplane.names import Names
from daebus.backplane.redis.component import outbound_of

__all__ = ["End", "numbers"]


class End:
    """A ``DaebusRedis`` without a node; a context manager.

    Args:
        url: of the server.
        listens: subscribe to the first partition.
        flushes: send what was kept as soon as both sides work, as a node does in the end.
        app: the name.
        options: of ``DaebusRedis``.

    Attributes:
        came: channels and frames in their order.
        lost: how often it was told that frames may be missing.
    """

    def __init__(
        self,
        url: str,
        *,
        listens: bool = False,
        flushes: bool = True,
        app: str = "test",
        **options: Any,
    ) -> None:
        self.backplane = DaebusRedis(url, **options)
        self.names = Names(app, self.backplane.partitions)
        self.channel = self.names.frames(0)
        self.came: list[tuple[str, bytes]] = []
        self.lost = 0
        self._listens, self._flushes = listens, flushes
        self._changed = threading.Condition()

    def __enter__(self) -> End:
        self.backplane.start(self.names, self._receive, self._note)
        if self._listens:
            self.backplane.subscribe(self.channel)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self.backplane.stop(10) == []

    def ready(self) -> End:
        """Wait until both sides work."""
        assert self.wait(lambda: self.backplane.up and self.lost > 0)
        return self

    def publish(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.backplane.publish(self.channel, b"%d" % number)

    def wait(self, holds: Callable[[], bool], timeout: float = 15.0) -> bool:
        """Wait until something holds, looked at whenever anything has come."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not holds():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.02))
        return True

    def told_again(self) -> Callable[[], bool]:
        """Return whether it was told of missing frames since now."""
        before = self.lost
        return lambda: self.lost > before

    def frames(self) -> list[bytes]:
        """What has come on the first partition."""
        return [frame for channel, frame in list(self.came) if channel == self.channel]

    def command(self, *args: Any, **options: Any) -> Any:
        """Run a command between the frames; return its answer, or an exception."""
        answers: list[Any] = []
        outbound_of(self.backplane).command(args, answers.append, **options)
        assert self.wait(lambda: bool(answers))
        return answers[0]

    def _receive(self, channel: str, frame: bytes) -> None:
        with self._changed:
            self.came.append((channel, frame))
            self._changed.notify_all()

    def _note(self) -> None:
        if self._flushes:
            self.backplane.flush()
        with self._changed:
            self.lost += 1
            self._changed.notify_all()


def numbers(frames: Iterable[bytes]) -> list[int]:
    """Return the numbers of frames as a node would take them: what came before is dropped."""
    taken: list[int] = []
    for frame in frames:
        number = int(frame)
        if not taken or number > taken[-1]:
            taken.append(number)
    return taken
