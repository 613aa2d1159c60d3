"""The HTTP modes: one app, served by daebus or as its guest by a peer, asked by wrk or by us."""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

from benchmarks import http_client
from benchmarks.cases import Case
from benchmarks.client import TIMEOUT, LoadError
from benchmarks.modes import Result, Setting
from benchmarks.procs import HOST

CONNECTIONS = 16  # of the generator beside slow clients, where the case counts those
WARMUP = 1  # seconds; wrk knows whole ones only

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}  # in milliseconds


def get(setting: Setting, case: Case) -> Result:
    """Requests a second on connections that are kept, where the server keeps them."""
    return _measure(setting.server.port, case, case.clients)


def fresh(setting: Setting, case: Case) -> Result:
    """Requests a second with a new connection for each."""
    return _measure(setting.server.port, case, case.clients, fresh=True)


def beside(setting: Setting, case: Case) -> Result:
    """Requests a second beside clients that send a byte of their head each second.

    Measured without them before and after, so that a drift of the machine weighs less.
    """
    port = setting.server.port
    before = _measure(port, case, CONNECTIONS)
    with _slow_clients(port, case.clients) as left:
        result = _measure(port, case, CONNECTIONS)
    after = _measure(port, case, CONNECTIONS)
    alone = (before["rate"] + after["rate"]) / 2
    return {**result, "own_share": result["rate"] / alone, "slow_left": left[0]}


MODES: dict[str, Callable[[Setting, Case], Result]] = {
    "get": get,
    "fresh": fresh,
    "beside": beside,
}


def client() -> str:
    """Return which client asks, for the report."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return "our own, in Python: it may be the limit"
    # It prints its version and its usage, and fails for lack of an address.
    said = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
    return said.partition("[")[0].strip()


def parse_wrk(output: str) -> Result:
    """Read the figures of ``wrk --latency``.

    Raises:
        LoadError: there was an answer other than 2xx, or no figure at all.
    """
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if wrong:
        raise LoadError(f"{wrong[1]} answers were no 200")
    counted = re.search(r"(\d+) requests in ", output)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
    if counted is None or rate is None:
        raise LoadError(f"wrk says: {output.strip()[-200:]}")
    result: Result = {"messages": int(counted[1]), "rate": float(rate[1])}
    for share, key in (("50", "p50_ms"), ("99", "p99_ms")):
        found = re.search(rf"^\s+{share}(?:\.\d+)?%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
        if found and result["messages"]:
            result[key] = float(found[1]) * _UNITS[found[2]]
    failed = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    result["failures"] = sum(map(int, failed.groups())) if failed else 0
    return result


def _measure(port: int, case: Case, connections: int, *, fresh: bool = False) -> Result:
    path = f"/data/{case.size}"
    _check(port, path, case.size)
    wrk = shutil.which("wrk")
    if wrk is None:
        http_client.run(port, path, connections, WARMUP, fresh=fresh)
        return http_client.run(port, path, connections, case.seconds, fresh=fresh)
    command = [wrk, "--threads", "1", "--connections", str(connections), "--latency"]
    if fresh:
        command += ["--header", "Connection: close"]
    output = ""
    for seconds in (WARMUP, max(1, round(case.seconds))):
        output = subprocess.run(
            [*command, "--duration", str(seconds), f"http://{HOST}:{port}{path}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + TIMEOUT,
        ).stdout
    return parse_wrk(output)


def _check(port: int, path: str, size: int) -> None:
    """Ask once and compare the answer with the right one; wrk does not.

    A server that is busy with slow clients may not answer in time: that is for the
    measure to show.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", path)
        body = connection.getresponse().read()
    except TimeoutError:
        return
    finally:
        connection.close()
    if json.loads(body) != {"data": "x" * size}:
        raise LoadError(f"wrong answer: {body!r:.200}")


@contextlib.contextmanager
def _slow_clients(port: int, number: int) -> Iterator[list[int]]:
    """Have slow clients around; how many the server kept is in the list afterwards."""
    left: list[int] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drip", str(port), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise LoadError("the slow clients did not get their connections")
        yield left
        left.append(int(process.communicate(timeout=TIMEOUT)[0]))
    finally:
        process.kill()
        process.communicate()
