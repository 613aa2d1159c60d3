"""Which other interpreters the benchmarks take, and what they say where there is none."""

import stat
import sys
from pathlib import Path

import pytest

from benchmarks import cases, pythons
from benchmarks.results import Results
from benchmarks.targets import all_targets

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")


def _program(folder: Path, name: str, says: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_newest_of_each_kind_is_taken(tmp_path: Path) -> None:
    names = [
        _program(tmp_path, "new", "echo 3.15.2 0"),
        _program(tmp_path, "old", "echo 3.9.30 0"),
        _program(tmp_path, "free", "echo 3.14.1 1"),
        _program(tmp_path, "broken", "exit 1"),
        str(tmp_path / "absent"),
    ]
    found = pythons.find(names)
    assert {kind: one.version for kind, one in found.items()} == {
        "newest": "3.15.2",
        "nogil": "3.14.1",
    }
    assert found["newest"].path == names[0]


def test_without_such_an_interpreter_its_servers_are_left_out_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pythons, "_paths", {})
    reason = cases.SERVERS["daebus_nogil"].missing()
    assert reason is not None
    assert "BENCH_PYTHONS" in reason


def test_an_interpreter_without_the_packages_of_a_server_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pythons, "_paths", {"newest": sys.executable})
    assert cases.SERVERS["raw_threads_newest"].missing() is None
    monkeypatch.setattr(pythons, "has", lambda path, *modules: False)
    assert "aiohttp cannot be imported" in (cases.SERVERS["aiohttp_newest"].missing() or "")


def test_what_was_measured_of_cores_is_judged() -> None:
    case = cases.cores_and_gil()[1]
    assert case.name == "echo-100-64-cores"
    rates = {"daebus_nogil": 60.0, "daebus_newest": 20.0, "aiohttp_newest": 50.0}
    document = {
        "machine": {}, "seconds": 1.0, "skipped": {}, "cases": {case.name: {"servers": []}},
        "runs": [
            {"case": case.name, "server": name, "round": 0, "error": None, "result": {"rate": rate}}
            for name, rate in rates.items()
        ],
    }  # fmt: skip
    reached = {
        target.figure: target.met(Results(document))
        for target in all_targets()
        if target.measure == "echo, 100 clients, not pinned, without the GIL"
    }
    assert reached["rate, times daebus_newest"] is True
    assert reached["rate, times aiohttp_newest"] is True
    assert reached["p99 latency, of daebus_newest"] is None
