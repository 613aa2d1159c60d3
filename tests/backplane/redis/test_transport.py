"""Frames and commands between two processes' ends, over each kind of server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daebus.backplane.redis.component import outbound_of
from daebus.errors import BackplaneError
from tests.support.ends import End
from tests.support.redisserver import DEBIAN, REDIS, VALKEY, Kind, RedisServer

COUNT = 500


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[Kind, RedisServer]]:
    made: dict[Kind, RedisServer] = {}
    yield made
    for server in made.values():
        server.close()


@pytest.fixture(params=[VALKEY, REDIS, DEBIAN], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest, servers: dict[Kind, RedisServer]) -> RedisServer:
    """One server of each kind, which keeps nothing from test to test."""
    kind: Kind = request.param
    if kind not in servers:
        server = servers[kind] = RedisServer(kind, unix=True)
        server.start()
    servers[kind].command("FLUSHALL")
    return servers[kind]


@pytest.fixture
def valkey(servers: dict[Kind, RedisServer]) -> RedisServer:
    if VALKEY not in servers:
        servers[VALKEY] = RedisServer(VALKEY, unix=True)
        servers[VALKEY].start()
    servers[VALKEY].command("FLUSHALL")
    return servers[VALKEY]


def test_frames_arrive_in_their_order(server: RedisServer) -> None:
    with End(server.url) as one, End(server.unix_url, listens=True) as other:
        one.ready()
        other.ready()
        one.publish(range(COUNT))

        assert other.wait(lambda: len(other.came) == COUNT)
        assert other.frames() == [b"%d" % number for number in range(COUNT)]
        assert one.came == []
        assert one.backplane.counters() == {"lost_out": 0, "reconnects": 0, "queued_bytes": 0}
        assert "up" in repr(one.backplane)


def test_channels_come_and_go(valkey: RedisServer) -> None:
    with End(valkey.url) as one, End(valkey.url, listens=True) as other:
        one.ready()
        other.ready()
        mine = other.names.node("b")
        assert not other.backplane.subscribed(mine, 0.0)
        other.backplane.subscribe(mine)
        assert other.backplane.subscribed(mine, 5.0)
        one.backplane.publish(mine, b"0")
        assert other.wait(lambda: (mine, b"0") in other.came)

        other.backplane.unsubscribe(mine)
        assert other.wait(lambda: not other.backplane.subscribed(mine, 0.0))
        one.backplane.publish(mine, b"1")
        one.publish([2])
        assert other.wait(lambda: other.frames() == [b"2"])
        assert (mine, b"1") not in other.came


def test_leases_are_told_and_end(server: RedisServer) -> None:
    told: list[object] = []
    with End(server.url) as end:
        backplane = end.ready().backplane
        backplane.claim("a", b"first", 10.0, told.append)
        backplane.claim("a", b"second", 10.0, told.append)
        backplane.lease("b", b"other", 10.0)
        backplane.lease("c", b"short", 0.001)
        assert end.wait(lambda: server.command("EXISTS", end.names.lease("c")) == 0)
        backplane.leases(told.append)
        assert end.wait(lambda: len(told) == 3)
        backplane.lease("a", b"", 0.0)
        backplane.leases(told.append)
        assert end.wait(lambda: len(told) == 4)
        backplane.lease("b", b"", 0.0)
        backplane.leases(told.append)
        assert end.wait(lambda: len(told) == 5)

    first: set[object] = {None, b"first"}
    assert set(told[:2]) == first
    assert told[2:] == [{"a": b"first", "b": b"other"}, {"b": b"other"}, {}]
    assert server.command("KEYS", "d:test:node*") == []


def test_names_of_nodes_that_died_are_forgotten(valkey: RedisServer) -> None:
    with End(valkey.url) as end:
        backplane = end.ready().backplane
        every = end.names.lease("")
        valkey.command("SADD", every, "dead")
        for _ in range(60):
            backplane.lease("alive", b"1", 10.0)
        assert end.wait(lambda: valkey.command("SMEMBERS", every) in ({b"alive"}, [b"alive"]))
        assert valkey.command("TTL", every) > 60


def test_commands_and_scripts_are_answered_in_turn(server: RedisServer) -> None:
    told: list[object] = []
    with End(server.url) as end:
        outbound = outbound_of(end.ready().backplane)
        outbound.script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
        outbound.evaluate("add", ("n",), (2,), told.append)
        assert end.command("SCRIPT", "FLUSH") == b"OK"
        outbound.evaluate("add", ("n",), (3,), told.append)
        assert end.wait(lambda: len(told) == 2)
        outbound.command(("INCR", "n", "too much"), told.append)
        outbound.command(("GET", "n"), told.append)
        assert end.wait(lambda: len(told) == 4)

    assert [value for value in told if not isinstance(value, Exception)] == [2, 5, b"5"]
    assert "wrong number of arguments" in str(told[2])


def test_each_new_connection_is_asked_first(valkey: RedisServer) -> None:
    runs: list[bytes] = []
    with End(valkey.url) as end:
        outbound = outbound_of(end.backplane)
        outbound.on_connect.append(lambda ask: runs.append(ask("INFO", "server")))
        valkey.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert end.command("PING") == b"PONG"
        assert end.wait(lambda: len(runs) >= 1)
    assert b"run_id:" in runs[0]


def test_what_is_kept_waits_for_the_flush_and_beats_overtake_it(valkey: RedisServer) -> None:
    with End(valkey.url, flushes=False) as one, End(valkey.url, listens=True) as other:
        one.ready()
        other.ready()
        one.publish([1, 2])
        assert one.backplane.publish(one.channel, b"0", keep=False)
        assert other.wait(lambda: other.frames() == [b"0"])
        assert one.backplane.counters()["queued_bytes"] > 0
        one.backplane.flush()
        assert other.wait(lambda: other.frames() == [b"0", b"1", b"2"])
        assert not one.backplane.publish("elsewhere", b"", keep=False) or one.backplane.up


def test_what_waits_is_bounded_in_bytes_and_the_oldest_goes_first(valkey: RedisServer) -> None:
    frame = b"x" * 10_000
    with End(valkey.url, listens=True) as other:
        other.ready()
        with End(valkey.url, flushes=False, queue_bytes=100_000, max_frame=20_000) as one:
            one.ready()
            for number in range(20):
                assert one.backplane.publish(one.channel, b"%d " % number + frame)
            lost = one.backplane.counters()["lost_out"]
            assert one.backplane.counters()["queued_bytes"] <= 100_000
            one.backplane.flush()
            assert other.wait(lambda: len(other.came) == 20 - lost)
    assert 10 <= lost <= 12
    assert [int(frame.split()[0]) for frame in other.frames()] == list(range(lost, 20))


def test_what_waits_is_bounded_in_seconds(valkey: RedisServer) -> None:
    told: list[object] = []
    with End(valkey.url, flushes=False, queue_age=0.2) as end:
        end.ready()
        end.publish([1, 2])
        outbound_of(end.backplane).command(("PING",), told.append)
        assert end.wait(lambda: end.backplane.counters()["lost_out"] == 2)
        assert end.wait(lambda: bool(told))
        assert end.backplane.counters()["queued_bytes"] == 0
    assert isinstance(told[0], BackplaneError)


def test_a_stop_sends_what_was_queued(valkey: RedisServer) -> None:
    with End(valkey.url, listens=True) as other:
        other.ready()
        with End(valkey.url) as one:
            one.ready()
            one.publish(range(COUNT))
        assert other.wait(lambda: len(other.came) == COUNT)


def test_a_receiver_that_raises_ends_nothing(
    valkey: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with End(valkey.url) as one, End(valkey.url, listens=True) as other:
        one.ready()
        other.ready()
        one.backplane.publish(other.channel, b"\xff")
        one.publish([1])
        assert other.wait(lambda: b"1" in other.frames())
