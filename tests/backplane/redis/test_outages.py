"""What a server can do to those that rely on it: die, hang, cut, refuse, lose its place."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from daebus import DaebusRedis
from daebus.backplane.redis.component import outbound_of
from daebus.backplane.redis.line import ANSWER_TIMEOUT
from tests.support.ends import End, numbers
from tests.support.redisserver import REDIS, VALKEY, Kind, RedisServer
from tests.support.relay import Relay


@pytest.fixture(params=[VALKEY, REDIS], ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server that the test may do anything to."""
    kind: Kind = request.param
    with RedisServer(kind) as made:
        yield made


@pytest.fixture
def valkey() -> Iterator[RedisServer]:
    with RedisServer(VALKEY) as made:
        yield made


class Flow:
    """Publishes one number after the other from a thread; a context manager.

    Attributes:
        sent: how many.
        slowest: the longest that one call took.
    """

    def __init__(self, end: End, pause: float = 0.001) -> None:
        self._end, self._pause = end, pause
        self._stop = threading.Event()
        self.sent = 0
        self.slowest = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            began = time.perf_counter()
            self._end.publish([self.sent])
            self.slowest = max(self.slowest, time.perf_counter() - began)
            self.sent += 1

    def gone_on(self, by: int) -> Callable[[], bool]:
        """Return whether so many more were sent than now."""
        mark = self.sent + by
        return lambda: self.sent >= mark


def arrived(other: End, flow: Flow) -> bool:
    """Wait until what was sent last has arrived."""
    return other.wait(lambda: bool(flow.sent) and b"%d" % (flow.sent - 1) in other.frames()[-500:])


def test_a_server_that_dies_and_returns_gets_what_was_kept(server: RedisServer) -> None:
    one, other = End(server.url, flushes=False), End(server.url, listens=True)
    with one, other:
        one.ready().backplane.flush()
        other.ready()
        one.publish(range(10))
        assert other.wait(lambda: len(other.came) == 10)
        told, connected = one.lost, other.lost
        server.kill()
        # As a node does, which thereby notices.
        assert one.wait(lambda: not one.backplane.publish(one.channel, b"beat", keep=False))
        assert not one.backplane.publish(one.channel, b"beat", keep=False)
        one.publish(range(10, 20))
        server.start()
        assert one.wait(lambda: one.lost > told and other.lost > connected)
        assert other.backplane.subscribed(other.channel, 5)
        one.backplane.flush()
        assert other.wait(lambda: numbers(other.frames()) == list(range(20)))
        assert b"beat" not in other.frames()
        counters = one.backplane.counters()
    assert counters["reconnects"] >= 1
    assert counters["lost_out"] == 0


def test_no_frame_is_lost_when_its_sender_is_cut_again_and_again(server: RedisServer) -> None:
    """Those whose fate is unknown are sent again; whoever has them already drops them."""
    one, other = End(server.url), End(server.url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        with Flow(one) as flow:
            for _ in range(5):
                assert one.wait(flow.gone_on(50))
                again = one.told_again()
                server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert one.wait(again)
        assert arrived(other, flow)
        assert numbers(other.frames()) == list(range(flow.sent))
        assert one.backplane.counters()["reconnects"] >= 5
        assert one.backplane.counters()["lost_out"] == 0


def cut_listeners(server: RedisServer, other: End, flow: Flow, times: int, pause: float) -> None:
    for _ in range(times):
        again = other.told_again()
        assert other.wait(flow.gone_on(20))
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        assert other.wait(again)
        other.wait(lambda: False, pause)


@pytest.mark.parametrize(
    ("times", "pause"), [(3, 0.0), pytest.param(30, 1.0, marks=pytest.mark.slow)]
)
def test_a_listener_that_is_cut_says_so_each_time(
    valkey: RedisServer, times: int, pause: float
) -> None:
    one, other = End(valkey.url), End(valkey.url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        with Flow(one) as flow:
            cut_listeners(valkey, other, flow, times, pause)
            assert other.wait(flow.gone_on(20))
        assert arrived(other, flow)
        taken = numbers(other.frames())
        assert len(other.frames()) == len(taken) <= flow.sent
        assert other.backplane.counters()["reconnects"] == times
        assert one.backplane.counters()["reconnects"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["freeze", "pause"])
def test_a_server_that_hangs_makes_nobody_wait(server: RedisServer, how: str) -> None:
    one, other = End(server.url), End(server.url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        with Flow(one) as flow:
            assert other.wait(lambda: bool(other.came))
            if how == "freeze":
                server.freeze()
            else:
                server.command("CLIENT", "PAUSE", 4000)
            assert one.wait(lambda: not one.backplane.up)
            assert one.wait(flow.gone_on(500))
            server.thaw()
            assert one.wait(lambda: one.backplane.up)
        assert arrived(other, flow)
        assert flow.slowest < ANSWER_TIMEOUT
        assert numbers(other.frames()) == list(range(flow.sent))


def test_a_listener_is_made_anew_when_it_is_deaf(valkey: RedisServer) -> None:
    with Relay(valkey.port) as relay, End(valkey.url) as one:
        other = End(f"redis://127.0.0.1:{relay.port}/0", listens=True)
        with other:
            one.ready()
            other.ready()
            relay.stop_forwarding()
            told = other.lost
            other.backplane.renew()
            assert other.wait(lambda: other.lost > told)
            one.publish([1])
            assert other.wait(lambda: other.frames() == [b"1"])


def test_a_message_of_a_stranger_that_is_too_big_cuts_nobody_for_long(
    server: RedisServer,
) -> None:
    server.command("CONFIG", "SET", "proto-max-bulk-len", 64 << 20)
    one, other = End(server.url), End(server.url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        told = other.lost
        server.command("PUBLISH", other.channel, b"x" * (33 << 20))
        # Beyond 32 MiB the server cuts a subscriber, unless that one is quick enough.
        assert other.wait(lambda: other.lost > told or bool(other.came))
        one.publish([1])
        assert other.wait(lambda: b"1" in other.frames())
        assert [len(frame) for _, frame in other.came] in ([1], [33 << 20, 1])


@pytest.mark.parametrize("why", ["disk", "memory"])
def test_a_server_that_takes_no_writes_still_carries_frames(
    server: RedisServer, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = End(server.url), End(server.url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        if why == "memory":
            server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            server.command("CONFIG", "SET", "maxmemory", 1)
        else:
            server.command("CONFIG", "SET", "save", "3600 1")
            os.mkdir(os.path.join(server.folder, "dump.rdb"))  # so nothing can be put there
            server.command("SET", "key", "value")
            server.command("BGSAVE")
            assert one.wait(
                lambda: b"rdb_last_bgsave_status:err" in info(server, "persistence").encode()
            )
        answer = one.command("SET", "key", "more")
        assert isinstance(answer, Exception)
        assert "refuses SET" in caplog.text
        one.publish([1])
        assert other.wait(lambda: other.frames() == [b"1"])
        assert one.backplane.up


def info(server: RedisServer, section: str) -> str:
    found = server.command("INFO", section)
    if isinstance(found, dict):
        return "\n".join(f"{name}:{value}" for name, value in found.items())
    return str(found)


def test_a_failover_is_followed_to_where_the_address_leads(server: RedisServer) -> None:
    """Behind one address the replica becomes the master, and what was the master its replica."""
    with RedisServer(server.kind) as replica, Relay(server.port) as relay:
        url = f"redis://127.0.0.1:{relay.port}/0"
        server.command("CONFIG", "SET", "repl-diskless-sync-delay", 0)
        replica.command("REPLICAOF", "127.0.0.1", server.port)
        one, other = End(url), End(url, listens=True)
        with one, other:
            one.ready()
            other.ready()
            one.command("SET", "key", "1")
            assert one.wait(lambda: replica.command("GET", "key") == b"1")
            told, connected = one.lost, other.lost
            relay.lead_to(replica.port)
            replica.command("REPLICAOF", "NO", "ONE")
            server.command("REPLICAOF", "127.0.0.1", replica.port)
            # Who writes to it is told, and looks for the master; who only listens notices by its
            # own beats, as a node does.
            other.backplane.renew()
            assert one.command("SET", "key", "2") in (b"OK", True)
            assert one.wait(lambda: one.lost > told and other.lost > connected)
            one.publish([1])
            assert other.wait(lambda: other.frames() == [b"1"])
            assert replica.command("GET", "key") == b"2"


def test_an_app_joins_when_the_server_comes(
    valkey: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.kill()
    caplog.set_level(logging.INFO, "daebus")
    with End(valkey.url, listens=True) as end:
        end.publish([1, 2])
        assert end.wait(lambda: "is away" in caplog.text)
        valkey.start()
        assert end.wait(lambda: end.backplane.up and end.frames() == [b"1", b"2"])
    assert caplog.text.count("is away") == 1
    assert "is back" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_minute_without_server_under_load_keeps_what_the_bounds_allow(
    server: RedisServer,
) -> None:
    one, other = End(server.url), End(server.url, listens=True)
    with one, other:
        one.ready()
        other.ready()
        with Flow(one) as flow:
            assert other.wait(lambda: len(other.came) > 100)
            server.kill()
            one.wait(lambda: False, 60.0)
            server.start()
            began = time.monotonic()
            assert one.wait(lambda: one.backplane.up and other.backplane.up)
            assert time.monotonic() - began < 3.0
            assert one.wait(flow.gone_on(500))
        assert arrived(other, flow)
        lost = one.backplane.counters()["lost_out"]
        assert flow.slowest < ANSWER_TIMEOUT
        # Both come back at their own moments; what the first sends until the other listens, all
        # that it has kept included, is for the numbers of the node to tell.
        missing = flow.sent - len(numbers(other.frames()))
        assert lost <= missing <= lost + flow.sent // 4


def test_commands_without_server_are_told_so() -> None:
    told: list[object] = []
    end = End("redis://127.0.0.1:1/0")
    with end:
        outbound_of(end.backplane).command(("GET", "x"), told.append, keep=False)
        assert end.wait(lambda: bool(told))
    assert isinstance(told[0], ConnectionError)
    assert isinstance(DaebusRedis("redis://127.0.0.1:1/0").counters(), dict)
