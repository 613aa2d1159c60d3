"""Topics that several apps share, on real servers."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daebus import Daebus, DaebusHttp, DaebusWebSocket
from daebus.backplane.redis.component import DaebusRedis, outbound_of
from daebus.backplane.store import DISORDER, REPEATED, Known, Write
from daebus.websocket.api.context import context_of
from daebus.websocket.topics.position import Position
from tests.support.redisserver import REDIS, VALKEY, RedisCluster, RedisServer
from tests.support.sharing import Reader
from tests.support.waiting import eventually

KINDS = pytest.mark.parametrize("kind", [VALKEY, REDIS], ids=lambda kind: kind.name)


class App:
    """An app with a topic and a state, that is joined to others."""

    def __init__(self, url: str, **options: Any) -> None:
        self.app = Daebus("shared")
        self.app.attach(DaebusHttp(port=0))
        self.app.attach(DaebusWebSocket())
        self.backplane = self.app.attach(DaebusRedis(url, **options))
        self.log = self.app.websocket.topic("log")
        self.now = self.app.websocket.state("now")
        self.devices = self.app.websocket.topic("device/*")

    def read(self, name: str = "log", **options: Any) -> Reader:
        return Reader(context_of(self.app.websocket).topics, name, **options)


@contextlib.contextmanager
def apps(url: str, count: int = 2, **options: Any) -> Iterator[list[App]]:
    with contextlib.ExitStack() as stack:
        made = [App(url, **options) for _ in range(count)]
        for one in made:
            stack.enter_context(one.app)
        yield made


def gets(reader: Reader, wanted: list[Any], timeout: float = 5.0) -> None:
    """Wait until a reader has got these data and reasons of gaps, in all."""
    got: list[Any] = []

    def read() -> bool:
        got.extend(reader.data())
        return len(got) >= len(wanted)

    eventually(read, timeout)
    assert got == wanted


@contextlib.contextmanager
def held_back(app: App) -> Iterator[None]:
    """Have what is sent to Redis wait until the end of the block."""
    begun, ended = threading.Event(), threading.Event()

    def hold(answer: Any) -> None:
        begun.set()
        ended.wait(5)

    outbound_of(app.backplane).command(("PING",), hold)
    try:
        assert begun.wait(5)
        yield
    finally:
        ended.set()


def same(made: list[App], check: Callable[[App], object]) -> bool:
    found = [check(one) for one in made]
    return all(one == found[0] for one in found)


@KINDS
def test_order_position_and_expiry(kind: Any) -> None:
    with RedisServer(kind) as server, apps(server.url) as (one, two):
        readers = [one.read(), two.read()]
        for number in range(200):
            (one, two)[number % 2].log.publish(number)
        assert eventually(lambda: two.log.offset == one.log.offset == 200)
        orders = [reader.data() for reader in readers]
        assert orders[0] == orders[1]
        assert sorted(orders[0]) == list(range(200))
        reader = two.read(since=Position(one.log.epoch, 150))
        assert reader.answer.recovered
        assert len(reader.data()) == 50

        one.now.update({"a": [1], "b": "ü|", "c|\n": None})
        one.now.set("short", 1, ttl=0.05)
        del one.now["a"]
        assert eventually(lambda: two.now.copy() == {"b": "ü|", "c|\n": None} == one.now.copy())
        two.devices["device/7"].publish("on", "switched")
        assert eventually(
            lambda: [each["data"] for each in one.read("device/7", last=5).read()] == ["on"]
        )
        with apps(server.url, 1) as (three,):
            assert dict(three.now) == dict(one.now)
            assert three.log.epoch == one.log.epoch
            assert three.read(since=Position(one.log.epoch, 199)).answer.recovered


@KINDS
def test_publications_that_wait_are_one_step(kind: Any) -> None:
    with RedisServer(kind) as server, apps(server.url, secret="s") as made:
        one, two = made
        readers = [one.read(), two.read()]
        server.command("CONFIG", "RESETSTAT")
        with held_back(one):
            for number in range(250):
                one.log.publish(number)
                if number == 120:
                    one.now["key"] = number
        for reader in readers:
            gets(reader, list(range(250)))
        assert eventually(lambda: same(made, lambda app: (app.log.offset, dict(app.now))))
        late = two.read(since=Position(one.log.epoch, 100))
        assert late.answer.recovered
        assert late.data() == list(range(100, 250))
        counts = dict(server.command("INFO", "commandstats"))
        assert counts["cmdstat_xadd"]["calls"] == 250
        assert counts["cmdstat_evalsha"]["calls"] < 20


@KINDS
def test_a_step_of_which_a_part_was_done(kind: Any) -> None:
    with RedisServer(kind) as server, apps(server.url, 1) as (one,):
        store = one.backplane.store
        assert store is not None
        answers: list[Any] = []

        def publish(*numbers: int, unknown: int = 0) -> list[Any]:
            with held_back(one):
                for number in numbers:
                    before = 0 if number == unknown else number - 1
                    frame = b"frame %d" % number
                    write = Write("other", Known("", 0), "writer", number, before, frame)
                    store.append(write, count=0, floor=0, life=None, done=answers.append)
            assert eventually(lambda: len(answers) == len(numbers))
            taken = answers.copy()
            answers.clear()
            return taken

        assert publish(1, unknown=1) == [1]
        assert publish(1, 2, 3, unknown=1) == [3, 3, 3]
        assert publish(2, 3) == [REPEATED, REPEATED]
        assert publish(5, 6) == [DISORDER, DISORDER]
        assert publish(4, 5, 6) == [6, 6, 6]
        store.load("other", "history", Known("", 0), count=10, done=answers.append)
        assert eventually(lambda: answers)
        kept = [(each.offset, each.frame) for each in answers[0].kept]
        assert kept == [(number, b"frame %d" % number) for number in range(1, 7)]


@KINDS
def test_a_server_that_forgets(kind: Any) -> None:
    """FLUSHALL; killed and started empty; started with an older dump."""
    with RedisServer(kind) as server, apps(server.url) as made:
        one, two = made

        def has_turned(before: tuple[str, str]) -> bool:
            return (
                same(made, lambda app: (app.log.epoch, app.now.epoch, dict(app.now)))
                and one.log.epoch != before[0]
                and one.now.epoch != before[1]
                and len(one.now) > 0
            )

        def has_values(values: dict[str, str]) -> bool:
            return one.now.copy() == values

        def is_beyond(offset: int | None) -> bool:
            return one.log.offset is not None and one.log.offset > (offset or 0)

        for how in ("flush", "empty", "older"):
            one.log.publish(f"{how} 1")
            one.now["how"] = how
            assert eventually(lambda: same(made, lambda app: (app.log.offset, dict(app.now))))
            if how == "older":
                server.command("SAVE")
            two.log.publish(f"{how} 2")
            two.now["more"] = how
            assert eventually(lambda: same(made, lambda app: (app.log.offset, dict(app.now))))
            reader, top = two.read(), one.log.offset
            before = one.log.epoch, one.now.epoch
            if how == "flush":
                server.command("FLUSHALL")
            else:
                server.kill()
                server.start()
            assert eventually(functools.partial(has_turned, before), 8)
            expected = {"how": how, "more": how}
            assert eventually(functools.partial(has_values, expected))
            late = two.read(since=Position(before[0], top))
            assert (late.answer.recovered, late.answer.reason) == (False, "epoch")
            one.log.publish("new")
            gets(reader, ["epoch", "new"])
            assert eventually(functools.partial(is_beyond, top))


@pytest.mark.slow
def test_a_failover_that_loses_the_last_changes() -> None:
    quick = {"repl-diskless-sync-delay": "0"}
    with (
        RedisServer(VALKEY, quick) as server,
        RedisServer(VALKEY, quick) as spare,
        apps(server.url) as made,
    ):
        one, two = made
        one.log.publish("kept")
        one.now["a"] = 1
        assert eventually(lambda: same(made, lambda app: (app.log.offset, dict(app.now))))
        spare.command("REPLICAOF", "127.0.0.1", server.port)
        assert eventually(lambda: _is_copied(spare))
        spare.command("REPLICAOF", "NO", "ONE")
        one.log.publish("lost")
        one.now["b"] = 2
        assert eventually(lambda: two.log.offset == 2 and "b" in two.now)
        reader, epoch = two.read(), one.log.epoch
        server.command("REPLICAOF", "127.0.0.1", spare.port)
        assert eventually(lambda: _is_copied(server))
        server.command("REPLICAOF", "NO", "ONE")
        one.log.publish("new")
        gets(reader, ["epoch", "new"])
        assert one.log.epoch != epoch
        one.now["c"] = 3
        assert eventually(lambda: dict(one.now) == dict(two.now) == {"a": 1, "b": 2, "c": 3})


def _is_copied(server: RedisServer) -> bool:
    info = server.command("INFO", "replication")
    return bool(info["master_link_status"] == "up")


@pytest.mark.slow
def test_an_outage_and_what_comes_after() -> None:
    with RedisServer(VALKEY) as server, apps(server.url, queue_age=0.5) as made:
        one, two = made
        one.log.publish("before")
        one.now["a"] = 1
        assert eventually(lambda: same(made, lambda app: (app.log.offset, dict(app.now))))
        readers = [one.read(), two.read()]
        server.kill()
        one.log.publish("during")
        gets(readers[0], ["backplane", "during"])
        gets(readers[1], ["backplane"])
        one.now["b"] = 2
        two.now["c"] = 3
        assert one.now["b"] == 2
        server.start()
        assert eventually(lambda: same(made, lambda app: (app.log.epoch, dict(app.now))), 8)
        assert dict(one.now) == {"a": 1, "b": 2, "c": 3}
        two.log.publish("after")
        for reader in readers:
            gets(reader, ["epoch", "after"])


@pytest.mark.slow
def test_a_server_that_refuses_writes() -> None:
    with RedisServer(VALKEY) as server, apps(server.url, queue_age=0.5) as made:
        one, two = made
        reader = one.read()
        server.command("CONFIG", "SET", "maxmemory", "1")
        one.log.publish("refused")
        gets(reader, ["backplane", "refused"])
        server.command("CONFIG", "SET", "maxmemory", "0")
        assert eventually(lambda: one.log.epoch == two.log.epoch, 8)
        two.log.publish("after")
        gets(reader, ["epoch", "after"])


@pytest.mark.slow
def test_connections_that_are_cut_all_the_time() -> None:
    with RedisServer(VALKEY) as server, apps(server.url) as (one, two):
        readers = [one.read(), two.read()]

        def is_here(count: int) -> bool:
            return one.log.offset == two.log.offset == count

        for number in range(300):
            (one, two)[number % 2].log.publish(number)
            if number % 60 == 30:
                server.command("CLIENT", "KILL", "TYPE", "pubsub")
            if number % 60 == 59:
                server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert eventually(functools.partial(is_here, number + 1), 8)
        orders = [reader.data() for reader in readers]
        assert orders[0] == orders[1]
        assert sorted(orders[0]) == list(range(300))


@pytest.mark.slow
def test_a_cluster() -> None:
    with RedisCluster() as cluster, apps(cluster.url, cluster=True) as made:
        one, two = made
        for number in range(40):
            (one, two)[number % 2].devices[f"device/{number % 8}"].publish(number)
            one.now[f"k{number % 3}"] = number
        names = [f"device/{number}" for number in range(8)]
        assert eventually(lambda: same(made, lambda app: dict(app.now)) and len(one.now) == 3)

        def histories(app: App) -> list[list[Any]]:
            return [[entry.data for entry in app.devices[name].history()] for name in names]

        assert eventually(
            lambda: same(made, histories) and len(one.devices[names[0]].history()) == 5
        )
        epoch = one.devices["device/1"].epoch
        cluster.move(_key(one, "device/1"))
        one.devices["device/1"].publish("moved")
        assert eventually(lambda: two.devices["device/1"].history(1)[0].data == "moved", 8)
        assert one.devices["device/1"].epoch == two.devices["device/1"].epoch == epoch


def _key(app: App, topic: str) -> str:
    node = context_of(app.app.websocket).node
    assert node is not None
    return node.names.key(node.names.partition(topic), "m", topic)


def test_a_policy_that_evicts_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    config = {"maxmemory-policy": "allkeys-lru"}
    with RedisServer(VALKEY, config) as server, apps(server.url, 1):
        assert eventually(lambda: "noeviction" in caplog.text)
