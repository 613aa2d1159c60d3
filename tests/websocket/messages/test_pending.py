"""Calls and requests in the moments in which their connection, or their time, ends."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daebus import CallTimeout, ClientGone
from daebus.websocket.connection.limits import Limits
from daebus.websocket.connection.link import Link
from daebus.websocket.messages.cancellation import CancelToken
from daebus.websocket.messages.pending import Answer, Pending, PendingCall
from daebus.websocket.messages.questions import put
from daebus.websocket.protocol import envelope
from tests.support.links import FakeTransport, make_link


class Request:
    """A request that can be stopped."""

    def __init__(self) -> None:
        self._token: CancelToken | None = None
        self.id = "7"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nobody_asks_on_a_connection_that_is_over(when: str) -> None:
    lock = threading.Lock()
    pending = Pending(lock, "ada", lambda: None, over=when == "before")
    if when == "meanwhile":
        with lock:
            pending.end_locked()
    with pytest.raises(ClientGone, match="ada"):
        pending.ask(Answer())
    assert not pending.waiting


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_request_that_is_first_asked_about_after_the_end_is_gone_at_once(when: str) -> None:
    lock = threading.Lock()
    pending = Pending(lock, "ada", lambda: None, over=when == "before")
    if when == "meanwhile":
        with lock:
            pending.end_locked()
    req = Request()
    token = pending.enlist(req)
    assert token.is_set()
    assert token.reason == "gone"
    assert pending.enlist(req) is token


class LateAnswer(Pending):
    """The answer comes after the time is over, and before the asker has given up."""

    def forget(self, ident: str) -> bool:
        with self._lock:
            self.take_locked("response", {"id": ident, "data": "late"})
        return super().forget(ident)


def ask(link: Link, pending: Pending) -> PendingCall:
    answer = Answer()
    forget = put(link, pending, "confirm", envelope.encode("confirm", None), answer)
    return PendingCall(link.client_id, "confirm", answer, forget)


def wait(call: PendingCall, flavour: str) -> Any:
    """Wait for an answer for a moment, in a thread whose loop nobody else has running."""
    if flavour == "sync":
        return call.result(0.001)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(call.result_async(0.001))).result()


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_an_answer_in_the_last_moment_wins(flavour: str) -> None:
    link = make_link("ada")
    assert link.begin(b"101", b"")
    call = ask(link, LateAnswer(link.writer.lock, "ada", lambda: None, over=False))
    assert wait(call, flavour) == "late"
    link.end()


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_call_that_is_not_answered_is_forgotten(flavour: str) -> None:
    link = make_link("ada")
    assert link.begin(b"101", b"")
    pending = Pending(link.writer.lock, "ada", lambda: None, over=False)
    call = ask(link, pending)
    waits = pending.waiting
    assert waits
    with pytest.raises(CallTimeout, match="did not answer 'confirm'"):
        wait(call, flavour)
    assert not pending.waiting
    link.end()


def test_a_question_that_a_full_outbox_drops_fails_at_once_and_is_forgotten() -> None:
    transport = FakeTransport()
    limits = Limits(on_full="drop_newest", max_outbox_messages=1, ping_interval=None)
    link = make_link("ada", transport, limits)
    assert link.begin(b"101", b"")
    transport.room = 0
    pending = Pending(link.writer.lock, "ada", lambda: None, over=False)
    waits = ask(link, pending)  # in the outbox
    with pytest.raises(CallTimeout, match="does not read"):
        ask(link, pending)
    left = pending.waiting
    assert left
    waits.forget()
    assert not pending.waiting
    link.end()
