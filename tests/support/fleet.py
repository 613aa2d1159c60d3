"""Three nodes, each a process of its own, and clients of each that count what comes to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import daebus
from tests.support.watchers import Watcher, Watchers

__all__ = ["NAMES", "Fleet", "Member", "topic_of"]

NAMES = ("a", "b", "c")
PATIENCE = 30.0  # seconds until a test gives up on what a machine with much else to do does late


def eventually(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Wait as in ``waiting``, but look less often: each look asks three processes."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (value := condition()) and time.monotonic() < deadline:
        pause.wait(0.05)
    return value


class Member:
    """One of the nodes.

    Args:
        url: of the server.
        name: of the node.
        options: for ``DaebusRedis``, and ``ahead``.
    """

    def __init__(self, url: str, name: str, **options: Any) -> None:
        self.name = name
        self.log = ""
        program = Path(__file__).with_name("fleet_node.py")
        source = str(Path(daebus.__file__).resolve().parents[1])
        self.process = subprocess.Popen(
            [sys.executable, str(program), url, name, json.dumps(options)],
            env={**os.environ, "PYTHONPATH": source},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line

    def begin(self) -> None:
        """Wait until it runs."""
        self.port = json.loads(self._line())

    def ask(self, order: str, *arguments: Any) -> Any:
        """Give an order; return the answer."""
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(json.dumps([order, *arguments]) + "\n")
            self.process.stdin.flush()
            return json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        return line

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Have it stop in good order, if it runs."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


def topic_of(watcher: Watcher, since: int = 0) -> list[Any]:
    """Return what a client was told of ``log``: data, and reasons of gaps."""
    told: list[Any] = []
    for message in watcher.others[since:]:
        if message["type"] == "said":
            told.append(tuple(message["data"]))
        elif message["type"] == "gap" and message["data"]["topic"] == "log":
            told.append(message["data"]["reason"])
    return told


class Fleet:
    """Three nodes and their clients; a context manager.

    Args:
        url: of the server.
        clients: how many each node has.
        subscribers: how many of them subscribe to the topic.
        ahead: seconds by which the clock of the last node is ahead.
        options: for ``DaebusRedis``.
    """

    def __init__(
        self,
        url: str,
        clients: int = 100,
        subscribers: int = 2,
        *,
        ahead: float = 3600.0,
        **options: Any,
    ) -> None:
        self._per_node, self._subscribers = clients, subscribers
        self.members = {
            name: Member(url, name, ahead=ahead if name == NAMES[-1] else 0.0, **options)
            for name in NAMES
        }
        self.subscribed: list[Watcher] = []
        self._marks: dict[int, int] = {}
        self.outcome: dict[str, Any] = {}

    def __enter__(self) -> Fleet:
        try:
            for member in self.members.values():
                member.begin()
            assert eventually(lambda: all(s["nodes"] == 3 for s in self.stats()))
            ports = {name: member.port for name, member in self.members.items()}
            self.watchers = Watchers(ports, self._per_node, 1 + self._subscribers)
        except BaseException:
            for member in self.members.values():
                member.process.kill()
                member.close()
            raise
        self.watchers.__enter__()
        for name in NAMES:
            for watcher in self.watchers.of(name)[: self._subscribers]:
                self.subscribe(watcher)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.watchers.__exit__()
        with ThreadPoolExecutor() as pool:  # all at once
            list(pool.map(Member.close, self.members.values()))

    def subscribe(self, watcher: Watcher, **where: Any) -> dict[str, Any]:
        """Have a client subscribe to the topic; return the answer."""
        before = len(watcher.others)
        watcher.say("subscribe", {"topic": "log", **where}, 1)

        def answer() -> Any:
            found = [one for one in watcher.others[before:] if one.get("id") == 1]
            return found[0] if found else None

        told: dict[str, Any] = eventually(answer)
        assert told["type"] == "response", told
        self.subscribed.append(watcher)
        data: dict[str, Any] = told["data"]
        return data

    @property
    def alive(self) -> list[Member]:
        """The nodes that run."""
        return [one for one in self.members.values() if one.process.poll() is None]

    def stats(self) -> list[dict[str, Any]]:
        """Return what each node says of itself."""
        return [{**member.ask("stats"), "name": member.name} for member in self.alive]

    # --- load -------------------------------------------------------------------------

    def begin(self, pause: float = 0.12) -> None:
        """Have all nodes send, and wait until everybody hears everybody."""
        self._marks = {id(one): len(one.others) for one in self.subscribed}
        for watcher in self.watchers.all:
            watcher.latest = 0.0
        for member in self.alive:
            member.ask("begin", pause)
        assert self.flows()

    def flows(self, timeout: float = PATIENCE) -> float:
        """Wait until something new of each node has come to each other; return the seconds."""
        began = time.monotonic()
        firsts = [self.watchers.of(member.name)[0] for member in self.alive]
        marks = {
            (one.node, sender.name): len(one.got(sender.name))
            for one in firsts
            for sender in self.alive
        }

        def flow() -> bool:
            return all(
                len(one.got(sender.name)) > marks[one.node, sender.name]
                for one in firsts
                for sender in self.alive
            )

        assert eventually(flow, timeout), self.stats()
        return time.monotonic() - began

    def run_for(self, seconds: float, each: Callable[[], object] | None = None) -> None:
        """Let the load go on, and do something each second."""
        end, pause = time.monotonic() + seconds, threading.Event()
        while (left := end - time.monotonic()) > 0:
            if each is not None:
                each()
            pause.wait(min(1.0, left))

    def end(self) -> dict[str, dict[str, Any]]:
        """End the load, and check what is promised of it.

        No client is cut; no message of its own node is lost, doubled or out of order; what came
        from other nodes and what they count as missed is all that was sent, for each of them.

        Returns:
            What each node says of itself.
        """
        for member in self.alive:
            member.ask("end")
        assert eventually(self._is_told), self._sums()
        stats = {one["name"]: one for one in self.stats()}
        assert eventually(partial(self._have_all, stats))
        for name in stats:
            for watcher in self.watchers.of(name)[: self._per_node]:
                self._check(watcher, stats)
        latest = max(one.latest for one in self.watchers.all if one.node in stats)
        assert latest < 3.0, latest
        for one in stats.values():
            assert one["slowest"] < 3.0, one
            assert one["clients"] == len(self.watchers.of(one["name"])), one
        assert self._is_told(), self._sums()  # still
        assert eventually(self.are_present), self.stats()
        self.outcome = {
            "missed": {name: one["missed"] for name, one in stats.items()},
            "lost_out": {name: one["lost_out"] for name, one in stats.items()},
            "sent": {name: one["sent"] for name, one in stats.items()},
            "deaf": {name: one["deaf_resets"] for name, one in stats.items()},
            "reconnects": {name: one["reconnects"] for name, one in stats.items()},
            "slowest": round(max(one["slowest"] for one in stats.values()), 3),
            "latest": round(latest, 3),
        }
        return stats

    def _sums(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return what came or was missed, and what was sent, from each node to each."""
        stats = {one["name"]: one for one in self.stats()}
        return {
            (name, other): (
                len(self.watchers.of(name)[0].got(other)) + one["gaps"].get(other, 0),
                stats[other]["sent"],
            )
            for name, one in stats.items()
            for other in stats
            if other != name
        }

    def _is_told(self) -> bool:
        """Tell whether all numbers are known, and the hooks were told of all that is missing."""
        nodes = len(self.alive)
        return all(came == sent for came, sent in self._sums().values()) and all(
            one["up"] and one["nodes"] == nodes and one["missed"] == sum(one["gaps"].values())
            for one in self.stats()
        )

    def are_present(self) -> bool:
        """Tell whether each node knows the clients of all in the room."""
        here = sum(watcher.is_open for watcher in self.watchers.all)
        return all(one["present"] == here for one in self.stats())

    def _have_all(self, stats: dict[str, dict[str, Any]]) -> bool:
        """Tell whether each client has as many messages as the first of its node."""
        self.watchers.parse()
        return all(
            len(watcher.got(other)) >= len(self.watchers.of(name)[0].got(other))
            and len(watcher.got(name)) >= stats[name]["sent"]
            for name in stats
            for watcher in self.watchers.of(name)[: self._per_node]
            for other in stats
        )

    def _check(self, watcher: Watcher, stats: dict[str, dict[str, Any]]) -> None:
        assert watcher.is_open
        own = stats[watcher.node]
        wanted = list(range(1, own["sent"] + 1))
        assert watcher.got(watcher.node) == wanted
        first = self.watchers.of(watcher.node)[0]
        for other in stats:
            if other != watcher.node:
                came = watcher.got(other)
                assert len(came) == len({*came})
                for parity in (0, 1):  # to the room and to everybody, which have their own orders
                    numbers = [number for number in came if number % 2 == parity]
                    assert numbers == sorted(numbers)
                assert sorted(came) == sorted(first.got(other))
                assert len(came) + own["gaps"].get(other, 0) == stats[other]["sent"]

    # --- the topic ------------------------------------------------------------------------

    def check_topic(self, *, whole: bool) -> list[Any]:
        """Check that all subscribers were told the same; call it after ``end``.

        What reached Redis as it went away, unconfirmed, may come twice, but not without a gap
        between.

        Args:
            whole: there is no gap, and everything is there that was published.

        Returns:
            What they were told.
        """
        lasts = [(one.name, one.ask("say")) for one in self.alive]

        def told() -> list[list[Any]]:
            return [topic_of(one, self._marks[id(one)]) for one in self.subscribed]

        assert eventually(lambda: all({*lasts} <= {*sequence[-9:]} for sequence in told())), [
            sequence[-9:] for sequence in told()
        ]
        sequences = told()
        for sequence in sequences:
            for _, part in groupby(sequence, lambda one: isinstance(one, tuple)):
                told_at_once = list(part)
                assert len(told_at_once) == len({*told_at_once}), sequence
        if whole:
            assert all(sequence == sequences[0] for sequence in sequences)
            published = {name: [n for who, n in sequences[0] if who == name] for name, _ in lasts}
            for name, numbers in published.items():
                assert numbers == list(range(numbers[0], dict(lasts)[name] + 1))
        else:
            tails = [sequence[last_gap(sequence) + 1 :] for sequence in sequences]
            assert all(tail == tails[0] for tail in tails), tails
            assert all(sequence[last_gap(sequence)] == "epoch" for sequence in sequences)
        assert eventually(
            lambda: all(dict(lasts).items() <= one["state"].items() for one in self.stats())
        ), self.stats()
        return sequences[0]


def last_gap(sequence: list[Any]) -> int:
    """Return the place of the last gap."""
    return max(place for place, one in enumerate(sequence) if isinstance(one, str))
