"""The browser client in a world of fakes: each rule by its name, and a random walk."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.node import SCRIPTS, run_node

RULES = SCRIPTS / "rules.mjs"


@pytest.fixture(scope="module")
def results() -> dict[str, str | None]:
    """What came of each test, all of which run in one go; None for those that passed."""
    return {result["name"]: result["error"] for result in run_node(RULES)}


def literal_names() -> list[str]:
    """Return the names of the tests in the file, those apart that are made in loops."""
    return re.findall(r'^test\("(.+?)", ', RULES.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", literal_names())
def test_rule(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


def test_rules_with_several_cases(results: dict[str, str | None]) -> None:
    cases = {name: error for name, error in results.items() if name not in literal_names()}
    assert len(cases) > 50
    assert [error for error in cases.values() if error is not None] == []


def walk(seed: int, steps: int) -> dict[str, Any]:
    (result,) = run_node(SCRIPTS / "walk.mjs", str(seed), str(steps))
    assert result["error"] is None, f"seed {seed}: {result}"
    return dict(result["counts"])


def test_a_random_walk_breaks_no_promise() -> None:
    assert len(walk(1, 5000)) == 6  # and it comes to every status


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_long_random_walk_breaks_no_promise(seed: int) -> None:
    walk(seed, 20_000)
