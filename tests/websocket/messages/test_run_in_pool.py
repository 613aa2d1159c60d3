"""``run_in="pool"``: a bounded pool, and a client that goes on meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from daebus import ClientError, Daebus, WebSocketRequest
from tests.support.fixture_types import MakeApp
from tests.support.waiting import eventually


class Jobs:
    """An app whose handler ``job`` waits, in the pool, until it is let go."""

    def __init__(self, app: Daebus) -> None:
        self.app = app
        self.threads: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        app.socket("echo")(lambda req: req.data)
        app.socket("job", run_in="pool")(self.job)

    def job(self, req: WebSocketRequest) -> Any:
        self.threads.append(threading.current_thread().name)
        self.begun.release()
        assert self.go.wait(10)
        if req.data == "fail":
            raise ClientError("no", "mine")
        if req.data == "send":
            self.app.websocket.send("sent")
            return None
        return req.data


@pytest.fixture
def jobs(make_app: MakeApp) -> Iterator[Jobs]:
    made = Jobs(make_app(background_workers=2, background_queue=2))
    yield made
    made.go.set()


def ask(client: Any, kind: str, data: Any, ident: Any) -> None:
    client.send_raw(f'{{"type": "{kind}", "data": "{data}", "id": {ident}}}')


def test_a_client_goes_on_while_its_job_runs(jobs: Jobs) -> None:
    with jobs.app.test_client() as client:
        ask(client, "job", "one", 1)
        assert jobs.begun.acquire(timeout=5)
        assert client.request("echo", "meanwhile") == "meanwhile"
        jobs.go.set()
        assert client.receive() == {"type": "response", "data": "one", "id": 1}
    assert jobs.threads == ["daebus-job-1"]


def test_answers_errors_and_sends_reach_the_client_that_asked(jobs: Jobs) -> None:
    with jobs.app.test_client() as a, jobs.app.test_client() as b:
        ask(a, "job", "send", 1)
        ask(b, "job", "fail", 2)
        for _ in range(2):
            assert jobs.begun.acquire(timeout=5)
        jobs.go.set()
        assert a.receive() == {"type": "response", "data": "sent", "id": 1}
        assert b.receive() == {
            "type": "error",
            "data": {"error": "no", "code": "mine", "message_type": "job"},
            "id": 2,
        }
        stats = jobs.app.websocket.stats
        assert eventually(lambda: "job" in stats()["handlers"])
        assert eventually(lambda: stats()["handlers"]["job"]["count"] == 2)
        assert stats()["errors"] == {"mine": 1}


def test_beyond_workers_and_queue_the_client_is_told(jobs: Jobs) -> None:
    with jobs.app.test_client() as client:
        for number in range(2):
            ask(client, "job", number, number)
            assert jobs.begun.acquire(timeout=5)
        for number in range(2, 6):
            ask(client, "job", number, number)
        refused = [client.receive() for _ in range(2)]
        assert [(m["id"], m["data"]["code"]) for m in refused] == [(4, "busy"), (5, "busy")]
        jobs.go.set()
        answers = [client.receive() for _ in range(4)]
        assert {m["id"]: m["data"] for m in answers} == {n: str(n) for n in range(4)}
    assert set(jobs.threads) == {"daebus-job-1", "daebus-job-2"}


def test_an_async_handler_may_run_there(app: Daebus) -> None:
    @app.socket("job", run_in="pool")
    async def job(req: WebSocketRequest) -> str:
        app.websocket.send("sent")
        return threading.current_thread().name

    with app.test_client() as client:
        ask(client, "job", "", 3)
        assert client.receive() == {"type": "response", "data": "sent", "id": 3}
        assert client.receive() == {"type": "response", "data": "daebus-loop", "id": 3}


def test_a_job_whose_client_has_left_ends_quietly(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    with jobs.app.test_client() as stays:
        with jobs.app.test_client() as leaves:
            ask(leaves, "job", "one", 1)
            assert jobs.begun.acquire(timeout=5)
        jobs.go.set()
        ask(stays, "job", "two", 2)
        assert stays.receive()["data"] == "two"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_job_that_raises_anything_does_not_end_its_thread(jobs: Jobs) -> None:
    @jobs.app.socket("exit", run_in="pool")
    def leave(req: WebSocketRequest) -> None:
        raise SystemExit

    jobs.go.set()
    with jobs.app.test_client() as client:
        for number in range(4):
            ask(client, "exit", "", number)
            assert client.receive()["data"]["code"] == "handler_error"
        ask(client, "job", "still", 9)
        assert client.receive() == {"type": "response", "data": "still", "id": 9}


@pytest.mark.parametrize("option", ["background_workers", "background_queue"])
def test_the_pool_has_at_least_one_of_each(make_app: MakeApp, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be greater than 0"):
        make_app(**{option: 0})


def test_eighty_jobs_of_one_client_make_no_other_busy(make_app: MakeApp) -> None:
    jobs = Jobs(make_app())
    with jobs.app.test_client() as hog, jobs.app.test_client() as other:
        for number in range(80):
            ask(hog, "job", number, number)
        assert hog.receive()["data"]["code"] == "busy"
        ask(other, "job", "mine", 1)
        assert eventually(lambda: len(jobs.threads) == 7)  # two threads were kept for others
        jobs.go.set()
        assert other.receive() == {"type": "response", "data": "mine", "id": 1}


def test_jobs_that_have_not_begun_leave_with_their_client(jobs: Jobs) -> None:
    with jobs.app.test_client() as stays:
        with jobs.app.test_client() as leaves:
            for number in range(4):
                ask(leaves, "job", number, number)
            for _ in range(2):
                assert jobs.begun.acquire(timeout=5)
        assert eventually(lambda: len(jobs.app.websocket.get_clients()) == 1)
        for number in range(2):
            ask(stays, "job", number, number)
        assert stays.request("echo", "not busy") == "not busy"
        jobs.go.set()
        assert {stays.receive()["data"] for _ in range(2)} == {"0", "1"}
    assert len(jobs.threads) == 4
