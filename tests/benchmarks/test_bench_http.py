"""The HTTP part: what wrk says, our own client, slow clients, and a server process."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import http, http_client, modes, wire
from benchmarks.cases import SERVERS, Case
from benchmarks.client import LoadError
from benchmarks.procs import ServerProcess
from benchmarks.results import Results
from benchmarks.targets import GET, all_targets
from daebus import Daebus
from tests.support.fixture_types import MakeApp

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the benchmarks read Linux's /proc"
)

WRK = """\
Running 2s test @ http://127.0.0.1:8080/data/64
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.26ms    1.75ms  19.89ms   88.46%
    Req/Sec     7.43k     1.21k    9.09k    75.00%
  Latency Distribution
     50%  950.00us
     75%    2.66ms
     90%    3.90ms
     99%    1.20s
  14796 requests in 2.00s, 3.09MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
Requests/sec:   7388.12
Transfer/sec:      1.54MB
"""


def test_figures_of_wrk() -> None:
    assert http.parse_wrk(WRK) == pytest.approx(
        {"messages": 14796, "rate": 7388.12, "p50_ms": 0.95, "p99_ms": 1200.0, "failures": 3}
    )


def test_no_answer_at_all_is_a_rate_of_nothing() -> None:
    text = "  0 requests in 2.00s, 0.00B read\nRequests/sec:      0.00\n     50%    0.00us\n"
    assert http.parse_wrk(text) == {"messages": 0, "rate": 0.0, "failures": 0}


@pytest.mark.parametrize(
    "text", ["", "unable to connect", WRK + "  Non-2xx or 3xx responses: 14796\n"]
)
def test_what_wrk_did_not_measure_is_an_error(text: str) -> None:
    with pytest.raises(LoadError):
        http.parse_wrk(text)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", None),
        (HEAD, None),
        (HEAD + b"\r\na", None),
        (HEAD + b"\r\nab", False),
        (HEAD + b"Connection: close\r\n\r\nab", True),
        (HEAD.replace(b"1.1", b"1.0") + b"\r\nab", True),
    ],
)
def test_when_an_answer_and_its_connection_end(answer: bytes, expected: bool | None) -> None:
    assert http_client.ends(answer) is expected


@pytest.mark.parametrize(
    "answer",
    [HEAD + b"\r\nabc", HEAD.replace(b"200", b"503") + b"\r\nab", b"HTTP/1.1 200 OK\r\n\r\n"],
)
def test_another_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(LoadError, match="wrong answer"):
        http_client.ends(answer)


def site(make_app: MakeApp, **options: Any) -> Daebus:
    app = make_app(http=options)
    app.route("/data/<int:size>")(lambda req, size: {"data": "x" * size})
    app.start()
    return app


@pytest.mark.parametrize("fresh", [False, True])
def test_own_client_counts_answers(make_app: MakeApp, fresh: bool) -> None:
    app = site(make_app)
    result = http_client.run(app.http.port, "/data/70000", 3, 0.5, fresh=fresh)
    assert result["messages"] > 0
    assert result["rate"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert result["failures"] == 0


def test_own_client_comes_back_after_a_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in (b"", HEAD + b"Connection: close\r\n\r\nab") * 2:
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(answer)
            listener.accept()[0].close()  # the client may be there once more

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = http_client.run(listener.getsockname()[1], "/", 1, 0.2, fresh=False)
    assert result["messages"] == 2
    assert result["failures"] >= 2


@pytest.mark.parametrize(("head_timeout", "kept"), [(60, True), (0.05, False)])
def test_slow_clients_are_counted(make_app: MakeApp, head_timeout: float, kept: bool) -> None:
    app = site(make_app, head_timeout=head_timeout)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drip", str(app.http.port), "20"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if not kept:  # one of ours is sent away when its time is over, and so are they
        with socket.create_connection(("127.0.0.1", app.http.port), timeout=5) as sock:
            sock.sendall(b"G")
            assert sock.recv(65536).startswith(b"HTTP/1.1 408")
    assert process.communicate(timeout=20)[0] == f"{20 if kept else 0}\n"


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[modes.Setting]:
    """A server process of the benchmark, asked by our own client, whose windows may be short."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(http, "WARMUP", 0.05)
    server = SERVERS["daebus_http"]
    with ServerProcess(
        server.command, cpus=os.sched_getaffinity(0), environment={}, log=tmp_path / "log"
    ) as process:
        yield modes.Setting(process, wire.Dialect(server.dialect))


@pytest.mark.slow
def test_every_mode_measures_a_server(setting: modes.Setting) -> None:
    for mode in ("get", "fresh"):
        case = Case(mode, 4, ("daebus_http",), size=1000, seconds=0.1)
        result = http.MODES[mode](setting, case)
        assert result["messages"] > 4
        assert result["failures"] == 0
    case = Case("beside", 30, ("daebus_http",), seconds=0.1)
    result = http.MODES["beside"](setting, case)
    assert result["slow_left"] == 30
    assert result["own_share"] > 0


def test_a_wrong_site_is_noticed(setting: modes.Setting) -> None:
    with pytest.raises(LoadError, match="wrong answer"):
        http._check(setting.server.port, "/data/7", 8)


def test_best_of_the_peers_is_the_one_that_counts() -> None:
    rates = {"daebus_http": 90.0, "waitress": 60.0, "cheroot": 100.0, "gunicorn": 45.0}
    runs = [
        {"case": GET, "server": server, "round": 0, "error": None, "result": {"rate": rate}}
        for server, rate in rates.items()
    ]
    document: dict[str, Any] = {
        "machine": {}, "seconds": 1.0, "skipped": {}, "cases": {GET: {}}, "runs": runs,
    }  # fmt: skip
    (target,) = [t for t in all_targets() if "best of" in t.figure]
    assert target.value(Results(document)) == 0.9
    document["runs"] = runs[:-1]
    assert target.value(Results(document)) is None
