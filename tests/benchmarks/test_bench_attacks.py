"""The attacks against a real server process: each begins, and is measured beside."""

import sys
from pathlib import Path

import pytest

from tests.support.builds import package

attacks = package("benchmarks.attacks")

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the benchmarks read Linux's /proc"
)

FIGURES = {"rss_mib", "broadcast_ms", "broadcast_worst_ms", "get_ms", "get_worst_ms"}


@pytest.mark.slow
def test_the_figures_of_a_server_in_peace(tmp_path: Path) -> None:
    figures = attacks.measure("nothing", 0.2, tmp_path)
    assert set(figures) == FIGURES
    assert all(value >= 0 for value in figures.values())
    assert 0 < figures["broadcast_ms"] <= figures["broadcast_worst_ms"]
    assert 0 < figures["get_ms"] <= figures["get_worst_ms"]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_an_attack_stays_within_its_bounds(name: str, tmp_path: Path) -> None:
    figures = attacks.measure(name, 1.0, tmp_path)
    assert set(figures) == FIGURES
    assert attacks.exceeded({name: figures}) == []


def test_bounds_name_figures() -> None:
    for name, attack in attacks.ATTACKS.items():
        assert set(attack.most) <= FIGURES, name
        assert attack.run.__doc__, name


def test_what_exceeds_its_bound_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = attacks.Attack(attacks.nothing, most={"rss_mib": 10})
    monkeypatch.setitem(attacks.ATTACKS, "mine", bounded)
    assert attacks.exceeded({"mine": {"rss_mib": 9.5}}) == []
    assert attacks.exceeded({"mine": {"rss_mib": 11}}) == ["mine: rss_mib is 11, 10 at most"]
