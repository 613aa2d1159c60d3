"""The results of one run, asked by case, server and metric."""

from collections.abc import Mapping
from typing import Any

from benchmarks import stats


class Results:
    """A view of the document that a run writes.

    Args:
        document: as read from JSON.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.machine: dict[str, str] = document["machine"]
        self.seconds: float = document["seconds"]
        self.skipped: dict[str, str] = document["skipped"]
        self.cases: dict[str, dict[str, Any]] = document["cases"]
        self.runs: list[dict[str, Any]] = document["runs"]

    def rounds(self, case: str, server: str, metric: str) -> dict[int, float]:
        """Return a metric by round; failed rounds, and rounds without it, are left out."""
        return {
            run["round"]: float(run["result"][metric])
            for run in self.runs
            if run["case"] == case
            and run["server"] == server
            and run["result"].get(metric) is not None
        }

    def median(self, case: str, server: str, metric: str) -> float | None:
        """Return the median of a metric over the rounds, or None if there is none."""
        return stats.median(list(self.rounds(case, server, metric).values()))

    def worst(self, case: str, server: str, metric: str, *, highest: bool) -> float | None:
        """Return the highest or lowest value of a metric, or None if there is none."""
        values = self.rounds(case, server, metric).values()
        return (max(values) if highest else min(values)) if values else None

    def ratio(self, case: str, metric: str, server: str, other: str) -> float | None:
        """Return the median over the rounds of one server's metric divided by another's."""
        return stats.ratio(self.rounds(case, server, metric), self.rounds(case, other, metric))

    def servers(self, case: str) -> list[str]:
        """Return the servers that took part in a case, in its order."""
        return list(self.cases[case]["servers"]) if case in self.cases else []

    def errors(self, case: str, server: str) -> list[str]:
        """Return why rounds of this server failed."""
        return [
            run["error"]
            for run in self.runs
            if run["case"] == case and run["server"] == server and run["error"]
        ]

    def timeline(self, case: str, server: str) -> list[float]:
        """Return when each fan-out round of the first run was complete, in seconds."""
        for run in self.runs:
            if run["case"] == case and run["server"] == server and "timeline" in run["result"]:
                return list(run["result"]["timeline"])
        return []
