"""One run: every case, its rounds, its servers in rotated order, each in a fresh process."""

import dataclasses
import gc
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks import http, modes, pythons, wire
from benchmarks.cases import NODE_MODULES, SERVERS, Case, Server, cores
from benchmarks.client import LoadError
from benchmarks.modes import Result, Setting
from benchmarks.procs import ServerError, ServerProcess, busy_seconds

MODES = modes.MODES | http.MODES

FOREIGN_LIMIT = 0.08  # share of the cores that others may take before a run is repeated


@dataclass
class Run:
    """One server in one round of one case.

    Attributes:
        case: its name.
        server: its name.
        round: from 0.
        foreign: the share of the cores that other processes took meanwhile.
        result: what the mode noted; empty after an error.
        error: why there is no result, or None.
    """

    case: str
    server: str
    round: int
    foreign: float = 0.0
    result: Result = dataclasses.field(default_factory=dict)
    error: str | None = None


def rotated(names: Sequence[str], round_number: int) -> list[str]:
    """Return the names in the order for a round: each round begins with the next one."""
    start = round_number % len(names) if names else 0
    return [*names[start:], *names[:start]]


def run_cases(
    cases: Sequence[Case],
    *,
    rounds: int,
    attempts: int,
    stall_timeout: float,
    logs: Path,
    say: Callable[[str], None],
) -> Iterator[Run]:
    """Run the cases and yield each result when it is there.

    Args:
        cases: what to run, in this order.
        rounds: how often, unless a case wants fewer.
        attempts: how often at most, when other processes disturb; the quietest attempt counts.
        stall_timeout: seconds after which an incomplete fan-out round counts as a stall.
        logs: the folder for the servers' output.
        say: told of every run, for whoever watches.
    """
    everywhere = os.sched_getaffinity(0)
    server_core, own_core = cores()
    os.sched_setaffinity(0, {own_core})
    gc.disable()
    try:
        for case in cases:
            allowed = {server_core} if case.pinned else everywhere
            watched = {server_core, own_core} if case.pinned else everywhere
            for round_number in range(min(rounds, case.rounds)):
                for name in rotated(case.servers, round_number):
                    tries: list[Run] = []
                    while len(tries) < attempts:
                        run = Run(case.name, name, round_number)
                        _run_once(run, case, allowed, watched, stall_timeout, logs)
                        gc.collect()
                        tries.append(run)
                        if run.foreign <= FOREIGN_LIMIT:
                            break
                    run = min(tries, key=lambda one: one.foreign)
                    say(_line(run))
                    yield run
    finally:
        gc.enable()
        os.sched_setaffinity(0, everywhere)


def _run_once(
    run: Run,
    case: Case,
    allowed: set[int],
    watched: set[int],
    stall_timeout: float,
    logs: Path,
) -> None:
    server = SERVERS[run.server]
    busy, own, started = busy_seconds(watched), _own_seconds(), time.perf_counter()
    log = logs / f"{run.case}-{run.server}.log"
    try:
        command, environment = _command(server), {"NODE_PATH": str(NODE_MODULES)}
        if server.python:  # daebus is not installed there
            environment["PYTHONPATH"] = str(pythons.ROOT / "src")
        if server.python == "nogil":  # others refuse to start with it
            environment["PYTHON_GIL"] = "0"
        with ServerProcess(command, cpus=allowed, environment=environment, log=log) as process:
            setting = Setting(process, wire.Dialect(server.dialect), stall_timeout)
            with closing(setting):
                run.result = MODES[case.mode](setting, case)
    except (ServerError, LoadError, wire.WireError, OSError) as error:
        run.error = " ".join(f"{type(error).__name__}: {error}".split())
    seconds = time.perf_counter() - started
    others = busy_seconds(watched) - busy - (_own_seconds() - own)
    run.foreign = round(max(0.0, others / seconds / len(watched)), 4)


def _command(server: Server) -> list[str]:
    # Only {port} is left for the process to fill in, once it has found one.
    python = pythons.path_of(server.python) or ""
    return [
        part.replace("{cpu}", str(cores()[0])).replace("{python}", python)
        for part in server.command
    ]


def _own_seconds() -> float:
    mine = resource.getrusage(resource.RUSAGE_SELF)
    servers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + servers.ru_utime + servers.ru_stime


def _line(run: Run) -> str:
    head = f"{run.case:24} {run.server:20} round {run.round + 1}"
    if run.error is not None:
        return f"{head}  failed: ...{run.error[-160:]}"
    parts = []
    for key, value in run.result.items():
        if isinstance(value, list):
            continue
        parts.append(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    if run.foreign > FOREIGN_LIMIT:
        parts.append(f"others={100 * run.foreign:.0f}%")
    return f"{head}  {' '.join(parts)}"
