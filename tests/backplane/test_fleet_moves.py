"""Three processes whose server is replaced, whose partitions move, and one of which dies."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from daebus.backplane.names import Names
from tests.support.fleet import Fleet, eventually, topic_of
from tests.support.fleet_node import ROOM
from tests.support.redisserver import VALKEY, RedisCluster, RedisServer
from tests.support.relay import Relay
from tests.support.watchers import Watcher

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def test_a_failover() -> None:
    """The replica becomes the master, behind the same address, and what was it its replica."""
    with (
        RedisServer(VALKEY) as server,
        RedisServer(VALKEY) as replica,
        Relay(server.port) as relay,
        Fleet(f"redis://127.0.0.1:{relay.port}/0", 10) as fleet,
    ):
        replica.command("REPLICAOF", "127.0.0.1", server.port)
        fleet.begin()
        assert eventually(
            lambda: replica.command("INFO", "replication")["master_link_status"] == "up"
        )
        relay.lead_to(replica.port)
        replica.command("REPLICAOF", "NO", "ONE")
        server.command("REPLICAOF", "127.0.0.1", replica.port)
        fleet.run_for(4.0)
        fleet.flows()
        fleet.end()
        fleet.check_topic(whole=False)
        assert replica.command("EXISTS", "d:fleet:node:a")


def test_slots_that_move_while_messages_flow() -> None:
    names = Names("fleet", 64)
    moving = [names.frames(0), names.frames(names.partition(ROOM)), names.beats]
    moving += [names.key(names.partition(topic), "m", topic) for topic in ("log", "now")]
    with RedisCluster() as cluster, Fleet(cluster.url, 10, cluster=True) as fleet:
        fleet.begin()
        for channel in moving:
            before = cluster.owner(channel)
            assert cluster.move(channel) is not before
            assert fleet.flows() < 10.0
            fleet.run_for(0.7)
        fleet.end()
        fleet.check_topic(whole=True)
        print(fleet.outcome)


def test_a_node_that_dies() -> None:
    """Who asks a client of it is told, its clients go on elsewhere, and the others still count."""
    with RedisServer(VALKEY) as server, Fleet(server.url, 10, node_timeout=2.0) as fleet:
        one, two, dying = fleet.members.values()
        fleet.begin()
        one.ask("call", dying.ask("everybody")[-1], 60.0)
        reader = next(w for w in fleet.subscribed if w.node == dying.name)
        assert eventually(lambda: len(topic_of(reader)) > 5)
        dying.kill()
        killed = time.monotonic()
        outcomes: Any = eventually(lambda: one.ask("outcomes"))
        seconds = time.monotonic() - killed
        assert outcomes[0][0] == "ClientGone"
        assert seconds < 4.0
        assert eventually(lambda: all(each["nodes"] == 2 for each in fleet.stats()))
        assert eventually(fleet.are_present)  # and no others

        fleet.subscribed = [w for w in fleet.subscribed if w.node != dying.name]
        seen = [each for each in reader.others if each["type"] == "said"]
        epoch = one.ask("stats")["epoch"]
        moved = fleet.watchers.add(two.name, two.port)
        answer = fleet.subscribe(moved, since={"epoch": epoch, "offset": seen[-1]["offset"]})
        assert answer["recovered"]
        fleet.flows()
        fleet.end()
        last = [two.name, two.ask("say")]
        assert eventually(lambda: tuple(last) in topic_of(moved))
        assert eventually(lambda: tuple(last) in topic_of(fleet.subscribed[0]))
        assert [*topic_of(reader), *topic_of(moved)] == topic_of(fleet.subscribed[0])
        print(seconds, len(seen), answer, fleet.outcome)


def has_two(watcher: Watcher) -> bool:
    return len(topic_of(watcher)) == 2


def test_clocks_that_differ() -> None:
    """What is kept for a while is kept for that long, whoever wrote it, whoever looks."""
    with RedisServer(VALKEY) as server, Fleet(server.url, 3) as fleet:
        members = fleet.members
        for name in ("a", "c"):
            members[name].ask("say")
            members[name].ask("keep", f"short {name}", 2.0)

        def everywhere(*keys: str) -> bool:
            return all(one["state"].keys() == {*keys} for one in fleet.stats())

        assert eventually(partial(everywhere, "short a", "short c", "a", "c"), 1.5)
        began = time.monotonic()
        assert eventually(partial(everywhere, "a", "c"), 6.0)
        assert time.monotonic() - began > 0.2
        for name in ("a", "c"):
            late = fleet.watchers.add(name, members[name].port)
            assert fleet.subscribe(late, last=5)["replay"] == 2
            assert eventually(partial(has_two, late))
            assert topic_of(late) == [("a", 1), ("c", 1)]
