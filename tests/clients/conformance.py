"""What every client of daebus must do: one table of scenarios, and the driver of a client.

A scenario is a function: it scripts the server, tells the client what to do through a ``Driver``,
and asserts. Its name and its first line are the promise. ``SCENARIOS`` holds all of them, with the
values that each is tried with; a runner is a few lines::

    @pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
    def test_my_client_conforms(scenario: Scenario) -> None:
        with ScriptedServer() as server, MyDriver() as client:
            scenario(server, client)

A driver makes one client, does what it is told, and notes what happens. It may talk to another
process: everything that goes in and out is JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.clients.scripted import Message, Refusal, ScriptedServer

__all__ = ["SCENARIOS", "Driver", "Outcome", "Scenario"]

# How a request ended: ``{"data": ...}``, or ``{"error": code, "sent": bool or None}``. The code is
# that of the server's error, or ``timeout``, ``disconnected``, ``cancelled``.
Outcome = dict[str, Any]


class Driver(Protocol):
    """One client under test."""

    def connect(
        self,
        url: str,
        *,
        tokens: list[str] | None = None,
        timeout: float = 5.0,
        heartbeat: float = 25.0,
        heartbeat_timeout: float = 10.0,
        min_delay: float = 0.02,
        jitter: float | None = None,
        reset_after: float = 5.0,
    ) -> None:
        """Make the client, and have it begin to connect; return at once.

        Args:
            url: of the server, with ``http``.
            tokens: what its token function returns, one for each call; None for no token.
            timeout: seconds for a request, and for an attempt to connect.
            heartbeat: seconds without a frame after which it asks.
            heartbeat_timeout: seconds for the answer to that.
            min_delay: seconds of the first back-off at most.
            jitter: what its source of random numbers gives each time, 0 to 1; None for random.
            reset_after: seconds that a connection lasts before the back-off begins anew.
        """

    def wait_status(self, *statuses: str, timeout: float = 5.0) -> dict[str, Any]:
        """Wait until the client's status is one of these, and return what it says of it.

        The statuses are ``connecting``, ``open``, ``waiting``, ``refused``, ``closed``. What is
        said has at least ``status`` and ``code``: a close code, or the HTTP status of a refusal.
        """

    def statuses(self) -> list[str]:
        """Return every status that the client has told so far."""

    def request(
        self, message_type: str, data: Any = None, *, timeout: float = 5.0, repeat: bool = False
    ) -> int:
        """Begin a request and return a number for it; ``outcome`` waits for its end."""

    def cancel(self, request: int) -> None:
        """Give a request up."""

    def outcome(self, request: int, timeout: float = 8.0) -> Outcome:
        """Wait for the end of a request."""

    def send(self, message_type: str, data: Any = None) -> bool:
        """Send a message; False if the client says that it was not sent."""

    def on(self, message_type: str) -> None:
        """Note messages of a type: ``{"kind": "message", "type": ..., "data": ...}``."""

    def handle(self, message_type: str, answer: Any = None, *, error: str | None = None) -> None:
        """Answer questions of a type with this, or with an error of this code."""

    def topic(
        self, name: str, *, last: int | None = None, since: dict[str, Any] | None = None
    ) -> None:
        """Subscribe to a topic.

        Note ``{"kind": "publication", "topic": ..., "type": ..., "data": ..., "offset": ...}`` and
        ``{"kind": "gap", "topic": ..., "reason": ..., "missed": ...}``.
        """

    def leave_topic(self, name: str) -> None:
        """Close a topic."""

    def position(self, name: str) -> dict[str, Any] | None:
        """Return the position of a topic, ``{"epoch": ..., "offset": ...}``."""

    def state(self, name: str) -> None:
        """Subscribe to a state."""

    def values(self, name: str) -> dict[str, Any]:
        """Return the values of a state as they are now."""

    def next_event(self, kind: str, timeout: float = 5.0) -> dict[str, Any]:
        """Return the next of what was noted of a kind; of progress ``{"data": ...}`` too."""

    def tokens_asked(self) -> int:
        """Return how often the token function was called."""

    def close(self) -> None:
        """Close the client."""


@dataclass(frozen=True)
class Scenario:
    """One row of the table."""

    name: str
    run: Callable[..., None]
    values: tuple[Any, ...] = ()

    def __call__(self, server: ScriptedServer, client: Driver) -> None:
        """Run it."""
        self.run(server, client, *self.values)

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.values)])


SCENARIOS: list[Scenario] = []


def scenario(function: Callable[[ScriptedServer, Driver], None]) -> None:
    """Put a function into the table."""
    SCENARIOS.append(Scenario(function.__name__, function))


def scenarios(values: Iterable[Any]) -> Callable[[Callable[..., None]], None]:
    """Put a function into the table, once for each value."""

    def put(function: Callable[..., None]) -> None:
        SCENARIOS.extend(Scenario(function.__name__, function, (value,)) for value in values)

    return put


# --- requests -------------------------------------------------------------------------


@scenario
def request_is_answered(server: ScriptedServer, client: Driver) -> None:
    """A request has an id and resolves with the data of the response to it."""
    client.connect(server.url)
    conn = server.accept()
    one, two = client.request("greet", {"name": "Ada"}), client.request("count")
    asked = [conn.receive(), conn.receive()]
    by_type = {message["type"]: message for message in asked}
    assert by_type["greet"]["data"] == {"name": "Ada"}
    assert by_type["greet"]["id"] != by_type["count"]["id"]
    conn.send("news", "nobody asked")
    conn.answer(by_type["count"], [1, 2])
    conn.answer(by_type["greet"], "hello")
    assert client.outcome(one) == {"data": "hello"}
    assert client.outcome(two) == {"data": [1, 2]}


@scenario
def request_fails_with_the_servers_code(server: ScriptedServer, client: Driver) -> None:
    """An error rejects the request with its code."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("greet")
    conn.error(conn.receive("greet"), "too_early", retry_after=3)
    assert client.outcome(request)["error"] == "too_early"


@scenario
def request_times_out(server: ScriptedServer, client: Driver) -> None:
    """A request ends by its own timeout, and a late answer hurts nobody."""
    client.connect(server.url)
    conn = server.accept()
    late = client.request("slow", timeout=0.1)
    message = conn.receive("slow")
    assert client.outcome(late)["error"] == "timeout"
    conn.answer(message, "late")
    again = client.request("again")
    while (message := conn.receive())["type"] != "again":  # it may take the late one back
        assert message["type"] == "cancel"
    conn.answer(message, "in time")
    assert client.outcome(again) == {"data": "in time"}


@scenario
def request_tells_its_progress(server: ScriptedServer, client: Driver) -> None:
    """Progress of a request is told as it comes, and does not end it."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("work")
    message = conn.receive("work")
    conn.send("progress", {"percent": 50}, id=message["id"])
    assert client.next_event("progress")["data"] == {"percent": 50}
    conn.answer(message, "done")
    assert client.outcome(request) == {"data": "done"}


@scenario
def request_that_is_given_up_is_cancelled(server: ScriptedServer, client: Driver) -> None:
    """Giving a request up sends ``cancel`` with its id, and ends it at once."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("work")
    message = conn.receive("work")
    client.cancel(request)
    assert client.outcome(request)["error"] == "cancelled"
    assert conn.receive("cancel")["id"] == message["id"]


@scenario
def request_cut_in_flight_says_that_it_was_sent(server: ScriptedServer, client: Driver) -> None:
    """A request that was sent and then cut fails with ``sent``, and is not repeated."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("pay", {"euro": 5})
    conn.receive("pay")
    conn.cut()
    assert client.outcome(request) == {"error": "disconnected", "sent": True}
    conn = server.accept()
    other = client.request("other")
    conn.answer(conn.receive("other"))  # and nothing else came before it
    assert client.outcome(other) == {"data": None}


@scenario
def request_is_repeated_if_the_caller_said_so(server: ScriptedServer, client: Driver) -> None:
    """With ``repeat`` a request that was cut is sent again, within its timeout."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("read", {"meter": 1}, repeat=True)
    conn.receive("read")
    conn.cut()
    conn = server.accept()
    message = conn.receive("read")
    assert message["data"] == {"meter": 1}
    conn.answer(message, 21.5)
    assert client.outcome(request) == {"data": 21.5}
    assert conn.nothing_came()


@scenario
def request_waits_for_a_connection(server: ScriptedServer, client: Driver) -> None:
    """A request before the connection is open waits for it, and is sent once."""
    client.connect(server.url)
    conn = server.accept()
    client.wait_status("open")
    conn.cut()
    client.wait_status("waiting", "connecting")
    request = client.request("greet")
    conn = server.accept()
    conn.answer(conn.receive("greet"), "hello")
    assert client.outcome(request) == {"data": "hello"}
    assert conn.nothing_came()


@scenario
def request_without_a_connection_times_out(server: ScriptedServer, client: Driver) -> None:
    """A request waits for a connection no longer than its timeout, and is not sent later."""
    client.connect(server.url)
    conn = server.accept()
    client.wait_status("open")
    server.refusing = Refusal(503, "stopping")
    conn.cut()
    client.wait_status("waiting", "connecting")
    request = client.request("greet", timeout=0.1)
    assert client.outcome(request)["error"] == "timeout"
    server.refusing = None
    conn = server.accept()
    other = client.request("other")
    conn.answer(conn.receive("other"))
    assert client.outcome(other) == {"data": None}


@scenario
def send_without_a_connection_says_so(server: ScriptedServer, client: Driver) -> None:
    """What cannot be sent is said to be so, and nothing is queued."""
    client.connect(server.url)
    conn = server.accept()
    client.wait_status("open")
    assert client.send("move", {"x": 1})
    assert conn.receive("move")["data"] == {"x": 1}
    server.refusing = Refusal(503, "stopping")
    conn.cut()
    client.wait_status("waiting", "connecting")
    assert not client.send("move", {"x": 2})
    server.refusing = None
    conn = server.accept()
    client.wait_status("open")
    assert client.send("move", {"x": 3})
    assert conn.receive("move")["data"] == {"x": 3}


# --- messages -------------------------------------------------------------------------


@scenario
def messages_come_in_order(server: ScriptedServer, client: Driver) -> None:
    """Messages of a type are handed over in their order; junk between them hurts nobody."""
    client.connect(server.url)
    client.on("reading")
    conn = server.accept()
    conn.send("reading", 1)
    conn.send_text("no json {")
    conn.send_text("[1]")
    conn.send_binary(b"\x00\x01")
    conn.send("response", "nobody asked", id=4711)
    conn.send("reading", 2)
    conn.send("reading")
    events = [client.next_event("message") for _ in range(3)]
    assert [event["type"] for event in events] == ["reading"] * 3
    assert [event.get("data") for event in events] == [1, 2, None]
    assert client.statuses()[-1] == "open"


@scenario
def question_is_answered(server: ScriptedServer, client: Driver) -> None:
    """A question of ``call()`` is answered by what handles its type, with its id."""
    client.connect(server.url)
    client.handle("confirm", {"sure": True})
    client.handle("refuse", error="not_now")
    conn = server.accept()
    conn.send("confirm", "sure?", id="q-1")
    assert conn.receive("response") == {"type": "response", "id": "q-1", "data": {"sure": True}}
    conn.send("refuse", "sure?", id="q-2")
    answer = conn.receive("error")
    assert answer["id"] == "q-2"
    assert answer["data"]["code"] == "not_now"


# --- reconnecting ---------------------------------------------------------------------


@scenarios([1001, 1005, 1011, 1012, 1013, 1014, 3000])
def close_is_followed_by_a_new_connection(
    server: ScriptedServer, client: Driver, code: int
) -> None:
    """After these close codes the client connects again."""
    client.connect(server.url)
    conn = server.accept()
    client.wait_status("open")
    conn.close(code, "for now")
    server.accept()
    client.wait_status("open")


@scenarios([False, True])
def cut_is_followed_by_a_new_connection(
    server: ScriptedServer, client: Driver, reset: bool
) -> None:
    """After an end without a close frame, or a reset, the client connects again."""
    client.connect(server.url)
    conn = server.accept()
    client.wait_status("open")
    conn.cut(reset=reset)
    server.accept()
    client.wait_status("open")


@scenarios([1000, 1002, 1003, 1007, 1008, 1009, 1010, 4000, 4400, 4403, 4409, 4499])
def close_is_final(server: ScriptedServer, client: Driver, code: int) -> None:
    """After these close codes the client stays away, and says why."""
    client.connect(server.url)
    conn = server.accept()
    client.wait_status("open")
    conn.close(code, "for good")
    assert client.wait_status("refused", "closed")["code"] == code
    assert server.nobody_comes(0.2)


@scenarios([400, 401, 403, 404, 421, 426])
def refusal_is_final(server: ScriptedServer, client: Driver, status: int) -> None:
    """After these refusals the client stays away, and says which it was."""
    server.refusing = Refusal(status, "no_way")
    client.connect(server.url)
    assert client.wait_status("refused")["code"] == status
    attempts = len(server.attempts)
    assert server.nobody_comes(0.2)
    assert attempts == 1


@scenarios([403, 404])
def refusal_of_a_later_attempt_is_final(
    server: ScriptedServer, client: Driver, status: int
) -> None:
    """A refusal ends the reconnecting as well."""
    client.connect(server.url)
    conn = server.accept()
    server.refusing = Refusal(status, "no_way")
    conn.cut()
    assert client.wait_status("refused")["code"] == status
    assert server.nobody_comes(0.2)


@scenarios([429, 500, 502, 503])
def refusal_is_tried_again(server: ScriptedServer, client: Driver, status: int) -> None:
    """After these refusals the client tries again until it is let in."""
    client.connect(server.url)
    conn = server.accept()
    server.refusing = Refusal(status, "later")
    conn.cut()
    _until(lambda: len(server.attempts) >= 3)
    server.refusing = None
    server.accept()
    client.wait_status("open")


@scenario
def closed_port_is_tried_again(server: ScriptedServer, client: Driver) -> None:
    """A server that does not listen is tried until it does, from the first attempt on."""
    server.hush()
    client.connect(server.url)
    client.wait_status("waiting")
    server.listen()
    server.accept()
    client.wait_status("open")


@scenario
def handshake_that_hangs_is_given_up(server: ScriptedServer, client: Driver) -> None:
    """A server that accepts the connection and says nothing does not hold the client up."""
    client.connect(server.url, timeout=0.4)
    conn = server.accept()
    client.wait_status("open")
    conn.cut()
    server.expect()  # and left without an answer
    server.accept()
    client.wait_status("open")


@scenario
def back_off_grows_and_is_not_reset_by_a_short_connection(
    server: ScriptedServer, client: Driver
) -> None:
    """A connection that ends right after it opened is no reason to come back at once."""
    client.connect(server.url, min_delay=0.02, jitter=1.0)
    for _ in range(5):
        conn = server.accept()
        conn.close(1011)
    server.accept()
    gaps = [b - a for a, b in zip(server.attempts, server.attempts[1:], strict=False)]
    assert all(gap >= 0.018 * 2**n for n, gap in enumerate(gaps)), gaps


@scenario
def back_off_is_reset_by_a_connection_that_lasts(server: ScriptedServer, client: Driver) -> None:
    """After a connection that has lasted, the back-off begins anew."""
    client.connect(server.url, min_delay=0.05, jitter=1.0, reset_after=0.1)
    for _ in range(4):
        server.accept().close(1011)
    conn = server.accept()  # behind a pause of 0.4 s; the next would be of 0.8 s
    client.wait_status("open")
    _sleep(0.2)
    conn.close(1011)
    closed = time.monotonic()
    assert server.accept().at - closed < 0.5


@scenario
def delay_is_random(server: ScriptedServer, client: Driver) -> None:
    """With a source of random numbers that gives 0 there is no delay: the jitter is full."""
    client.connect(server.url, min_delay=5.0, jitter=0.0)
    for _ in range(3):
        server.accept().cut()
    server.accept()
    assert server.attempts[-1] - server.attempts[0] < 2.0


@scenario
def goodbye_says_when_to_come_back(server: ScriptedServer, client: Driver) -> None:
    """``retry_after`` of a goodbye decides about the delay."""
    client.connect(server.url, min_delay=30.0, jitter=1.0)
    conn = server.accept()
    client.wait_status("open")
    conn.send("goodbye", {"retry_after": 0.3, "reason": "restart"})
    conn.close(1012)
    closed = time.monotonic()
    pause = server.accept().at - closed
    assert 0.2 < pause < 2.0


@scenario
def goodbye_lets_requests_finish(server: ScriptedServer, client: Driver) -> None:
    """Between a goodbye and the close the connection works as ever."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("work")
    message = conn.receive("work")
    conn.send("goodbye", {"retry_after": 0.05, "reason": "shutdown"})
    conn.answer(message, "done")
    assert client.outcome(request) == {"data": "done"}
    conn.close(1001)
    server.accept()


@scenario
def retry_after_of_a_refusal_is_honoured(server: ScriptedServer, client: Driver) -> None:
    """``Retry-After`` of a refusal decides about the delay."""
    client.connect(server.url)
    conn = server.accept()
    server.refusing = Refusal(503, "stopping", {"Retry-After": "1"})
    conn.cut()
    _until(lambda: len(server.attempts) == 2)
    refused = server.attempts[-1]
    client.wait_status("waiting")  # it may ask /_daebus/check as well
    server.refusing = None
    pause = server.accept().at - refused
    assert 0.9 < pause < 3.0


# --- tokens ---------------------------------------------------------------------------


@scenario
def token_goes_along(server: ScriptedServer, client: Driver) -> None:
    """The token is asked for once, and goes with each attempt."""
    client.connect(server.url, tokens=["täglich", "unused"])
    server.accept().cut()
    server.accept()
    client.wait_status("open")
    assert server.tokens == ["täglich", "täglich"]
    assert client.tokens_asked() == 1


@scenario
def token_is_asked_for_anew_after_a_401(server: ScriptedServer, client: Driver) -> None:
    """After a 401 a new token is tried, once."""
    client.connect(server.url, tokens=["old", "new", "newer"])
    conn = server.accept()
    server.refusing = Refusal(401, "expired")
    conn.cut()
    assert client.wait_status("refused")["code"] == 401
    assert server.tokens == ["old", "old", "new"]
    assert client.tokens_asked() == 2
    assert server.nobody_comes(0.2)


@scenario
def token_is_asked_for_anew_after_a_4401(server: ScriptedServer, client: Driver) -> None:
    """After a close with 4401 a new token is tried, once."""
    client.connect(server.url, tokens=["old", "new", "newer"])
    server.accept().close(4401, "expired")
    conn = server.accept()
    assert conn.token == "new"
    conn.close(4401, "expired")
    assert client.wait_status("refused", "closed")["code"] == 4401
    assert client.tokens_asked() == 2
    assert server.nobody_comes(0.2)


@scenario
def without_a_token_4401_is_final(server: ScriptedServer, client: Driver) -> None:
    """A client without a token function has nothing else to try after 4401."""
    client.connect(server.url)
    server.accept().close(4401, "expired")
    assert client.wait_status("refused", "closed")["code"] == 4401
    assert server.nobody_comes(0.2)


# --- heartbeats -----------------------------------------------------------------------


@scenario
def heartbeat_asks_a_silent_server(server: ScriptedServer, client: Driver) -> None:
    """A silent server is asked for a sign of life, and one that answers is left alone."""
    client.connect(server.url, heartbeat=0.05, heartbeat_timeout=2.0)
    conn = server.accept()
    _until(lambda: conn.heartbeats >= 3)
    assert client.statuses()[-1] == "open"
    assert len(server.attempts) == 1


@scenario
def any_message_is_a_sign_of_life(server: ScriptedServer, client: Driver) -> None:
    """A server that does not answer heartbeats, but sends messages, is alive."""
    client.connect(server.url, heartbeat=0.1, heartbeat_timeout=0.3)
    client.on("tick")
    conn = server.accept(heartbeats=False)
    for number in range(12):
        conn.send("tick", number)
        _sleep(0.1)
    assert client.statuses()[-1] == "open"
    assert len(server.attempts) == 1


@scenario
def frozen_server_is_left(server: ScriptedServer, client: Driver) -> None:
    """A server that answers nothing is left within heartbeat and timeout, without its consent."""
    client.connect(server.url, heartbeat=0.2, heartbeat_timeout=0.2)
    conn = server.accept()
    client.wait_status("open")
    request = client.request("work", timeout=5.0)
    conn.receive("work")
    conn.freeze()
    frozen = time.monotonic()
    other = server.accept()
    assert other.at - frozen < 2.0
    assert client.outcome(request) == {"error": "disconnected", "sent": True}
    client.wait_status("open")
    conn.thaw()  # what comes from the old one has no effect
    request = client.request("again")
    other.answer(other.receive("again"))
    assert client.outcome(request) == {"data": None}


@scenario
def server_frozen_before_the_handshake_is_left(server: ScriptedServer, client: Driver) -> None:
    """A frozen server costs a timeout, and not the client."""
    client.connect(server.url, heartbeat=0.2, heartbeat_timeout=0.2, timeout=0.4)
    conn = server.accept()
    conn.freeze()
    server.expect()  # hangs
    server.accept()
    client.wait_status("open")


# --- the end --------------------------------------------------------------------------


@scenario
def closed_client_stays_away(server: ScriptedServer, client: Driver) -> None:
    """After ``close()`` nothing connects any more; requests that wait end."""
    client.connect(server.url)
    conn = server.accept()
    request = client.request("work")
    conn.receive("work")
    client.close()
    client.wait_status("closed")
    assert client.outcome(request) == {"error": "disconnected", "sent": True}
    assert conn.ended.wait(5)
    assert conn.close_code in (1000, 1001, 1005)
    assert server.nobody_comes(0.2)


@scenario
def client_closed_while_it_waits_stays_away(server: ScriptedServer, client: Driver) -> None:
    """``close()`` while the client waits for its next attempt ends that too."""
    client.connect(server.url, min_delay=0.3, jitter=1.0)
    conn = server.accept()
    client.wait_status("open")
    conn.cut()
    client.wait_status("waiting")
    client.close()
    client.wait_status("closed")
    assert server.nobody_comes(0.5)


@scenario
def client_closed_while_it_connects_stays_away(server: ScriptedServer, client: Driver) -> None:
    """``close()`` in the middle of a handshake ends that too."""
    client.connect(server.url)
    server.accept().cut()
    conn = server.expect()
    client.close()
    client.wait_status("closed")
    assert server.nobody_comes(0.2)
    conn.cut()


# --- topics ---------------------------------------------------------------------------


def _answered(epoch: str = "e1", offset: int = 0, **fields: Any) -> Message:
    """Return the answer to a subscribe, of a new subscriber unless the fields say otherwise."""
    return {
        "kind": "history",
        "epoch": epoch,
        "offset": offset,
        "recovered": False,
        "reason": "new",
        "replay": 0,
        "missed": None,
        **fields,
    }


def _publish(conn: Any, topic: str, offset: int, data: Any, message_type: str = "alarm") -> None:
    conn.send(message_type, data, topic=topic, offset=offset)


@scenario
def topic_brings_its_messages(server: ScriptedServer, client: Driver) -> None:
    """Messages of a topic come with topic and offset; the position follows them."""
    client.connect(server.url)
    client.topic("alarms", last=20)
    conn = server.accept()
    message = conn.receive("subscribe")
    assert message["data"] == {"topic": "alarms", "last": 20}
    conn.answer(message, {"topic": "alarms", **_answered(offset=7, replay=1)})
    _publish(conn, "alarms", 7, "replayed")
    _publish(conn, "alarms", 8, {"text": "pressure"})
    assert client.next_event("publication") == {
        "kind": "publication",
        "topic": "alarms",
        "type": "alarm",
        "data": "replayed",
        "offset": 7,
    }
    assert client.next_event("publication")["data"] == {"text": "pressure"}
    assert client.position("alarms") == {"epoch": "e1", "offset": 8}


@scenario
def topic_is_resumed(server: ScriptedServer, client: Driver) -> None:
    """After a cut the client asks for what came since its position, and nothing is told twice."""
    client.connect(server.url)
    client.topic("alarms")
    conn = server.accept()
    conn.answer(conn.receive("subscribe"), {"topic": "alarms", **_answered(offset=40)})
    _publish(conn, "alarms", 41, "a")
    assert client.next_event("publication")["data"] == "a"
    conn.cut()
    conn = server.accept()
    message = conn.receive("subscribe")
    assert message["data"] == {"topic": "alarms", "since": {"epoch": "e1", "offset": 41}}
    resumed = _answered(offset=43, recovered=True, reason=None, replay=2, missed=0)
    conn.answer(message, {"topic": "alarms", **resumed})
    _publish(conn, "alarms", 42, "b")
    _publish(conn, "alarms", 43, "c")
    assert [client.next_event("publication")["data"] for _ in range(2)] == ["b", "c"]


@scenario
def topic_cut_in_a_replay_is_resumed_from_there(server: ScriptedServer, client: Driver) -> None:
    """The position after an answer is that before the replay: a cut in it loses nothing."""
    client.connect(server.url)
    client.topic("alarms", since={"epoch": "e1", "offset": 10})
    conn = server.accept()
    message = conn.receive("subscribe")
    assert message["data"]["since"] == {"epoch": "e1", "offset": 10}
    resumed = _answered(offset=13, recovered=True, reason=None, replay=3, missed=0)
    conn.answer(message, {"topic": "alarms", **resumed})
    _publish(conn, "alarms", 11, "a")
    assert client.next_event("publication")["data"] == "a"
    conn.cut()
    conn = server.accept()
    assert conn.receive("subscribe")["data"]["since"] == {"epoch": "e1", "offset": 11}


@scenario
def topic_without_a_message_is_resumed_too(server: ScriptedServer, client: Driver) -> None:
    """The answer alone gives a position, twice in a row."""
    client.connect(server.url)
    client.topic("alarms")
    conn = server.accept()
    conn.answer(conn.receive("subscribe"), {"topic": "alarms", **_answered("x", 0)})
    for _ in range(2):
        conn.send("sync")
        request = client.request("flush")
        conn.answer(conn.receive("flush"))  # so the answer to the subscribe was read before
        client.outcome(request)
        conn.cut()
        conn = server.accept()
        message = conn.receive("subscribe")
        assert message["data"]["since"] == {"epoch": "x", "offset": 0}
        resumed = _answered("x", 0, recovered=True, reason=None, missed=0)
        conn.answer(message, {"topic": "alarms", **resumed})


@scenarios(["epoch", "expired", "ahead", "limit"])
def topic_that_could_not_be_resumed_says_so(
    server: ScriptedServer, client: Driver, reason: str
) -> None:
    """``recovered: false`` is told as a gap with its reason, and its position is adopted."""
    missed = 5 if reason in ("expired", "limit") else None
    epoch = "e1" if missed else "e2"
    client.connect(server.url)
    client.topic("alarms")
    conn = server.accept()
    conn.answer(conn.receive("subscribe"), {"topic": "alarms", **_answered(offset=3)})
    _publish(conn, "alarms", 4, "a")
    assert client.next_event("publication")["data"] == "a"
    conn.cut()
    conn = server.accept()
    message = conn.receive("subscribe")
    conn.answer(message, {"topic": "alarms", **_answered(epoch, 9, reason=reason, missed=missed)})
    _publish(conn, "alarms", 10, "b")
    assert client.next_event("publication")["data"] == "b"
    gap = client.next_event("gap")
    assert (gap["topic"], gap["reason"], gap["missed"]) == ("alarms", reason, missed)
    conn.cut()
    conn = server.accept()
    assert conn.receive("subscribe")["data"]["since"] == {"epoch": epoch, "offset": 10}


@scenario
def new_topic_is_no_gap(server: ScriptedServer, client: Driver) -> None:
    """The first subscribe has lost nothing."""
    client.connect(server.url)
    client.topic("alarms")
    conn = server.accept()
    conn.answer(conn.receive("subscribe"), {"topic": "alarms", **_answered(offset=3)})
    _publish(conn, "alarms", 4, "a")
    assert client.next_event("publication")["data"] == "a"
    conn.send("gap", {"topic": "alarms", "epoch": "e1", "offset": 8, "missed": 4, "reason": "slow"})
    _publish(conn, "alarms", 9, "b")
    assert client.next_event("publication")["data"] == "b"
    assert client.next_event("gap")["reason"] == "slow"  # the first and only one


@scenario
def gap_gives_a_new_position(server: ScriptedServer, client: Driver) -> None:
    """The position of a ``gap`` is adopted, its epoch as well."""
    client.connect(server.url)
    client.topic("alarms")
    conn = server.accept()
    conn.answer(conn.receive("subscribe"), {"topic": "alarms", **_answered(offset=3)})
    cleared = {"epoch": "e2", "offset": 0, "missed": None, "reason": "epoch"}
    conn.send("gap", {"topic": "alarms", **cleared})
    request = client.request("flush")
    conn.answer(conn.receive("flush"))
    client.outcome(request)
    conn.cut()
    conn = server.accept()
    assert conn.receive("subscribe")["data"]["since"] == {"epoch": "e2", "offset": 0}


@scenario
def several_topics_are_resumed_together(server: ScriptedServer, client: Driver) -> None:
    """All topics are subscribed to in one go, none waits for the answer of another."""
    client.connect(server.url)
    for name in ("a", "b", "c"):
        client.topic(name)
    conn = server.accept()
    names = [conn.receive("subscribe")["data"]["topic"] for _ in range(3)]
    assert sorted(names) == ["a", "b", "c"]
    conn.cut()
    conn = server.accept()
    assert sorted(conn.receive("subscribe")["data"]["topic"] for _ in range(3)) == ["a", "b", "c"]


@scenario
def closed_topic_is_left(server: ScriptedServer, client: Driver) -> None:
    """Closing a topic unsubscribes, and it is not subscribed to again."""
    client.connect(server.url)
    client.topic("alarms")
    conn = server.accept()
    conn.answer(conn.receive("subscribe"), {"topic": "alarms", **_answered(offset=3)})
    client.leave_topic("alarms")
    message = conn.receive("unsubscribe")
    assert message["data"] == {"topic": "alarms"}
    if "id" in message:
        conn.answer(message, {"subscribed": False})
    conn.cut()
    conn = server.accept()
    request = client.request("other")
    conn.answer(conn.receive("other"))  # and no subscribe before it
    assert client.outcome(request) == {"data": None}


# --- states ---------------------------------------------------------------------------


def _state_answer(message: Message, epoch: str = "s1", **fields: Any) -> Message:
    return {"topic": message["data"]["topic"], **_answered(epoch, **fields), "kind": "state"}


def _patch(conn: Any, offset: int, **data: Any) -> None:
    conn.send("state", data, topic="boiler", offset=offset)


@scenario
def state_is_kept_current(server: ScriptedServer, client: Driver) -> None:
    """A snapshot replaces what was there, and changes are applied: set, then removed."""
    client.connect(server.url)
    client.state("boiler")
    conn = server.accept()
    message = conn.receive("subscribe")
    assert message["data"] == {"topic": "boiler"}
    conn.answer(message, _state_answer(message, offset=88, replay=2))
    first = {"celsius": 21.4, "pump": True}
    _patch(conn, 88, snapshot=True, set=first, removed=[], synced=True)
    _until(lambda: client.values("boiler") == first)
    _patch(conn, 89, set={"celsius": 21.5})
    _patch(conn, 90, set={"valve": 3}, removed=["pump"])
    _until(lambda: client.values("boiler") == {"celsius": 21.5, "valve": 3})


@scenario
def state_converges_after_a_cut(server: ScriptedServer, client: Driver) -> None:
    """After a cut only what changed since is asked for, and the values are those of the server."""
    client.connect(server.url)
    client.state("boiler")
    conn = server.accept()
    message = conn.receive("subscribe")
    conn.answer(message, _state_answer(message, offset=5, replay=2))
    _patch(conn, 5, snapshot=True, set={"a": 1, "b": 2}, synced=True)
    _patch(conn, 6, set={"a": 3})
    _until(lambda: client.values("boiler") == {"a": 3, "b": 2})
    conn.cut()
    conn = server.accept()
    message = conn.receive("subscribe")
    assert message["data"]["since"] == {"epoch": "s1", "offset": 6}
    caught_up: Any = {"recovered": True, "reason": None, "missed": 0}
    conn.answer(message, _state_answer(message, offset=9, replay=2, **caught_up))
    _patch(conn, 9, set={"c": 4}, removed=["b"], synced=True)
    _until(lambda: client.values("boiler") == {"a": 3, "c": 4})


@scenario
def state_cut_in_its_catch_up_keeps_its_position(server: ScriptedServer, client: Driver) -> None:
    """Until a catch-up is complete the position is the old one, or none."""
    client.connect(server.url)
    client.state("boiler")
    conn = server.accept()
    message = conn.receive("subscribe")
    conn.answer(message, _state_answer(message, offset=50, replay=2))
    _patch(conn, 20, snapshot=True, set={"a": 1})  # the first of two frames
    request = client.request("flush")
    conn.answer(conn.receive("flush"))
    client.outcome(request)
    conn.cut()
    conn = server.accept()
    message = conn.receive("subscribe")
    assert "since" not in message["data"]
    conn.answer(message, _state_answer(message, offset=50, replay=2))
    _patch(conn, 20, snapshot=True, set={"a": 1})
    _patch(conn, 50, set={"b": 2}, synced=True)
    _until(lambda: client.values("boiler") == {"a": 1, "b": 2})
    conn.cut()
    conn = server.accept()
    message = conn.receive("subscribe")
    assert message["data"]["since"] == {"epoch": "s1", "offset": 50}
    caught_up: Any = {"recovered": True, "reason": None, "missed": 0}
    conn.answer(message, _state_answer(message, offset=70, replay=2, **caught_up))
    _patch(conn, 60, set={"a": 5})  # the first of two frames
    request = client.request("flush")
    conn.answer(conn.receive("flush"))
    client.outcome(request)
    conn.cut()
    conn = server.accept()
    assert conn.receive("subscribe")["data"]["since"] == {"epoch": "s1", "offset": 50}


@scenario
def state_of_a_new_epoch_forgets_what_it_had(server: ScriptedServer, client: Driver) -> None:
    """A snapshot after a restart leaves nothing of the old values."""
    client.connect(server.url)
    client.state("boiler")
    conn = server.accept()
    message = conn.receive("subscribe")
    conn.answer(message, _state_answer(message, offset=5, replay=1))
    _patch(conn, 5, snapshot=True, set={"old": 1}, synced=True)
    _until(lambda: client.values("boiler") == {"old": 1})
    conn.cut()
    conn = server.accept()
    message = conn.receive("subscribe")
    conn.answer(message, _state_answer(message, "s2", offset=2, replay=1, reason="epoch"))
    _patch(conn, 2, snapshot=True, set={"new": 2}, synced=True)
    _until(lambda: client.values("boiler") == {"new": 2})


# --- waiting ----------------------------------------------------------------------------


def _until(holds: Callable[[], bool], timeout: float = 8.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        _sleep(0.01)


def _sleep(seconds: float) -> None:
    """Let time pass, where the passing of time is what a scenario is about."""
    time.sleep(seconds)
