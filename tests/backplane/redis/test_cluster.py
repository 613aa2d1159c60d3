"""A cluster of three masters, with sharded pub/sub."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from daebus.backplane.redis.component import outbound_of
from tests.support.acl import cluster_rules, rules
from tests.support.ends import End, numbers
from tests.support.redisserver import RedisCluster
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as made:
        yield made


def test_frames_of_each_partition_arrive_in_their_order(cluster: RedisCluster) -> None:
    one, other = (End(cluster.url, cluster=True) for _ in range(2))
    with one, other:
        channels = [other.names.frames(partition) for partition in range(64)]
        for channel in [*channels, other.names.beats, other.names.node("n")]:
            other.backplane.subscribe(channel)
        for channel in channels:
            assert other.backplane.subscribed(channel, 10)
        one.ready()
        other.ready()
        assert len({cluster.owner(channel).port for channel in channels}) == 3

        for number in range(20):
            for channel in channels:
                one.backplane.publish(channel, b"%d" % number)
        assert other.wait(lambda: len(other.came) == 20 * 64)
        of_each = [[f for c, f in other.came if c == channel] for channel in channels]
        assert of_each == [[b"%d" % number for number in range(20)]] * 64


def test_a_cluster_that_was_not_said_to_be_one_is_named(cluster: RedisCluster) -> None:
    with End(cluster.url) as end:
        assert eventually(lambda: "write DaebusRedis(url, cluster=True)" in repr(end.backplane))
        assert not end.backplane.up


def test_scripts_and_leases_go_where_they_belong(cluster: RedisCluster) -> None:
    with End(cluster.url, cluster=True) as end:
        told: list[object] = []
        outbound = outbound_of(end.ready().backplane)
        outbound.script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
        for partition in range(8):
            outbound.evaluate("add", (end.names.key(partition, "n"),), (partition,), told.append)
        for node in ("a", "b", "c"):
            end.backplane.lease(node, node.encode(), 10.0)
        end.wait(lambda: len(told) == 8)
        assert sorted(map(str, told)) == [str(number) for number in range(8)]
        end.backplane.leases(told.append)
        assert end.wait(lambda: len(told) == 9)
        assert told[-1] == {"a": b"a", "b": b"b", "c": b"c"}


def test_a_user_with_the_documented_commands_is_enough(cluster: RedisCluster) -> None:
    for server in cluster.servers:
        server.command("ACL", "SETUSER", *rules("shop", "acl", "pw"), *cluster_rules())
    url = cluster.url.replace("//", "//shop:pw@")
    one, other = (End(url, cluster=True, app="acl", listens=each) for each in (False, True))
    with one, other:
        one.ready()
        other.ready()
        one.publish([1])
        assert other.wait(lambda: other.frames() == [b"1"])
        mine = other.names.node("n")
        other.backplane.subscribe(mine)
        assert other.backplane.subscribed(mine, 5.0)
        other.backplane.unsubscribe(mine)
        one.backplane.lease("n", b"1", 5.0)
        told: list[object] = []
        one.backplane.leases(told.append)
        assert one.wait(lambda: told == [{"n": b"1"}])
    for server in cluster.servers:
        assert server.command("ACL", "LOG") == []


def reaches(end: End, number: int) -> Callable[[], bool]:
    return lambda: numbers(end.frames())[-1:] > [number]


@pytest.mark.slow
def test_a_slot_moves_while_frames_flow(cluster: RedisCluster) -> None:
    """Whoever may have missed some is told, and the order holds."""
    one, other = (End(cluster.url, cluster=True, listens=listens) for listens in (False, True))
    with one, other:
        one.ready()
        other.ready()
        told, stop = other.lost, threading.Event()
        sent: list[int] = []

        def flow() -> None:
            while not stop.wait(0.001):
                sent.append(len(sent))
                one.publish([sent[-1]])

        sender = threading.Thread(target=flow)
        sender.start()
        try:
            for _ in range(3):
                before = cluster.owner(other.channel)
                assert cluster.move(other.channel) is not before
                assert other.wait(reaches(other, len(sent) + 20))
        finally:
            stop.set()
            sender.join()
        assert other.wait(lambda: other.frames()[-1] == b"%d" % sent[-1])
        taken = numbers(other.frames())
        assert other.lost >= told + 3
        assert taken == sorted(set(taken))
