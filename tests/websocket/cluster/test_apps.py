"""Apps that are joined: attaching, health, counts, hooks, start and stop."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from daebus import (
    AttachError,
    Backplane,
    BackplaneError,
    BackplaneInfo,
    Blueprint,
    Daebus,
    DaebusHttp,
    DaebusWebSocket,
    MemoryBackplane,
)
from daebus.websocket.api.context import context_of
from daebus.websocket.cluster import node as nodes
from daebus.websocket.topics.shared.histories import HistoryCopy
from tests.support.held import holding
from tests.support.waiting import eventually


def make(backplane: Backplane, name: str = "boiler") -> Daebus:
    app = Daebus(name)
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    assert app.attach(backplane) is backplane
    return app


def health(app: Daebus) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{app.http.port}/_daebus/health"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def test_each_app_needs_a_backplane_of_its_own() -> None:
    backplane = MemoryBackplane(node="one")
    first = make(backplane)
    with pytest.raises(AttachError, match="joins another app already; make one for each app"):
        make(backplane)
    with first:
        assert first.stats()["backplane"]["up"]


def test_who_divides_rooms_in_another_way_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    first = MemoryBackplane(node="one", partitions=1)
    with make(first) as one, make(MemoryBackplane(first, node="two", partitions=4)) as two:
        assert eventually(lambda: caplog.text.count("give all nodes the same partitions=") == 2)
        assert two.stats()["backplane"]["nodes"] == one.stats()["backplane"]["nodes"] == 2


def test_a_slow_hook_does_not_hold_the_threads_of_a_backplane() -> None:
    app = make(MemoryBackplane(node="one"))
    entered, leave = threading.Event(), threading.Event()

    @app.websocket.on_backplane
    def slow(event: str, info: BackplaneInfo) -> None:
        entered.set()
        leave.wait(10)

    app.start()
    assert entered.wait(5)
    left = app.stop(timeout=0.5)
    leave.set()
    assert [thread.partition("-")[2].rpartition("-")[0] for thread in left] == ["hook"]


def test_apps_meet_and_part() -> None:
    first = MemoryBackplane(node="one")
    one, two = make(first), make(MemoryBackplane(first, node="two"))
    told = queue.Queue[tuple[str, str, str]]()
    one.websocket.on_backplane(lambda event, info: told.put((event, info.node, info.reason)))

    for _ in range(2):
        with one:
            assert told.get(timeout=5) == ("up", "one", "")
            with two:
                assert two.stats()["backplane"]["nodes"] == 2
                assert told.get(timeout=5) == ("node_up", "two", "")
                assert one.stats()["backplane"] == {
                    "up": True,
                    "nodes": 2,
                    "missed": 0,
                    "lost_out": 0,
                    "deaf_resets": 0,
                    "unsigned": 0,
                    "reconnects": 0,
                    "queued_bytes": 0,
                }
            assert told.get(timeout=5) == ("node_down", "two", "bye")
            assert one.stats()["backplane"]["nodes"] == 1
        assert not any(one.stats()["backplane"].values())
    assert "backplane" not in Daebus("alone").stats()


def test_apps_of_other_names_are_not_met() -> None:
    first = MemoryBackplane()
    third = MemoryBackplane(first, "boiler")
    one, two, three = make(first), make(MemoryBackplane(first), "pump"), make(third, "pump")

    with one, two, three:
        assert three.stats()["backplane"]["nodes"] == 2
        assert eventually(lambda: one.stats()["backplane"]["nodes"] == 2)
        assert two.stats()["backplane"]["nodes"] == 1


@pytest.mark.parametrize("required", [False, True])
def test_health_and_hooks_tell_of_an_outage(required: bool) -> None:
    backplane = MemoryBackplane(node_timeout=2, required=required)
    app = make(backplane)
    told = queue.Queue[str]()
    part = Blueprint("part")

    @part.on_backplane
    async def tell(event: str, info: BackplaneInfo) -> None:
        assert info.node
        told.put(event)

    app.register(part)
    with app:
        assert told.get(timeout=5) == "up"
        assert health(app) == (200, {"status": "ok", "backplane": "up"})
        backplane.cut()
        if required:
            assert health(app) == (503, {"status": "down", "backplane": "down"})
        else:
            assert health(app) == (200, {"status": "ok", "backplane": "down"})
        assert told.get(timeout=5) == "down"
        backplane.restore()
        assert told.get(timeout=5) == "up"
        assert health(app)[0] == 200


def test_app_starts_without_its_backplane_and_joins_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "CONNECT", 0.01)
    backplane = MemoryBackplane()
    backplane.cut()
    with make(backplane) as app:
        assert not app.stats()["backplane"]["up"]
        backplane.restore()
        assert eventually(lambda: app.stats()["backplane"]["up"])


def test_backplane_that_is_required_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "REQUIRED", 0.05)
    backplane = MemoryBackplane(required=True)
    app = make(backplane)
    backplane.cut()
    with pytest.raises(BackplaneError, match=r"<MemoryBackplane down> is required, and is not"):
        app.start()
    backplane.restore()
    with app:
        assert health(app)[0] == 200


def test_hook_that_hangs_delays_those_that_follow_only(caplog: pytest.LogCaptureFixture) -> None:
    first = MemoryBackplane(node="one")
    one, two = make(first), make(MemoryBackplane(first, node="two"))
    told, go_on = queue.Queue[str](), queue.Queue[None]()

    @one.on_backplane
    def slow(event: str) -> None:
        go_on.get(timeout=5)
        told.put(event)
        raise RuntimeError("hook")

    with one:
        with two:
            assert one.stats()["backplane"]["nodes"] == 2
        for _ in range(3):
            go_on.put(None)
        assert [told.get(timeout=5) for _ in range(3)] == ["up", "node_up", "node_down"]
    assert "on_backplane hook failed for 'up'" in caplog.messages


def test_mistakes_in_attaching() -> None:
    app = Daebus("boiler")
    app.attach(DaebusHttp(port=0))
    with pytest.raises(AttachError, match=r"attach that first: app\.attach\(DaebusWebSocket\(\)\)"):
        app.attach(MemoryBackplane())
    app.attach(DaebusWebSocket())
    app.attach(MemoryBackplane())
    with pytest.raises(AttachError, match="a backplane is attached already: <MemoryBackplane"):
        app.attach(MemoryBackplane())
    with pytest.raises(TypeError, match="an on_backplane hook"):
        app.on_backplane(lambda: None)  # type: ignore[type-var]  # that is the mistake


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"node": "my node"}, r"1 to 32 of A-Z a-z 0-9 _ -, not 'my node'; write node='web-1'"),
        ({"node": "x" * 33}, "1 to 32"),
        ({"node_timeout": 1.0}, "node_timeout must be at least 2 seconds, not 1.0"),
        ({"node_timeout": float("nan")}, "node_timeout must be a number"),
        ({"max_frame": 10}, "max_frame must be at least 1024 bytes, not 10"),
        ({"secret": ""}, "secret is empty; write secret=os.environ"),
        ({"name": ""}, "name is empty; leave it out"),
        ({"partitions": 0}, "partitions must be greater than 0"),
    ],
)
def test_mistakes_in_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MemoryBackplane(**options)


def test_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(MemoryBackplane(secret="s3cret").options)


def test_who_was_interrupted_within_a_backplane_waits_for_no_sender() -> None:
    """Another thread has the lock of the numbers, and waits for the backplane."""
    backplane = MemoryBackplane(node="one")
    with make(backplane) as app:
        node = context_of(app.websocket).node
        assert node is not None
        numbers = node._life.outgoing._lock
        sender = threading.Thread(target=lambda: node.post("room", "floor 3", b"{}"), daemon=True)
        done = threading.Event()

        def interrupting() -> None:
            sender.start()
            assert eventually(numbers.locked)
            app.websocket.broadcast_to_all("alarm")
            done.set()

        within = threading.Thread(target=holding(backplane, "_lock", interrupting), daemon=True)
        within.start()
        assert done.wait(5)
        within.join(5)
        sender.join(5)
        assert not sender.is_alive()


def test_a_stop_comes_while_the_program_uses_another_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make(MemoryBackplane(node="one"))
    devices = app.websocket.topic("device/*")
    for number in range(3):
        devices[f"device/{number}"].publish(number)
    app.start()
    numbers = itertools.count(10)
    is_busy = HistoryCopy.busy.fget  # type: ignore[attr-defined]  # a property

    def busy(copy: HistoryCopy) -> bool:
        number = next(numbers)
        if number < 20:
            devices[f"device/{number}"].publish(number)
        return bool(is_busy(copy))

    monkeypatch.setattr(HistoryCopy, "busy", property(busy))
    assert app.stop(timeout=5) == []
    assert next(numbers) > 10  # it has come by
