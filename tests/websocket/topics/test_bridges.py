"""What other parts of a program say, on a topic: its log, and queues."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from daebus import Daebus, Topic
from tests.support.fixture_types import MakeApp
from tests.support.waiting import eventually


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("plant.boiler")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)


def lines(topic: Topic) -> list[Any]:
    return [publication.data for publication in topic.history()]


def test_what_is_logged_is_published(app: Daebus, log: logging.Logger) -> None:
    handler = app.websocket.log_handler("log", logging.INFO)
    topic = app.websocket.topic("other")
    log.addHandler(handler)
    log.debug("not this")
    log.warning("%d degrees", 180)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    published = app.websocket._context.topics.handle("log")
    assert isinstance(published, Topic)
    warning, failed = published.history()
    assert (warning.message_type, warning.data["level"]) == ("log", "WARNING")
    assert (warning.data["logger"], warning.data["message"]) == ("plant.boiler", "180 degrees")
    assert warning.data["time"] == pytest.approx(warning.time, abs=5)
    assert "traceback" not in warning.data
    assert failed.data["traceback"].endswith("ValueError: broken")
    assert lines(topic) == []


def test_the_log_of_daebus_is_passed_over(app: Daebus) -> None:
    topic = app.websocket.topic("log")
    handler = app.websocket.log_handler("log")
    assert handler.handle(logging.makeLogRecord({"msg": "nameless"}))
    for name in ("daebus", "daebus.websocket"):
        assert not handler.handle(logging.makeLogRecord({"name": name, "msg": "x"}))
    assert handler.handle(logging.makeLogRecord({"name": "daebusiness", "msg": "x"}))
    assert len(lines(topic)) == 2


class Recursive:
    """Logs while it is turned into text, as clients of databases do."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log

    def __str__(self) -> str:
        self.log.info("asked for my name")
        return "me"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_it_neither_recurses_nor_raises(
    app: Daebus, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = app.websocket.topic("log")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = app.websocket.log_handler("log")
    log.addHandler(handler)
    for text, value in [
        ("%s", Recursive(log)),
        ("%s", Broken()),
        ("%d", "x"),
        ("%s", "x" * 10_000),
    ]:
        handler.handle(logging.makeLogRecord({"name": "x", "msg": text, "args": (value,)}))
    assert [line["message"] for line in lines(topic)] == ["me", "x" * 8192]


def test_it_waits_for_no_lock(app: Daebus, log: logging.Logger) -> None:
    topic = app.websocket.topic("log")
    handler = app.websocket.log_handler("log")
    log.addHandler(handler)
    handler.acquire()
    try:
        thread = threading.Thread(target=log.info, args=("hello",))
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
    finally:
        handler.release()
    assert len(lines(topic)) == 1


def test_a_state_takes_no_lines(app: Daebus) -> None:
    app.websocket.state("boiler")
    with pytest.raises(TypeError, match="history topic"):
        app.websocket.log_handler("boiler")


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_queue_is_published(app: Daebus, kind: str) -> None:
    # Since 3.14 the default context starts a process beside it that stays, with a pipe to it.
    forks = multiprocessing.get_context("fork")
    source: Any = queue.Queue() if kind == "thread" else forks.Queue()
    readings = app.websocket.topic("readings")
    boiler = app.websocket.state("boiler")
    states: queue.Queue[Any] = queue.Queue()
    app.websocket.pipe(source, "readings", message_type="reading")
    app.websocket.pipe(states, "boiler")
    for n in range(3):
        source.put({"n": n})
    states.put({"celsius": 21})
    assert readings.history() == []  # it does not run yet
    app.start()
    assert eventually(lambda: [line["n"] for line in lines(readings)] == [0, 1, 2])
    assert readings.history()[0].message_type == "reading"
    assert eventually(lambda: dict(boiler) == {"celsius": 21})
    app.stop(timeout=5)
    source.put({"n": 3})
    app.start()
    assert eventually(lambda: len(lines(readings)) == 4)
    app.stop(timeout=5)
    if kind == "process":
        source.close()
        source.join_thread()


def test_an_item_that_cannot_be_sent_is_lost_alone(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    readings = app.websocket.topic("readings")
    boiler = app.websocket.state("boiler")
    items: queue.Queue[Any] = queue.Queue()
    states: queue.Queue[Any] = queue.Queue()
    app.start()
    app.websocket.pipe(items, "readings")
    app.websocket.pipe(states, "boiler")
    for item in (object(), 1):
        items.put(item)
    for item in (7, {"celsius": 21}):
        states.put(item)
    assert eventually(lambda: lines(readings) == [1] and dict(boiler) == {"celsius": 21})
    assert "could not be published to topic 'readings'" in caplog.text


def test_a_queue_that_closes_ends_its_pipe(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    class Closed:
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            raise OSError("handle is closed")

    app = make_app()
    app.websocket.pipe(Closed(), "readings")
    app.start()
    assert eventually(lambda: "the queue piped to topic 'readings' is closed" in caplog.text)


def test_an_item_that_cannot_be_read_is_lost_alone(
    app: Daebus, caplog: pytest.LogCaptureFixture
) -> None:
    class Unpickling(queue.Queue[Any]):
        """Fails for an item as ``multiprocessing.Queue`` does, whose items are unpickled."""

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            item = super().get(block, timeout)
            if isinstance(item, Exception):
                raise item
            return item

    source = Unpickling()
    readings = app.websocket.topic("readings")
    app.websocket.pipe(source, "readings")
    app.start()
    for item in (ValueError("5 is no colour"), 1, EOFError(), 2, KeyError("x"), 3):
        source.put(item)
    assert eventually(lambda: lines(readings) == [1, 2, 3])
    assert caplog.text.count("an item for topic 'readings' could not be read") == 3


def test_a_queue_that_fails_at_once_is_not_asked_all_the_time(make_app: MakeApp) -> None:
    asked: list[float | None] = []

    class Failing:
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            asked.append(timeout)
            raise RuntimeError("broken")

    app = make_app()
    app.websocket.pipe(Failing(), "readings")
    app.start()
    assert eventually(lambda: len(asked) >= 3)
    app.stop(timeout=5)
    assert len(asked) < 10


def test_a_filter_may_put_another_record_in_its_place(app: Daebus) -> None:
    topic = app.websocket.topic("log")
    handler = app.websocket.log_handler("log")
    other = logging.makeLogRecord({"name": "x", "msg": "without the password"})
    handler.addFilter(lambda record: other)  # type: ignore[arg-type,return-value]  # since 3.12
    handler.handle(logging.makeLogRecord({"name": "x", "msg": "with the password"}))
    expected = "with" if sys.version_info < (3, 12) else "without"
    assert [line["message"] for line in lines(topic)] == [f"{expected} the password"]


def test_what_is_no_queue_is_refused(app: Daebus) -> None:
    with pytest.raises(TypeError, match="needs a get method"):
        app.websocket.pipe([1, 2], "readings")  # type: ignore[arg-type]  # that is the mistake
    waits = multiprocessing.get_context("fork").SimpleQueue()  # its thread could not be stopped
    with pytest.raises(TypeError, match=r"needs a timeout, .*; use queue\.Queue\(\)"):
        app.websocket.pipe(waits, "readings")  # type: ignore[arg-type]  # likewise
    waits.close()
