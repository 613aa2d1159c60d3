"""Topics over the end of the program, as the program and its clients see it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daebus import Daebus, PersistError, State, Topic
from daebus.testing import AppClient
from tests.support.child import Child
from tests.support.disks import fill
from tests.support.fixture_types import MakeApp
from tests.support.keeping import rows
from tests.support.waiting import eventually

MakeChild = Callable[..., Child]

NAMES = "SELECT name FROM topics ORDER BY name"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "topics.db"


def files(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


def declare(app: Daebus, path: Path) -> tuple[Topic, State, Topic]:
    websocket = app.websocket
    return (
        websocket.topic("alarms", persist=path),
        websocket.state("boiler", persist=str(path)),
        websocket.topic("device/*", persist=path),
    )


def subscribe(client: AppClient, topic: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.request("subscribe", {"topic": topic, **more}, timeout=5)
    return answer


def position(answer: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": answer["epoch"], "offset": answer["offset"]}


def test_clients_resume_over_a_clean_restart(make_app: MakeApp, path: Path) -> None:
    app = make_app()
    alarms, boiler, devices = declare(app, path)
    alarms.publish("before the start")
    app.start()
    with app.test_client() as client:
        boiler.update({"celsius": 21.4, "pump": True, "old": 1})
        boiler.set("brief", 1, ttl=0.001)
        boiler.set("lasting", 1, ttl=1000.0)
        devices["device/7"].publish({"volts": 5})
        alarms.publish({"text": "pressure"}, "alarm")
        stood = {name: position(subscribe(client, name)) for name in ("alarms", "boiler")}
        stood["device/7"] = position(subscribe(client, "device/7"))
        subscribe(client, "device/made up")
    alarms.publish("while nobody is there", "alarm")
    devices["device/7"].publish({"volts": 6})
    boiler["celsius"] = 22
    del boiler["old"]
    app.stop()
    assert files(path) == ["topics.db"]
    assert rows(path, NAMES) == ["alarms", "boiler", "device/7"]

    app = make_app()
    again, state, family = declare(app, path)
    again.publish("before the second start")
    with app.test_client() as client:
        answer = subscribe(client, "alarms", since=stood["alarms"])
        assert (answer["recovered"], answer["replay"], answer["missed"]) == (True, 2, 0)
        texts = [client.receive(timeout=5)["data"] for _ in range(2)]
        assert texts == ["while nobody is there", "before the second start"]
        assert subscribe(client, "device/7", since=stood["device/7"])["replay"] == 1
        assert client.receive(timeout=5)["data"] == {"volts": 6}
        answer = subscribe(client, "boiler", since=stood["boiler"])
        assert answer["epoch"] == stood["boiler"]["epoch"]
        data = client.receive("state", timeout=5)["data"]
        assert data["snapshot"]  # what was removed meanwhile is not kept
        assert data["set"] == {"celsius": 22, "pump": True, "lasting": 1}
        assert [(one.offset, one.message_type) for one in again.history()] == [
            (1, "message"),
            (2, "alarm"),
            (3, "alarm"),
            (4, "message"),
        ]
        assert (again.epoch, state.epoch) == (alarms.epoch, boiler.epoch)
        assert family["device/7"].epoch == devices["device/7"].epoch
        stats = app.websocket.stats()["topics"]
        assert {name: one["persist_error"] for name, one in stats.items()} == dict.fromkeys(
            ["alarms", "boiler", "device/7"]
        )


PREAMBLE = """
import os, sys
from daebus import Daebus, DaebusHttp, DaebusWebSocket
app = Daebus("child")
app.attach(DaebusHttp(port=0))
app.attach(DaebusWebSocket())
path = {path!r}
alarms = app.websocket.topic("alarms", persist=path)
"""


def start(child: MakeChild, path: Path, code: str) -> Child:
    return child(code, preamble=PREAMBLE.format(path=str(path)))


@pytest.mark.slow
def test_clients_are_told_of_a_crash(make_app: MakeApp, path: Path, child: MakeChild) -> None:
    process = start(
        child,
        path,
        """
        app.start()
        print("port", app.http.port, flush=True)
        number = 0
        while True:
            number += 1
            alarms.publish(number)
        """,
    )
    port = process.port()
    assert port
    assert eventually(lambda: len(rows(path)) >= 1000, 15)
    process.process.kill()
    process.exit_code()
    (epoch, top), *_ = rows(path, "SELECT epoch, top FROM topics")

    app = make_app()
    alarms = app.websocket.topic("alarms", persist=path)
    with app.test_client() as client:
        since = {"epoch": epoch, "offset": top}
        answer = subscribe(client, "alarms", since=since, last=3)
        assert (answer["recovered"], answer["reason"], answer["missed"]) == (False, "epoch", None)
        assert answer["epoch"] == alarms.epoch != epoch
        assert answer["offset"] == top
        assert [client.receive(timeout=5)["data"] for _ in range(3)] == [top - 2, top - 1, top]
        alarms.publish("and on")
        assert client.receive(timeout=5)["offset"] == top + 1


def test_restart_within_a_process_goes_on_with_what_it_has(app: Daebus, path: Path) -> None:
    alarms, boiler, devices = declare(app, path)
    app.start()
    alarms.publish(1)
    boiler.update(a=1, b=2)
    devices["device/7"].publish(2)
    epochs = (alarms.epoch, boiler.epoch, devices["device/7"].epoch)
    app.stop()
    alarms.publish("between")
    del boiler["a"]
    app.start()
    alarms.publish("again")
    assert (alarms.epoch, boiler.epoch, devices["device/7"].epoch) == epochs
    assert [one.data for one in alarms.history()] == [1, "between", "again"]
    assert dict(boiler) == {"b": 2}
    app.stop()

    assert rows(path, "SELECT data FROM messages ORDER BY topic, offset") == [
        *(b"1", b'"between"', b'"again"'),
        b"2",
    ]
    assert rows(path, 'SELECT key FROM "values"') == ["b"]


def test_file_that_others_wrote_between_two_starts_of_a_process_is_refused(
    app: Daebus, make_app: MakeApp, path: Path
) -> None:
    alarms, *_ = declare(app, path)
    app.start()
    alarms.publish(1)
    app.stop()
    other = make_app()
    declare(other, path)[0].publish(2)
    other.start()
    other.stop()

    with pytest.raises(PersistError, match="was written by another process since the app stopped"):
        app.start()
    assert not app.running
    assert rows(path) == [b"1", b"2"]
    assert files(path)[0] == "topics.db"


def test_start_that_fails_can_be_tried_again(app: Daebus, path: Path, taken: int) -> None:
    alarms, *_ = declare(app, path)
    app.start()
    alarms.publish(1)
    app.stop()
    epoch = alarms.epoch
    with pytest.raises(OSError, match=str(taken)):
        app.start(port=taken)
    assert eventually(lambda: files(path) == ["topics.db"])
    path.rename(path.with_name("away"))
    path.write_bytes(b"dear diary" * 100)
    with pytest.raises(PersistError, match="move it away"):
        app.start()
    path.unlink()
    path.with_name("away").rename(path)
    app.start()
    assert alarms.epoch == epoch
    alarms.publish(2)
    app.stop()
    assert rows(path) == [b"1", b"2"]


def test_topics_may_be_declared_while_the_app_runs(
    app: Daebus, make_app: MakeApp, path: Path
) -> None:
    with app.test_client():
        alarms, boiler, devices = declare(app, path)
        alarms.publish(1)
        devices["device/1"].publish(1)
        assert eventually(lambda: rows(path) == [b"1", b"1"])
    app.stop()
    epochs = (alarms.epoch, boiler.epoch, devices["device/1"].epoch)
    later = make_app()
    other = later.websocket.topic("other", persist=path)
    with later.test_client():
        other.publish(2)
        alarms, boiler, devices = declare(later, path)
        assert [one.data for one in alarms.history()] == [1]
        assert (alarms.epoch, boiler.epoch) == epochs[:2]
        with pytest.raises(PersistError, match="there is no folder"):
            later.websocket.topic("lost", persist=path.parent / "nowhere" / "topics.db")


def test_member_of_a_family_without_messages_leaves_the_file(
    app: Daebus, make_app: MakeApp, path: Path
) -> None:
    devices = app.websocket.topic("device/*", persist=path, max_age=0.001)
    app.start()
    for number in range(3):
        devices[f"device/{number}"].publish(number)
    app.stop()
    assert len(rows(path, NAMES)) == 3
    again = make_app()
    again.websocket.topic("device/*", persist=path, max_age=0.001)
    again.start()
    again.stop()
    third = make_app()
    third.websocket.topic("device/*", persist=path, max_age=0.001)
    third.start()
    third.stop()
    assert rows(path, NAMES) == []


@pytest.mark.slow
def test_second_process_is_told_who_has_the_file(path: Path, child: MakeChild) -> None:
    first = start(child, path, "app.start(); print('up', flush=True); sys.stdin.read(); app.stop()")
    first.line()
    second = start(
        child,
        path,
        """
        import daebus.websocket.topics.persistence.keeper as keeper
        keeper.Keeper.open.__defaults__ = (0.1,)
        try:
            app.start()
        except Exception as exc:
            print(type(exc).__name__, exc, flush=True)
        """,
    )
    line = second.line()
    assert re.search(rf"^PersistError .* is in use by process {first.process.pid};", line), line
    assert first.process.stdin is not None
    first.process.stdin.close()
    assert first.exit_code() == 0, first.stderr()
    assert files(path) == ["topics.db"]


@pytest.mark.slow
def test_forked_child_leaves_the_file_alone(path: Path, child: MakeChild) -> None:
    process = start(
        child,
        path,
        """
        app.start()
        alarms.publish(1)
        pid = os.fork()
        if pid == 0:
            try:
                alarms.publish("in the child")
            except Exception as exc:
                print(type(exc).__name__, flush=True)
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        alarms.publish(2)
        app.stop()
        print("stopped", flush=True)
        """,
    )
    assert process.line() == "ForkedError"
    assert process.line() == "stopped"
    assert process.exit_code() == 0, process.stderr()
    assert files(path) == ["topics.db"]
    assert rows(path) == [b"1", b"2"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT clean FROM topics").fetchone() == (1,)
    connection.close()


@pytest.mark.slow
def test_app_that_keeps_nothing_imports_no_database(child: MakeChild) -> None:
    process = child(
        """
        app.websocket.topic("alarms").publish(1)
        app.start()
        app.stop()
        print("sqlite3" in sys.modules, flush=True)
        """
    )
    assert process.line() == "False"


def test_path_is_that_of_the_moment(app: Daebus, tmp_path: Path) -> None:
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        app.websocket.topic("alarms", persist="topics.db").publish(1)
    finally:
        os.chdir(before)
    app.start()
    app.stop()
    assert rows(tmp_path / "topics.db") == [b"1"]
    with pytest.raises(ValueError, match="persist is an empty path; write persist="):
        app.websocket.topic("other", persist="")


def test_disk_that_is_full_shows_in_the_stats(app: Daebus, disk: Path) -> None:
    alarms = app.websocket.topic("alarms", persist=disk / "topics.db")
    with app.test_client() as client:
        subscribe(client, "alarms")
        alarms.publish(1)
        assert eventually(lambda: rows(disk / "topics.db") == [b"1"])
        ballast = fill(disk)
        for number in range(40):
            alarms.publish([number, "x" * 20_000])
        assert [client.receive(timeout=5)["offset"] for _ in range(41)][-1] == 41

        def problem() -> Any:
            return app.websocket.stats()["topics"]["alarms"]["persist_error"]

        assert eventually(problem)
        assert "full" in problem()
        ballast.unlink()
        assert eventually(lambda: problem() is None)
    app.stop()
    assert len(rows(disk / "topics.db")) == 41
