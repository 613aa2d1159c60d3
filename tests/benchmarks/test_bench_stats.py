"""The statistics of the report."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plots, report, runner, stats
from benchmarks.results import Results
from benchmarks.targets import Target, all_targets


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1, 100), (0.07, 7)]
)
def test_quantile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert stats.quantile(range(100, 0, -1), share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_quantile_has_its_share_at_or_below_it(values: list[float], share: float) -> None:
    found = stats.quantile(values, share)
    below = sum(value <= found for value in values)
    assert found in values
    assert below >= share * len(values) - 1e-6


@pytest.mark.parametrize("share", [0, -1, 1.1])
def test_quantile_refuses_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        stats.quantile([1], share)


def test_ratio_pairs_the_rounds_before_it_takes_the_median() -> None:
    # The ratio of the medians would be 2; nobody was twice as fast in most rounds.
    mine = {0: 1.0, 1: 4.0, 2: 9.0, 3: 7.0}
    other = {0: 1.0, 1: 4.0, 2: 2.0}
    assert stats.ratio(mine, other) == 1.0


def test_ratio_leaves_out_rounds_it_cannot_divide() -> None:
    assert stats.ratio({0: 3.0, 1: 5.0}, {0: 0.0, 1: 2.0}) == 2.5
    assert stats.ratio({0: 3.0}, {1: 1.0}) is None


def test_fairness_is_the_least_served_against_the_median() -> None:
    assert stats.fairness([10, 20, 20, 40]) == 0.5
    assert stats.fairness([0, 5, 5]) == 0
    assert stats.fairness([]) == 0


def test_every_round_begins_with_another_server() -> None:
    names = ["a", "b", "c"]
    assert [runner.rotated(names, n) for n in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip


def _document() -> dict[str, object]:
    servers = ["daebus", "raw_threads"]
    case = {"mode": "echo", "clients": 100, "servers": servers, "size": 64}
    name = "echo-100-64-pinned"
    runs = [
        {"case": name, "server": server, "round": n, "error": None, "result": {"rate": rate}}
        for n, rates in enumerate([(99.6, 100.0), (150.0, 100.0), (10.0, 100.0)])
        for server, rate in zip(servers, rates, strict=True)
    ]
    broken = {"case": name, "server": "daebus", "round": 3, "error": "lost", "result": {}}
    return {
        "machine": {"processor": "one"},
        "seconds": 60.0,
        "skipped": {"node_ws": "node is not installed"},
        "cases": {name: {**case, "pinned": True, "seconds": 1.0}},
        "runs": [*runs, broken],
    }


def test_target_is_judged_as_it_is_printed() -> None:
    results = Results(_document())
    target = next(t for t in all_targets() if t.value(results) is not None)
    assert target.value(results) == pytest.approx(0.996)
    assert target.met(results) is True  # printed as 1.00
    missed = Target("m", "f", 1.01, True, target.value)
    assert missed.met(results) is False
    unmeasured = Target("m", "f", 1.0, True, lambda results: None)
    assert unmeasured.met(results) is None


def test_report_shows_figures_failures_and_what_was_left_out(tmp_path: Path) -> None:
    text, *drawings = report.write(_document(), tmp_path)
    written = text.read_text()
    assert "node is not installed" in written
    assert "daebus failed in 1 of the rounds: ``lost``" in written
    row = next(line for line in written.splitlines() if line.startswith("daebus "))
    assert row.split() == ["daebus", "100", "1.00"]
    assert all(path.read_text().startswith("<svg ") for path in drawings)


@pytest.mark.parametrize(
    ("value", "top"), [(1, 1), (1.1, 2), (22, 25), (26, 40), (45, 50), (51, 100), (0.03, 0.04)]
)
def test_axis_ends_at_a_round_number_above_the_value(value: float, top: float) -> None:
    drawing = plots.bars("t", "u", ["g"], {"s": [value]})
    assert f">{top:,.5g}</text>" in drawing
