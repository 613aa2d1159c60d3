"""A meter and a logger, each of which may be ended at any moment, and no reading is left out."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import eventually

Run = Callable[..., Any]
METER, LOGGER = "two_daemons/meter", "two_daemons/logger"


def lines(path: Path) -> list[list[str]]:
    """Return what was logged: epoch, offset, number, time, flow."""
    return list(csv.reader(path.read_text().splitlines())) if path.exists() else []


@pytest.mark.slow
def test_readings_are_logged(run_sample: Run, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    meter = run_sample(METER)
    logger = run_sample(LOGGER, listening=False, METER_URL=meter.url, LOG_FILE=str(log))
    assert eventually(lambda: len(lines(log)) >= 2, 20)
    assert [line[2] for line in lines(log)][:2] == ["1", "2"]
    logger.process.send_signal(signal.SIGTERM)
    code, output = logger.finish()
    assert code == 0
    assert "logging {'what': 'flow', 'unit': 'l/min'}" in output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_reading_is_left_out_or_written_twice(
    run_sample: Run, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log.csv"
    settings = {"LOG_FILE": str(log)}
    meter = run_sample(METER)
    logger = run_sample(LOGGER, listening=False, METER_URL=meter.url, **settings)
    assert eventually(lambda: len(lines(log)) >= 4, 20)
    logger.process.send_signal(number)
    logger.finish()
    there = len(lines(log))
    logger = run_sample(LOGGER, listening=False, METER_URL=meter.url, **settings)
    assert eventually(lambda: len(lines(log)) >= there + 4, 20)
    meter.process.send_signal(number)
    meter.finish()
    there = len(lines(log))
    meter = run_sample(METER, port=str(meter.port))
    assert eventually(lambda: len(lines(log)) >= there + 4, 40)
    logger.process.send_signal(signal.SIGTERM)
    _, output = logger.finish()
    numbers = [int(line[2]) for line in lines(log)]
    times = [float(line[3]) for line in lines(log)]
    assert times == sorted(set(times))
    epochs = {line[0] for line in lines(log)}
    assert len(epochs) == (1 if number is signal.SIGTERM else 2)
    if number is signal.SIGTERM:
        assert numbers == list(range(1, len(numbers) + 1))
        assert "lost" not in output
