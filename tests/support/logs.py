"""What daebus logs while a test runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.waiting import eventually

__all__ = ["Records", "records"]


class Records(logging.Handler):
    """Collects log records; ``wait_for`` waits for one that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def wait_for(self, part: str, timeout: float = 5.0) -> str:
        found = eventually(lambda: [text for text in self.texts if part in text], timeout)
        assert found, f"nothing was logged with {part!r}: {self.texts}"
        return str(found[0])


@contextmanager
def records(level: int = logging.WARNING) -> Iterator[Records]:
    """Collect what daebus logs."""
    logger, handler = logging.getLogger("daebus"), Records()
    handler.setLevel(level)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
