"""The generator against a real server process: the one of bare threads, which needs nothing."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import load, modes, wire
from benchmarks.cases import SERVERS, Case, quick
from benchmarks.client import Client, LoadError
from benchmarks.procs import ServerError, ServerProcess

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the benchmarks read Linux's /proc and use epoll"
)


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[modes.Setting]:
    server = SERVERS["raw_threads"]
    with ServerProcess(
        server.command, cpus=os.sched_getaffinity(0), environment={}, log=tmp_path / "log"
    ) as process:
        found = modes.Setting(process, wire.Dialect(server.dialect), stall_timeout=1.0)
        yield found
        found.close()


def _case(mode: str, **changes: object) -> Case:
    case = Case(mode, 5, ("raw_threads",), seconds=0.1)
    return dataclasses.replace(case, **changes)  # type: ignore[arg-type]


def test_echo_counts_every_client_and_the_servers_clock(setting: modes.Setting) -> None:
    result = modes.echo(setting, _case("echo"))
    assert result["messages"] > 5
    assert result["fairness"] > 0
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert 0 < result["cpu_us"] * result["messages"] < 1e6


def test_big_messages_arrive_in_pieces_and_are_counted_once(setting: modes.Setting) -> None:
    clients = setting.connect(2, 300_000)
    generator = load.Echo(clients)
    window = generator.run(0.2)
    assert window.messages == sum(window.counts) == len(window.latencies) > 0


def test_fanout_counts_deliveries(setting: modes.Setting) -> None:
    result = modes.fanout(setting, _case("fanout"))
    assert result["messages"] > 0
    assert result["messages"] % 5 == 0
    assert result["stalled"] is False


@pytest.mark.slow
def test_a_server_that_waits_for_slow_readers_is_seen_to_stall(setting: modes.Setting) -> None:
    result = modes.slow(setting, _case("slow", size=65536, seconds=1.0))
    assert result["stalled"] is True
    assert result["cut"] == 0


def test_connects_are_counted(setting: modes.Setting) -> None:
    assert modes.connect(setting, _case("connect"))["messages"] > 0


@pytest.mark.slow
def test_an_idle_client_of_bare_threads_is_one_thread_and_one_descriptor(
    setting: modes.Setting,
) -> None:
    result = modes.idle(setting, _case("idle", clients=20))
    assert result["threads_each"] == 1
    assert result["descriptors_each"] == 1


def test_another_clients_answer_is_an_error(setting: modes.Setting) -> None:
    one, other = setting.connect(2)
    one.request = other.request  # the server will answer with the other's number
    with pytest.raises(LoadError, match="wrong answer"):
        load.Echo([one]).run(5.0)


def test_a_lost_server_is_an_error(setting: modes.Setting) -> None:
    generator = load.Echo(setting.connect(2))
    setting.server.stop()
    with pytest.raises((LoadError, ConnectionError)):
        generator.run(5.0)


def test_a_server_that_ends_at_its_start_is_quoted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    with pytest.raises(ServerError, match="no such thing"):
        ServerProcess(command, cpus={0}, environment={}, log=tmp_path / "log")


def test_client_data_has_the_size_asked_for(setting: modes.Setting) -> None:
    client = Client(setting.server.port, setting.dialect, number=7, size=64)
    assert len(client.data) == 64
    assert client.ask("echo", client.data) == client.data
    client.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_smoke_run_measures_daebus_in_every_mode(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((ROOT / "benchmarks" / "results" / "quick.json").read_text())
    measured = {run["case"] for run in document["runs"] if run["server"].startswith("daebus")}
    assert measured == {case.name for case in quick()}
    assert "daebus" in (tmp_path / "benchmarks.rst").read_text()
