"""The few statistics the report needs, over plain lists of numbers."""

import math
import statistics
from collections.abc import Mapping, Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all values do not exceed.

    Nearest rank: the result is always one of the values, never an invented one between two.

    Args:
        values: in any order.
        share: above 0, at most 1; 0.99 for the 99th percentile.

    Raises:
        ValueError: there are no values, or the share is out of range.
    """
    if not values:
        raise ValueError("no values to take a quantile of")
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {share}")
    ordered = sorted(values)
    # The rounding keeps 0.07 * 100 (7.000000000000001) at rank 7.
    return ordered[math.ceil(round(share * len(ordered), 9)) - 1]


def median(values: Sequence[float]) -> float | None:
    """Return the median, or None of no values."""
    return statistics.median(values) if values else None


def ratio(mine: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Return the median of ``mine / other`` over the rounds that have both.

    Two servers measured in the same round met the same weather on the machine, so dividing round
    by round before taking the median removes what the medians of each alone would keep.

    Args:
        mine: a value for each round.
        other: likewise; a round in which it is 0 is left out.

    Returns:
        None if no round has both.
    """
    shared = [mine[r] / other[r] for r in sorted(mine) if other.get(r)]
    return median(shared)


def fairness(counts: Sequence[int]) -> float:
    """Return the least served client's messages as a share of the median client's.

    1 is perfectly fair, 0 is a client that got nothing.
    """
    middle = statistics.median(counts) if counts else 0
    return min(counts) / middle if middle else 0.0
