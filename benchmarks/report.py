"""The report: ``benchmarks.rst`` and two plots, from the results of one run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.results import Results
from benchmarks.targets import ECHO, SLOW, Target, all_targets

REMARKS = Path(__file__).parent / "remarks.rst"
BUCKET = 0.1  # seconds of one point in the plot over time

INTRODUCTION = """\
.. This file is written by ``make bench``; text of our own belongs into ``benchmarks/remarks.rst``.

Benchmarks
==========

How fast daebus is beside its peers, all measured in one run on one machine with the project's own
load generator. Repeat it with ``make bench`` (about half an hour); the absolute figures
belong to the machine below, the ratios should hold on yours.

How it is measured
------------------

* Every server has the same two message types: ``echo`` sends its data back, ``shout`` broadcasts
  it to all. They stand in ``benchmarks/servers``. ``raw_threads`` is no WebSocket server: bare TCP
  threads with ``json.loads`` and ``json.dumps`` and a line of JSON each way, the limit of what one
  thread a connection can do.
* Each figure comes from a fresh server process, pinned to one core unless said otherwise; the
  generator has a core of its own. A round runs every server once, each round begins with another
  one, and figures are medians over the rounds. A ratio is taken within each round first.
* Every client waits for its answer before it asks again, and every answer is compared with the
  right one. Data is 64 bytes, JSON the standard library's (with ``daebus_orjson``, orjson).
* CPU is the server process's own clock over the window, divided by messages or deliveries: the
  figure that a busy machine disturbs least. Runs in which other processes took more than 8 % of
  the cores were repeated, up to three times in all.
"""

_Column = tuple[str, str, Callable[[float], str]]


def write(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``benchmarks.rst`` and its plots into ``folder`` and return their paths."""
    results = Results(document)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "benchmarks.rst": _text(results),
        "benchmark-echo.svg": _echo_plot(results),
        "benchmark-slow.svg": _slow_plot(results),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of them the heading, as a simple table of reStructuredText."""
    # A simple table takes an empty first cell for the continuation of the row above.
    cells = [[row[0] or "\\", *row[1:]] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    lines = [line.rstrip() for line in lines]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, ""])


def _text(results: Results) -> str:
    parts = [INTRODUCTION, _machine(results), _targets(results, all_targets())]
    parts += [_section(results, title, mode, columns) for title, mode, columns in _SECTIONS]
    parts += [
        _section(results, title, mode, columns, cores=True) for title, mode, columns in _CORES
    ]
    if REMARKS.exists():
        parts.append(REMARKS.read_text())
    return "\n".join(part for part in parts if part)


def _machine(results: Results) -> str:
    rows = [("what", "value"), *results.machine.items()]
    rows.append(("the run took", f"{results.seconds / 60:.0f} minutes"))
    rows += [(f"without {name}", reason) for name, reason in results.skipped.items()]
    return _heading("The machine and the versions") + table(rows) + "\n" + _generator(results)


def _generator(results: Results) -> str:
    shares = [
        (run["result"]["generator_percent"], f"{run['server']}, {run['case']}")
        for run in results.runs
        if run["case"].startswith("echo") and "generator_percent" in run["result"]
    ]
    if not shares:
        return ""
    share, where = max(shares)
    verdict = "so it was not the limit" if share < 85 else "so it may have been the limit there"
    return f"In echo the generator used at most {share:.0f} % of its core ({where}), {verdict}.\n"


def _targets(results: Results, targets: Sequence[Target]) -> str:
    rows = [("measure", "figure", "must be", "reached", "met")]
    for target in targets:
        value = target.value(results)
        bound = f"{'>=' if target.at_least else '<='} {target.limit:,g}"
        verdict = {True: "yes", False: "**no**", None: "not measured"}[target.met(results)]
        reached = "" if value is None else f"{value:,.2f}".removesuffix(".00")
        rows.append((target.measure, target.figure, bound, reached, verdict))
    note = "What daebus must reach, and what it reached in this run.\n\n"
    return _heading("Targets") + note + table(rows)


def _section(
    results: Results, title: str, mode: str, columns: Sequence[_Column], *, cores: bool = False
) -> str:
    cases = [
        name
        for name, case in results.cases.items()
        if case["mode"] == mode and case.get("cores", False) is cores
    ]
    if not cases:
        return ""
    parts = [_heading(title) + _NOTES.get(title if cores else mode, "")]
    for name in cases:
        case = results.cases[name]
        reference = "raw_threads" if "raw_threads" in case["servers"] else case["servers"][0]
        if "daebus_newest" in case["servers"]:
            reference = "daebus_newest"
        parts.append(f"**{_caption(case)}**\n")
        heads = ["server", *(head for head, _, _ in columns)]
        if any(metric == "rate" for _, metric, _ in columns):
            heads.append(f"rate / {reference}")
        rows = [heads]
        for server in case["servers"]:
            row = [server]
            for _, metric, show in columns:
                value = results.median(name, server, metric)
                row.append("" if value is None else show(value))
            if len(heads) > len(row):
                ratio = results.ratio(name, "rate", server, reference)
                row.append("" if ratio is None else f"{ratio:.2f}")
            rows.append(row)
        parts.append(table(rows))
        parts += _failures(results, name)
    return "\n".join(parts)


def _failures(results: Results, case: str) -> list[str]:
    found = [(server, results.errors(case, server)) for server in results.servers(case)]
    return [
        f"{server} failed in {len(errors)} of the rounds: {_literal(errors[0])}\n"
        for server, errors in found
        if errors
    ]


def _literal(text: str) -> str:
    return "``" + " ".join(text.replace("`", "'").split())[:200].strip() + "``"


def _caption(case: Mapping[str, Any]) -> str:
    size = f"{case['size']} B" if case["size"] < 1024 else f"{case['size'] // 1024} KiB"
    where = "server on one core" if case["pinned"] else "server not pinned"
    clients = "1 client" if case["clients"] == 1 else f"{case['clients']:,} clients"
    return f"{clients}, {size}, {where}"


def _heading(title: str) -> str:
    return f"{title}\n{'-' * len(title)}\n\n"


def _echo_plot(results: Results) -> str:
    clients = [n for n in (1, 10, 100, 500) if ECHO.format(n) in results.cases]
    names = list(dict.fromkeys(s for n in clients for s in results.servers(ECHO.format(n))))
    series = {
        name: [results.median(ECHO.format(n), name, "rate") for n in clients] for name in names
    }
    title = "Echo of 64 bytes, server on one core"
    labels = ["1 client" if n == 1 else f"{n} clients" for n in clients]
    return plots.bars(title, "messages a second", labels, series)


def _slow_plot(results: Results) -> str:
    found = [name for name, case in results.cases.items() if case["mode"] == "slow"]
    name = SLOW if SLOW in found else "".join(found[:1])
    case = results.cases.get(name, {"clients": 0, "seconds": 1.0})
    series = {}
    for server in results.servers(name):
        counts = [0] * int(case["seconds"] / BUCKET + 0.5)
        for moment in results.timeline(name, server):
            if (bucket := int(moment / BUCKET)) < len(counts):
                counts[bucket] += case["clients"]
        series[server] = [((i + 0.5) * BUCKET, n / BUCKET) for i, n in enumerate(counts)]
    title = f"Fan-out of 16 KiB to {case['clients']} beside 5 clients that stopped reading"
    return plots.lines(title, "deliveries a second", case["seconds"], series)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _two(value: float) -> str:
    return f"{value:,.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _mib(value: float) -> str:
    return f"{value / 1024:,.1f}"


def _yes(value: float) -> str:
    return "yes" if value else "no"


_RATE: list[_Column] = [
    ("a second", "rate", _count),
    ("CPU us each", "cpu_us", _two),
    ("p50 ms", "p50_ms", _two),
    ("p99 ms", "p99_ms", _two),
]
_HTTP_RATE: list[_Column] = [
    *[column for column in _RATE if column[1] != "cpu_us"],
    ("failed", "failures", _count),
]
_SECTIONS: list[tuple[str, str, list[_Column]]] = [
    ("Echo", "echo", [*_RATE, ("least / median", "fairness", _two)]),
    ("Fan-out", "fanout", _RATE),
    (
        "Fan-out beside clients that stopped reading",
        "slow",
        [
            ("of own rate without", "own_share", _two),
            ("stalled", "stalled", _yes),
            ("cut", "cut", _count),
            ("memory growth MiB", "growth_kib", _mib),
        ],
    ),
    ("Connects", "connect", _RATE),
    (
        "Idle clients",
        "idle",
        [
            ("PSS KiB each", "pss_kib_each", _two),
            ("threads each", "threads_each", _two),
            ("descriptors each", "descriptors_each", _two),
            ("CPU % of a core", "idle_cpu_percent", _two),
        ],
    ),
    (
        "A host that only computes",
        "host",
        [*[c for c in _RATE if c[1] != "cpu_us"], ("host keeps", "host_share", _percent)],
    ),
    (
        "Very many idle clients",
        "many",
        [
            ("connected", "connected", _count),
            ("in s", "connect_s", _two),
            ("broadcast reached all in s", "broadcast_s", _two),
            ("got 1001", "goodbyes", _count),
            ("stopped in s", "stop_s", _two),
            ("exit code", "exit_code", _count),
        ],
    ),
]
_SECTIONS += [
    ("HTTP: GET on connections that are kept", "get", _HTTP_RATE),
    ("HTTP: a new connection for each GET", "fresh", _HTTP_RATE),
    (
        "HTTP: GET beside clients that drip their head",
        "beside",
        [
            *_HTTP_RATE,
            ("of own rate without", "own_share", _two),
            ("slow ones left", "slow_left", _count),
        ],
    ),
]
_CORES: list[tuple[str, str, list[_Column]]] = [
    ("Cores and the GIL", "echo", [*_RATE, ("least / median", "fairness", _two)]),
    ("Cores and the GIL: fan-out", "fanout", _RATE),
    (
        "Cores and the GIL: idle clients",
        "idle",
        [("PSS KiB each", "pss_kib_each", _two), ("CPU % of a core", "idle_cpu_percent", _two)],
    ),
    (
        "Cores and the GIL: two threads without sockets",
        "scale",
        [
            ("us a message, one thread", "one_us", _two),
            ("times one thread", "speedup", _two),
            ("best tenth", "best_speedup", _two),
        ],
    ),
]
_NOTES = {
    "Cores and the GIL": """\
All cores are free, for the generator as well. ``_newest`` runs with the newest interpreter that has
the GIL, ``_nogil`` with one that has not; the table of the machine names both.
""",
    "echo": """\
.. image:: benchmark-echo.svg
   :alt: messages a second of each server, by number of clients

"least / median" is what the least served client got, of what the median client got; 1 is fair.
""",
    "fanout": """\
The figures are deliveries: a shout that reaches 100 clients counts 100. The latencies are those
of a whole round, from the shout until the last client has it.
""",
    "slow": """\
.. image:: benchmark-slow.svg
   :alt: deliveries a second over time, beside five clients that stopped reading

First the fan-out runs without them; then five clients with a small receive buffer connect and do
not read, and it goes on (the plot begins there). A round that is not
complete within five seconds is a stall, and ends the measure. Memory growth is the highest
resident memory during the window against what it was before.
""",
    "connect": """\
A cycle is a TCP connect, the upgrade, one echo and the close handshake (``raw_threads``: connect,
echo, close). The latencies are those of a whole cycle.
""",
    "idle": """\
Each client has done one echo. Memory (proportional set size), threads and descriptors are those
of the server after all have connected, less those before the first, divided by the clients.
""",
    "host": """\
The program that embeds daebus computes in its main thread without a pause and so holds the GIL
until another thread asks for it, which takes one switch interval: 5 ms by default.
``daebus_host_0.5ms`` calls ``sys.setswitchinterval(0.0005)`` first. "host keeps" is the share of
its loops the computing thread still does, against the time before the clients began. A program
that computes for long and answers clients too should set the shorter interval once at its start,
or leave the computing to another process.
""",
    "get": """\
All servers serve the same app: routing and a view that returns a dict, which becomes JSON. The
peers do so through ``app.wsgi``, with 8 threads each (Werkzeug's own starts one for each
connection, and closes each connection after its answer). The caption tells the size of the data.
""",
    "fresh": """\
Connect, one request with ``Connection: close``, its answer, close.
""",
    "beside": """\
The slow clients send their request head one byte a second and never come to its end; 16 others
ask as in the first of these measures. Their rate is compared with the one before the slow clients
came and after they left, in the same process. "slow ones left" is how many of them the server
still held at the end of the measure.
""",
}
