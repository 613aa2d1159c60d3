"""What other parts of a program say, on a topic: its log, and a queue."""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from ...interrupts.stack import check_outside
from ...server.threads.safelog import get_logger
from ...server.threads.track import track
from .state import State
from .topic import Topic

__all__ = ["MAX_TEXT", "LogHandler", "Pipe", "Pipes", "Queue", "check_queue"]

logger = get_logger("daebus.websocket")

# Characters of one line of a log, and of a traceback.
MAX_TEXT: Final = 8192

# Seconds until a pipe sees that the app stops: queues cannot be told.
_POLL = 0.25

# Seconds after a first failure to read, doubled with each that follows at once, and the most.
_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
# Failures of that kind after which a queue is taken to be closed. One item may fail as well:
# what unpickles it is code of the program.
_CLOSED: Final = 4


class Queue(Protocol):
    """What a pipe needs of a queue: ``queue.Queue`` and ``multiprocessing.Queue`` have it."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item; raise ``queue.Empty`` after the timeout."""


def check_queue(source: object) -> None:
    """Refuse what a pipe cannot read.

    Raises:
        TypeError: it has no ``get``, or one that waits for ever.
    """
    get = getattr(source, "get", None)
    if not callable(get):
        raise TypeError(f"a queue needs a get method, and {source!r:.100} has none")
    try:
        parameters = inspect.signature(get).parameters.values()
    except (TypeError, ValueError):  # some that are written in C do not tell
        return
    if not any(one.name == "timeout" or one.kind is one.VAR_KEYWORD for one in parameters):
        raise TypeError(
            f"the get of a queue needs a timeout, and that of {source!r:.100} has none; use "
            f"queue.Queue() or multiprocessing.Queue()"
        )


class LogHandler(logging.Handler):
    """Publishes what is logged to a topic, as messages of type ``log``.

    Data: ``time`` (Unix), ``level`` (such as ``"WARNING"``), ``logger``, ``message`` and, for an
    exception, ``traceback``. Texts are cut after 8,192 characters. What daebus itself logs is
    passed over: sending it could be the reason for the next line.

    ``DaebusWebSocket.log_handler`` makes it.

    Threads:
        Any may log; it never waits for a client and never raises.
    """

    def __init__(self, topic: Topic, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._topic = topic
        self._busy = threading.local()

    def handle(self, record: logging.LogRecord) -> bool:
        """Publish a line, unless daebus logs it, or it comes of publishing one.

        No lock is held: a topic can be published to by any thread at any time.
        """
        if str(record.name).partition(".")[0] == "daebus":
            return False
        if getattr(self._busy, "now", False):
            return False
        passed: object = self.filter(record)
        if not passed:
            return False
        # Since Python 3.12 a filter may return another record.
        self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Publish a line."""
        self._busy.now = True
        try:
            self._topic.publish(_line(record), "log")
        except Exception:
            self.handleError(record)
        finally:
            self._busy.now = False


_formatter = logging.Formatter()


def _line(record: logging.LogRecord) -> dict[str, Any]:
    line = {
        "time": record.created,
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage()[:MAX_TEXT],
    }
    if record.exc_info and record.exc_info[0] is not None:
        line["traceback"] = _formatter.formatException(record.exc_info)[-MAX_TEXT:]
    return line


class Pipe:
    """Publishes what comes out of a queue, from the start of the app to its stop.

    Args:
        source: the queue.
        topic: gets each item as data; a state is updated with it.
        message_type: of the messages of a history topic.
    """

    def __init__(self, source: Queue, topic: Topic | State, message_type: str) -> None:
        self._source = source
        self._topic = topic
        self._message_type = message_type
        self._stopping = threading.Event()
        self.thread = track(
            threading.Thread(target=self._run, name=f"daebus-pipe-{topic.name}", daemon=True),
            "pipe",
        )

    def stop(self) -> None:
        """Have the thread end; it may take a quarter of a second."""
        self._stopping.set()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                item = self._source.get(timeout=_POLL)
            except queue.Empty:
                failures = 0
                continue
            except Exception as exc:
                failures += 1
                if self._is_over(exc, failures):
                    return
                self._stopping.wait(min(_LONGEST_PAUSE, _PAUSE * 2 ** min(failures - 1, 10)))
                continue
            failures = 0
            try:
                self._publish(item)
            except Exception:
                logger.exception("an item could not be published to topic %r", self._topic.name)
            del item

    def _is_over(self, exc: Exception, failures: int) -> bool:
        """Log that nothing was read, and tell whether nothing more will come."""
        if type(exc).__name__ == "ShutDown":  # of Python 3.13
            return True
        closed = isinstance(exc, EOFError | OSError | ValueError) and failures >= _CLOSED
        if closed:
            logger.error("the queue piped to topic %r is closed: %s", self._topic.name, exc)
        else:
            logger.error("an item for topic %r could not be read", self._topic.name, exc_info=exc)
        return closed

    def _publish(self, item: Any) -> None:
        if isinstance(self._topic, State):
            self._topic.update(item)
        else:
            self._topic.publish(item, self._message_type)


class Pipes:
    """The pipes of a component; their threads live from each start to the stop after it."""

    def __init__(self) -> None:
        self._make: tuple[Callable[[], Pipe], ...] = ()
        self._running: list[Pipe] = []
        self._up = False
        self._lock = threading.Lock()

    def add(self, make: Callable[[], Pipe]) -> None:
        """Add a pipe; it starts at once if the app runs."""
        check_outside("piping a queue", self._lock)
        with self._lock:
            self._make = (*self._make, make)
            pipe = self._begin_locked(make) if self._up else None
        if pipe is not None:
            pipe.thread.start()

    def begin(self) -> None:
        """Start a thread for each."""
        with self._lock:
            self._up = True
            pipes = [self._begin_locked(make) for make in self._make]
        for pipe in pipes:
            pipe.thread.start()

    def _begin_locked(self, make: Callable[[], Pipe]) -> Pipe:
        assert self._lock.locked()
        pipe = make()
        self._running.append(pipe)
        return pipe

    def forget(self) -> None:
        """Drop the running ones in a forked child, where their threads do not exist."""
        self._lock = threading.Lock()  # the thread that held it does not exist in the child
        self._up, self._running = False, []

    def stop(self) -> list[threading.Thread]:
        """Have the threads end; return them, to be joined."""
        with self._lock:
            self._up = False
            pipes, self._running = self._running, []
        for pipe in pipes:
            pipe.stop()
        return [pipe.thread for pipe in pipes if pipe.thread.ident is not None]
