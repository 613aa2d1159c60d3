"""The measures of topics against real server processes, small."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import topics

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the benchmarks read Linux's /proc"
)

FIGURES = {
    "publish": {"room_us", "topic_us", "of_room"},
    "stalled": {"own_share", "own_cpu", "growth_mib", "told_of_loss"},
    "snapshot": {"seconds", "echo_idle_p99_ms", "echo_p50_ms", "echo_p99_ms"},
    "resume": {"seconds", "echo_idle_p99_ms", "echo_p50_ms", "echo_p99_ms"},
    "subscriber": {"bytes"},
    "echo": {"cpu_us"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", topics.MEASURES)
def test_a_measure_has_its_figures(name: str, tmp_path: Path) -> None:
    found = topics.measure(name, "daebus", tmp_path, clients=10, seconds=0.05)
    assert found.keys() == FIGURES[name]
    if name == "stalled":
        assert found["told_of_loss"] == topics.STALLED
    if name == "subscriber":
        return  # so few subscribers fit into memory that was there already
    assert all(value > 0 for what, value in found.items() if what != "growth_mib")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("socketio") is None, reason="python-socketio is not installed")
@pytest.mark.parametrize("name", sorted(topics.BESIDE))
def test_a_measure_beside_socketio(name: str, tmp_path: Path) -> None:
    found = topics.measure(name, "socketio", tmp_path, clients=10, seconds=0.05)
    assert found.keys() <= FIGURES[name]


def test_every_measure_says_what_it_is() -> None:
    assert topics.MEASURES.keys() == FIGURES.keys()
    assert all(measure.__doc__ for measure in topics.MEASURES.values())
