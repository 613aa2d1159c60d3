"""The command line of the benchmarks: ``python -m benchmarks``."""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import attacks, cases, machine, nodes, procs, pythons, report, runner, topics

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str]) -> int:
    """Run the benchmarks, or only write their report anew; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of about a minute")
    parser.add_argument("--rounds", type=int, help="rounds of each case (3; quick: 1)")
    parser.add_argument("--only", metavar="MODES", help="comma-separated, such as echo,fanout")
    parser.add_argument("--servers", metavar="NAMES", help="comma-separated")
    parser.add_argument(
        "--cores", action="store_true",
        help="only daebus with and without the GIL; BENCH_PYTHONS names the interpreters",
    )  # fmt: skip
    parser.add_argument("--docs", type=Path, help="folder for the report (docs; quick: results)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="only write FILE's report")
    parser.add_argument(
        "--attacks", nargs="?", const=",".join(attacks.ATTACKS), metavar="NAMES",
        help="only what attacks cost the others; comma-separated names, or all",
    )  # fmt: skip
    parser.add_argument(
        "--topics", nargs="?", const=",".join(topics.MEASURES), metavar="NAMES",
        help="only what topics cost; comma-separated names, or all",
    )  # fmt: skip
    parser.add_argument(
        "--nodes", nargs="?", const=",".join(nodes.MEASURES), metavar="NAMES",
        help="only two nodes on one Redis; comma-separated names, or all",
    )  # fmt: skip
    parser.add_argument("--clients", type=int, help="with --topics, --nodes: how many")
    options = parser.parse_args(arguments)

    if options.attacks:
        return _attack(options.attacks.split(","), 1.0 if options.quick else 3.0)
    if options.topics:
        return _topics(options.topics.split(","), options.clients, 0.3 if options.quick else 1.0)
    if options.nodes:
        rounds = options.rounds or (1 if options.quick else 5)
        return _nodes(options.nodes.split(","), options.clients, rounds, options.quick)
    if options.report:
        document = json.loads(options.report.read_text())
        report.write(document, options.docs or ROOT / "docs")
        return 0

    procs.raise_descriptor_limit()
    others: dict[str, str] = {}
    if options.cores or not options.quick:
        others = pythons.prepare(lambda line: print(line, flush=True))
    plan = cases.quick() if options.quick else cases.full()
    if options.cores:
        plan = cases.cores_and_gil()
    plan, skipped = _select(plan, options.only, options.servers)
    for name, reason in skipped.items():
        print(f"without {name}: {reason}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="daebus-bench-") as logs:
        done = runner.run_cases(
            plan,
            rounds=options.rounds or (1 if options.quick else 3),
            attempts=1 if options.quick else 3,
            stall_timeout=2.0 if options.quick else 5.0,
            logs=Path(logs),
            say=lambda line: print(f"{time.monotonic() - started:6.0f} s  {line}", flush=True),
        )
        runs: list[dict[str, Any]] = [dataclasses.asdict(run) for run in done]
    document = {
        "machine": machine.describe(arguments) | others,
        "seconds": time.monotonic() - started,
        "skipped": skipped,
        "cases": {case.name: dataclasses.asdict(case) for case in plan},
        "runs": runs,
    }
    RESULTS.mkdir(exist_ok=True)
    name = "cores.json" if options.cores else "quick.json" if options.quick else "full.json"
    (RESULTS / name).write_text(json.dumps(document, indent=1) + "\n")
    # A partial run must not replace the published report by mistake.
    partial = options.quick or options.cores or options.only or options.servers
    folder = options.docs or (RESULTS if partial else ROOT / "docs")
    for path in report.write(document, folder):
        print(path)
    failures = [entry for entry in runs if entry["error"]]
    for entry in failures:
        print(f"failed: {entry['case']} {entry['server']}: {entry['error']}", file=sys.stderr)
    return 1 if any(entry["server"].startswith("daebus") for entry in failures) else 0


def _attack(names: list[str], seconds: float) -> int:
    procs.raise_descriptor_limit()
    results = attacks.run(names, seconds, lambda line: print(line, flush=True))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "attacks.json").write_text(json.dumps(results, indent=1) + "\n")
    problems = attacks.exceeded(results)
    for problem in problems:
        print(f"fell back: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _topics(names: list[str], clients: int | None, seconds: float) -> int:
    procs.raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="daebus-topics-") as logs:
        results = topics.run(
            names, Path(logs), seconds, clients, lambda line: print(line, flush=True)
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "topics.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


def _nodes(names: list[str], clients: int | None, rounds: int, quick: bool) -> int:
    procs.raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="daebus-nodes-") as logs:
        results = nodes.run(
            names,
            Path(logs),
            rounds=rounds,
            seconds=0.3 if quick else 2.0,
            clients=clients or (10 if quick else None),
            say=lambda line: print(line, flush=True),
        )
    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine.describe(names), "rounds": results}
    (RESULTS / "nodes.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _select(
    plan: list[cases.Case], modes: str | None, servers: str | None
) -> tuple[list[cases.Case], dict[str, str]]:
    """Keep the modes and servers asked for and able to run; tell which are missing and why."""
    skipped: dict[str, str] = {}
    chosen = []
    for case in plan:
        if modes and case.mode not in modes.split(","):
            continue
        names = []
        for name in case.servers:
            if servers and name not in servers.split(","):
                continue
            reason = cases.SERVERS[name].missing()
            if reason:
                skipped[name] = reason
            else:
                names.append(name)
        if names:
            chosen.append(dataclasses.replace(case, servers=tuple(names)))
    return chosen, skipped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
