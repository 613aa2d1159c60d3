"""What daebus must reach, and how each figure is taken from the results.

A ratio is the median of the rounds' ratios, both servers measured in the same round.
"""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Results

ECHO = "echo-{}-64-pinned"
FREE = "echo-{}-64-free"
FANOUT = "fanout-{}-64-pinned"
BIG_ECHO = "echo-100-16384-pinned"
SLOW = "slow-100-16384-pinned"
CONNECT = "connect-16-64-pinned"
IDLE = "idle-2000-64-pinned"
GET = "get-16-64-pinned"
BESIDE = "beside-1000-64-pinned"
MANY = "many-5000-64-pinned"
CORES = "{}-{}-64-cores"


@dataclass(frozen=True)
class Target:
    """One figure with its bound.

    Attributes:
        measure: what is measured, for the table.
        figure: what the figure is, with its unit.
        limit: the bound.
        at_least: whether the figure must be at least the limit, or at most.
        value: takes the figure from the results; None if the run has no such case.
    """

    measure: str
    figure: str
    limit: float
    at_least: bool
    value: Callable[[Results], float | None]

    def met(self, results: Results) -> bool | None:
        """Return whether the bound is kept; None if the figure was not measured.

        The figure is judged as it is printed, with two digits after the point.
        """
        value = self.value(results)
        if value is None:
            return None
        value = round(value, 2)
        return value >= self.limit if self.at_least else value <= self.limit


def all_targets() -> list[Target]:
    """Return every target, in the order of the report."""
    return [*_echo(), *_fanout(), *_slow(), *_connect_and_idle(), *_http(), *_cores()]


def _rate(case: str, limit: float, other: str, server: str = "daebus") -> Target:
    return Target(
        _title(case, server),
        f"rate, times {other}",
        limit,
        True,
        lambda results: results.ratio(case, "rate", server, other),
    )


def _cpu(case: str, limit: float, other: str, unit: str) -> Target:
    return Target(
        _title(case, "daebus"),
        f"CPU a {unit}, of {other}",
        limit,
        False,
        lambda results: results.ratio(case, "cpu_us", "daebus", other),
    )


def _cheaper(case: str, limit: float, other: str) -> Target:
    return Target(
        _title(case, "daebus"),
        f"times less CPU a delivery than {other}",
        limit,
        True,
        lambda results: results.ratio(case, "cpu_us", other, "daebus"),
    )


def _worst(
    case: str, metric: str, figure: str, limit: float, *, at_least: bool, scale: float = 1.0
) -> Target:
    def value(results: Results) -> float | None:
        found = results.worst(case, "daebus", metric, highest=not at_least)
        return None if found is None else found * scale

    return Target(_title(case, "daebus"), figure, limit, at_least, value)


def _echo() -> list[Target]:
    return [
        *(_rate(ECHO.format(n), 1.0, "raw_threads") for n in (1, 10, 100)),
        *(_rate(ECHO.format(n), 3.3, "websockets_sync") for n in (10, 100)),
        *(_rate(ECHO.format(n), 3.5, "flask_sock") for n in (10, 100)),
        _rate(ECHO.format(100), 1.0, "aiohttp"),
        _rate(ECHO.format(100), 1.3, "aiohttp", "daebus_orjson"),
        _cpu(ECHO.format(500), 1.2, "raw_threads", "message"),
        Target(
            _title(ECHO.format(500), "daebus"),
            "p99 latency, of websockets_sync",
            0.5,
            False,
            lambda r: r.ratio(ECHO.format(500), "p99_ms", "daebus", "websockets_sync"),
        ),
        _worst(
            ECHO.format(500),
            "fairness",
            "messages of the least served client, of the median client",
            0.1,
            at_least=True,
        ),
        _cpu(BIG_ECHO, 1.2, "raw_threads", "message"),
        _rate(BIG_ECHO, 1.4, "websockets_sync"),
        *(_rate(FREE.format(n), 0.95, "raw_threads") for n in (10, 100)),
        *(_rate(FREE.format(n), 2.3, "websockets_sync") for n in (10, 100)),
        *(_rate(FREE.format(n), 2.0, "daebus", "daebus_affinity") for n in (10, 100)),
    ]


def _fanout() -> list[Target]:
    found = []
    for n in (100, 1000):
        case = FANOUT.format(n)
        found += [
            _cpu(case, 1.3, "raw_threads", "delivery"),
            _cheaper(case, 5.5, "websockets_sync"),
            _cheaper(case, 2.0, "flask_sock"),
            _cheaper(case, 1.2, "node_ws"),
        ]
    return found


def _slow() -> list[Target]:
    return [
        _worst(SLOW, "stalled", "stalls", 0, at_least=False),
        Target(
            _title(SLOW, "daebus"),
            "rate, of its own without them",
            0.95,
            True,
            lambda results: results.median(SLOW, "daebus", "own_share"),
        ),
        _worst(SLOW, "cut", "of the five cut", 5, at_least=True),
        _worst(SLOW, "growth_kib", "memory growth, MiB", 16, at_least=False, scale=1 / 1024),
    ]


def _connect_and_idle() -> list[Target]:
    return [
        _rate(CONNECT, 3.0, "websockets_sync"),
        _rate(CONNECT, 1.0, "websockets_asyncio"),
        _worst(IDLE, "pss_kib_each", "PSS of each, KiB", 36, at_least=False),
        _worst(IDLE, "threads_each", "threads of each", 1, at_least=False),
        _worst(IDLE, "descriptors_each", "descriptors of each", 1, at_least=False),
        _worst(IDLE, "idle_cpu_percent", "CPU while idle, % of a core", 0.5, at_least=False),
        _worst(MANY, "connected", "clients connected", 5000, at_least=True),
        _worst(MANY, "broadcast_s", "seconds until a broadcast reached all", 1, at_least=False),
        _worst(MANY, "goodbyes", "clients that got close code 1001", 5000, at_least=True),
        _worst(MANY, "stop_s", "seconds until stopped (timeout 10)", 10, at_least=False),
        _worst(MANY, "exit_code", "exit code", 0, at_least=False),
    ]


def _http() -> list[Target]:
    def times_best(results: Results) -> float | None:
        ratios = [
            results.ratio(GET, "rate", "daebus_http", other)
            for other in ("waitress", "cheroot", "gunicorn")
        ]
        return None if None in ratios else min(ratio for ratio in ratios if ratio is not None)

    return [
        Target(
            _title(GET, "daebus_http"),
            "rate, times the best of waitress, cheroot and gunicorn",
            1.0,
            True,
            times_best,
        ),
        _rate(GET, 5.0, "werkzeug", "daebus_http"),
        Target(
            _title(BESIDE, "daebus_http"),
            "rate, of its own without them",
            0.8,
            True,
            lambda results: results.median(BESIDE, "daebus_http", "own_share"),
        ),
    ]


def _cores() -> list[Target]:
    echo, fanout = CORES.format("echo", 100), CORES.format("fanout", 100)
    return [
        _rate(echo, 1.15, "aiohttp_newest", "daebus_nogil"),
        _rate(echo, 2.4, "daebus_newest", "daebus_nogil"),
        Target(
            _title(echo, "daebus_nogil"),
            "p99 latency, of daebus_newest",
            0.5,
            False,
            lambda r: r.ratio(echo, "p99_ms", "daebus_nogil", "daebus_newest"),
        ),
        Target(
            "two threads without sockets, without the GIL",
            "times one thread",
            1.9,
            True,
            lambda r: r.median(CORES.format("scale", 2), "scale_nogil", "speedup"),
        ),
        _rate(fanout, 0.9, "daebus_newest", "daebus_nogil"),
    ]


def _title(case: str, server: str) -> str:
    mode, clients, size, pinned = case.split("-")
    title = {
        "echo": "echo, {} clients",
        "fanout": "fan-out to {}",
        "slow": "fan-out to {} beside 5 clients that stopped reading",
        "connect": "connect, upgrade, echo, close; {} at a time",
        "idle": "{} idle clients",
        "many": "{} idle clients at once",
        "get": "GET on {} kept connections",
        "fresh": "GET on a new connection each, {} at a time",
        "beside": "GET beside {} slow clients",
    }[mode].format(f"{int(clients):,}")
    title = title.replace(" 1 clients", " 1 client")
    if size != "64":
        title += f", {int(size) // 1024} KiB"
    if pinned != "pinned":
        title += ", not pinned"
    return title + {
        "daebus_orjson": ", with orjson",
        "daebus_affinity": ", affinity=",
        "daebus_nogil": ", without the GIL",
    }.get(server, "")
