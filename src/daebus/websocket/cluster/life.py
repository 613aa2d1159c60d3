"""How a node comes, shows that it is alive, sees who else is, and goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ...backplane.frames import Header, Template
from ...backplane.names import Names, random_name
from ...backplane.protocol import Backplane
from ...server.threads.minder import Minder, Timer
from ...server.threads.safelog import get_logger
from .hearing import LONGEST_HOLD, Hearing
from .info import BackplaneEvent, BackplaneInfo
from .intake import Intake
from .joining import Joining
from .ledger import Ledger
from .outgoing import Outgoing
from .partitions import Partitions
from .peers import Beat, Event, Peers

__all__ = ["Life"]

logger = get_logger("daebus.backplane")

# Beats until all numbers are told, not only those that are news.
WHOLE = 10

# Beats out of turn are so many seconds apart at least.
APART = 0.1


class Life:
    """The beats of a node, and what it makes of those of others.

    Args:
        backplane: carries them.
        minder: has the clock.
        names: of channels and keys.
        clients: tells how many clients are connected.
        version: of the program.
        tell: is given events; does not wait.

    Attributes:
        incarnation: random for each start.
        begun: when it began, by the minder's clock.
        gone: called with the name of each node that is gone; they do not wait.
        lost: called each time when connections were made anew; they do not wait.
        ledger: counts what comes.
        peers: the other nodes.
        outgoing: numbers what is sent.
        hearing: whether we hear ourselves.
        partitions: which are heard.
        joining: has our name.
        intake: takes what comes.

    Threads:
        Any; it does not wait.
    """

    def __init__(
        self,
        backplane: Backplane,
        minder: Minder,
        names: Names,
        *,
        clients: Callable[[], int],
        version: str | None,
        tell: Callable[[BackplaneEvent, BackplaneInfo], object],
    ) -> None:
        options, clock = backplane.options, minder.clock
        self.incarnation = random_name(8)
        self.begun = clock()
        self.gone: list[Callable[[str], None]] = []
        self.lost: list[Callable[[], None]] = []
        self._backplane = backplane
        self._minder = minder
        self._names = names
        self._clients = clients
        self._version = version
        self._tell = tell
        self._beat = options.node_timeout / 10
        self._beats = 0
        self._asked = False  # somebody wants to know all our numbers
        self._beaten = clock()  # when the last beat left
        self._timer: Timer | None = None
        self._others: set[str] = set()  # nodes with other partitions
        self._stopping = False
        self._lock = threading.Lock()  # until the first channels are subscribed to
        self._expected: frozenset[str] | None = None  # who had a lease when we came, once known
        self.met = threading.Event()  # we hear ourselves, and know them
        self.ledger = Ledger(clock)
        self.peers = Peers(0.3 * options.node_timeout, options.node_timeout)
        self.outgoing = Outgoing(backplane, minder, options.key)
        self.hearing = Hearing(backplane, clock, 0.3 * options.node_timeout)
        self.partitions = Partitions(names, backplane, minder, self.ledger.left)
        self.joining = Joining(
            backplane,
            options.node or random_name(),
            self.incarnation,
            lease=options.node_timeout,
            patience=self._beat,
            clock=clock,
            ask=lambda name: self._whisper(names.node(name), "who"),
            joined=self._joined,
        )
        self.intake = Intake(self.incarnation, options.key, self.ledger, self._hear_self)
        self.intake.handlers.update(
            beat=self._take_beat, bye=self._take_bye, hello=self._take_hello, who=self._take_who
        )

    @property
    def name(self) -> str:
        """Our name."""
        return self.joining.name

    def age(self) -> float:
        """Return for how many seconds it has run."""
        return self._minder.clock() - self.begun

    def begin(self) -> None:
        """Connect, and beat from then on."""
        with self._lock:
            died = self._minder.vitals.on_death
            self._backplane.start(self._names, self.intake.receive, self._connected, died)
            for channel in (self._names.beats, self._names.frames(0)):
                self._backplane.subscribe(channel)
        self._timer = self._minder.call_later(self._beat, self._tick)

    def end(self, *, goodbye: bool = True) -> None:
        """Beat no more; with a goodbye that tells all numbers."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if not goodbye:
            return
        self._backplane.flush()
        if self.joining.joined:
            self.outgoing.tell_numbers(
                self.name, self.incarnation, "bye", self._names.beats, {}, every=True
            )
            self._backplane.lease(self.name, b"", 0)

    # --- its beats --------------------------------------------------------------------

    def _whisper(self, channel: str, kind: str, more: Mapping[str, Any] | None = None) -> None:
        """Send what nobody needs later."""
        self.outgoing.tell(channel, Template(self.name, self.incarnation, kind, more=more))

    def _tick(self) -> None:
        """Do what is due with each beat; the minder's."""
        if self._stopping:
            return
        self._timer = self._minder.call_later(self._beat, self._tick)
        hello = self._note_subscriptions()
        self.joining.advance()
        down = self.hearing.judge()
        if down is not None:
            logger.warning("the backplane is down; clients of this process are served")
            self._tell("down", BackplaneInfo(self.name))
        self._settle()
        for node, missed in self.ledger.take_gaps().items():
            logger.warning("%d frames of node %s did not arrive", missed, node)
            self._tell("gap", BackplaneInfo(node, missed=missed))
        self._send_beat()
        if hello:
            self._send_beat(hello=True)

    def _send_beat(self, *, hello: bool = False) -> None:
        """Say that we are alive, and what we sent.

        While something is held, the numbers of that must not come before it.
        """
        if not (self.joining.joined and self._backplane.up) or self._stopping:
            return
        self.joining.renew()
        self._beaten = self._minder.clock()
        more = {
            "clients": self._clients(),
            "up": round(self.age(), 3),
            "ver": self._version,
            "parts": self._names.partitions,
        }
        if hello:
            more["hello"] = 1
        if hello or self.hearing.holding:
            self._whisper(self._names.beats, "beat", more)
            return
        self._beats += 1
        every, self._asked = self._asked or self._beats % WHOLE == 0, False
        self.outgoing.tell_numbers(
            self.name, self.incarnation, "beat", self._names.beats, more, every=every
        )

    def _connected(self) -> None:
        """Find out who is there, after connections were made anew; the backplane's."""
        with self._lock:  # our first beat must come back
            self._asked = True
        self.hearing.connected(self.peers.names())
        self._minder.call_later(LONGEST_HOLD, self._settle)
        self._note_subscriptions()
        if self.joining.joined:
            self._send_beat(hello=True)
        else:
            self.joining.connected()
        for call in tuple(self.lost):
            call()

    def _joined(self) -> None:
        self._backplane.subscribe(self._names.node(self.name))
        self._note_subscriptions()
        self._send_beat(hello=True)
        self._backplane.leases(self._expect)

    def _expect(self, leases: dict[str, bytes]) -> None:
        self._expected = frozenset(leases) - {self.name}
        self._look_around()

    def _look_around(self) -> None:
        expected = self._expected
        if self.hearing.up and expected is not None and expected <= self.peers.names():
            self.met.set()

    def _note_subscriptions(self) -> bool:
        """Note which channels are heard: who is born later is heard from its first frame on.

        Returns:
            True if one is new, whose numbers we do not know.
        """
        channels = [*self.partitions.channels(), self._names.node(self.name)]
        heard = [channel for channel in channels if self._backplane.subscribed(channel, 0)]
        return sum(map(self.ledger.listening, heard)) > 0

    def _settle(self) -> None:
        """Let what was kept leave once the others are back, and tell what it was."""
        if self.hearing.settle():
            self._asked = True
            self._send_beat()

    def _beat_soon(self) -> None:
        """Send a beat out of turn, but not many."""
        self._asked = True
        pause = self._beaten + APART - self._minder.clock()
        if pause <= 0:
            self._send_beat()
        else:
            self._minder.call_later(pause, self._send_beat)

    # --- what it hears ------------------------------------------------------------------

    def _hear_self(self) -> None:
        seconds, down = self.hearing.echo()
        if down is not None:
            logger.info("the backplane is up; this is node %s", self.name)
            self._tell("up", BackplaneInfo(self.name, seconds=down))
        self._happened(self.peers.pass_time(seconds))
        if not self.met.is_set():
            self._look_around()
        self._settle()

    def _take_beat(self, header: Header, payload: bytes) -> None:
        node, incarnation, more = header.node, header.incarnation, header.more
        seconds, clients, version = more.get("up"), more.get("clients"), more.get("ver")
        if not isinstance(seconds, int | float) or not isinstance(clients, int):
            return
        self.ledger.born(node, incarnation, seconds)
        if node == self.name:
            self._meet_rival(incarnation, seconds)
            return
        beat = Beat(node, incarnation, clients, seconds, None if version is None else str(version))
        self._happened(self.peers.heard(beat))
        self.intake.note_numbers(header)
        self.hearing.heard(node)
        if not self.met.is_set():
            self._look_around()
        self._settle()
        self._compare(node, more.get("parts"))
        if more.get("hello"):
            self._beat_soon()

    def _compare(self, node: str, partitions: object) -> None:
        """Say once that another node divides rooms in another way, so that both are deaf."""
        own = self._names.partitions
        if isinstance(partitions, int) and partitions != own and node not in self._others:
            self._others.add(node)
            logger.warning(
                "node %s has partitions=%d and this one %d, so that rooms and users of one do not "
                "hear the other; give all nodes the same partitions=",
                node,
                partitions,
                own,
                kind=node,
            )

    def _take_bye(self, header: Header, payload: bytes) -> None:
        self.intake.note_numbers(header)
        self._happened(self.peers.bye(header.node, header.incarnation))

    def _take_hello(self, header: Header, payload: bytes) -> None:
        """Note the first word of a sender that is no node."""
        seconds = header.more.get("up")
        if isinstance(seconds, int | float):
            self.ledger.born(header.node, header.incarnation, seconds)

    def _take_who(self, header: Header, payload: bytes) -> None:
        if header.node == self.name:  # it would like to have it
            self._send_beat()

    def _meet_rival(self, incarnation: str, seconds: float) -> None:
        """Meet another node of our name; the younger one takes another."""
        own = self.age()
        if not self.joining.joined or (seconds, incarnation) > (own, self.incarnation):
            self._backplane.unsubscribe(self._names.node(self.name))
            self.joining.rival(incarnation)

    def _happened(self, events: list[Event]) -> None:
        for event, info in events:
            if event == "node_down":
                log = logger.info if info.reason == "bye" else logger.warning
                log("node %s is gone: %s", info.node, info.reason)
                for gone in tuple(self.gone):
                    gone(info.node)
            else:
                logger.info("node %s is there", info.node)
            self._tell(event, info)
