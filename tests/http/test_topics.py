"""Topics over HTTP: a page of JSON for each, and a stream of events for several."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from werkzeug.test import create_environ

from daebus import Daebus, DaebusHttp, DaebusWebSocket, Reject
from tests.support.fixture_types import MakeApp, OpenRaw
from tests.support.raw import Raw
from tests.support.tls import client_context, server_context
from tests.support.waiting import eventually

TOPICS = "/_daebus/topics"
STREAM = f"{TOPICS}/events"


class Received(NamedTuple):
    """One event as a browser sees it."""

    name: str
    data: Any
    id: str | None


class Stream:
    """Reads a stream of events."""

    def __init__(self, client: Raw, target: str, *headers: str) -> None:
        self.client = client
        client.ask(target, *headers)
        head, _, self.text = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        self.status = int(head[9:12])
        self.headers = head.decode().lower()
        self.comments = 0
        self.retry: int | None = None

    def _until(self, mark: bytes) -> bytes:
        data = b""
        while mark not in data:
            more = self.client.sock.recv(65536)
            assert more, data
            data += more
        return data

    def next(self) -> Received:
        while True:
            while b"\n\n" not in self.text:
                more = self.client.sock.recv(65536)
                if not more:
                    raise EOFError
                self.text += more
            block, _, self.text = self.text.partition(b"\n\n")
            fields: dict[str, str] = {}
            for line in block.decode().splitlines():
                name, _, value = line.partition(":")
                if not name:
                    self.comments += 1
                fields[name] = value.removeprefix(" ")
            if "retry" in fields:
                self.retry = int(fields["retry"])
            if "data" in fields:
                return Received(fields["event"], json.loads(fields["data"]), fields.get("id"))


@pytest.fixture
def site(make_app: MakeApp) -> Daebus:
    return make_app(http={"topics": TOPICS}, ping_interval=None)


@pytest.fixture
def watch(raw: OpenRaw) -> Callable[..., Stream]:
    def open_stream(app: Daebus, query: str, *headers: str) -> Stream:
        return Stream(raw(app), f"{STREAM}?{query}", *headers)

    return open_stream


def test_a_topic_is_a_page_with_a_tag(site: Daebus, raw: OpenRaw) -> None:
    boiler = site.websocket.state("boiler")
    alarms = site.websocket.topic("device/7/alarms")
    boiler.update({"celsius": 21.4, "pump": True})
    alarms.publish({"text": "hot"}, "alarm")
    site.start()
    client = raw(site)
    answer = client.get(f"{TOPICS}/boiler")
    assert answer.json == {
        "topic": "boiler",
        "kind": "state",
        "epoch": boiler.epoch,
        "offset": boiler.offset,
        "values": {"celsius": 21.4, "pump": True},
    }
    tag = answer.header("etag")
    assert tag == f'"{boiler.epoch}.{boiler.offset}"'
    same = client.get(f"{TOPICS}/boiler", f"If-None-Match: {tag}")
    assert (same.status, same.body, same.header("etag")) == (304, b"", tag)
    assert client.get(f"{TOPICS}/boiler", f"If-None-Match: W/{tag}").status == 304
    boiler["celsius"] = 22
    assert client.get(f"{TOPICS}/boiler", f"If-None-Match: {tag}").status == 200
    answer = client.get(f"{TOPICS}/device/7/alarms")
    assert answer.json["messages"] == [
        {"type": "alarm", "topic": "device/7/alarms", "offset": 1, "data": {"text": "hot"}}
    ]
    assert (answer.json["kind"], answer.json["offset"]) == ("history", 1)
    head = client.get(f"{TOPICS}/boiler", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    site.websocket.topic("room/*")
    assert client.get(f"{TOPICS}/room/1").json["messages"] == []
    assert "room/1" not in site.websocket.get_topics()  # looking leaves nothing behind


def test_what_has_grown_old_changes_the_tag(site: Daebus, raw: OpenRaw) -> None:
    alarms = site.websocket.topic("alarms", history=1)
    site.start()
    client = raw(site)
    alarms.publish(1)
    tag = client.get(f"{TOPICS}/alarms").header("etag")
    short = site.websocket.topic("short", max_age=0.05)
    short.publish(1)
    before = client.get(f"{TOPICS}/short").header("etag")
    assert eventually(
        lambda: client.get(f"{TOPICS}/short", f"If-None-Match: {before}").status == 200
    )
    assert client.get(f"{TOPICS}/short").json["messages"] == []
    assert client.get(f"{TOPICS}/alarms", f"If-None-Match: {tag}").status == 304


def test_what_is_no_topic_is_said(site: Daebus, raw: OpenRaw) -> None:
    site.websocket.state("boiler")
    site.start()
    client = raw(site)
    answer = client.get(f"{TOPICS}/boller")
    assert (answer.status, answer.code) == (404, "unknown_topic")
    for query, code in [
        ("", "bad_request"),
        ("?topic=boiler&last=x", "bad_position"),
        ("?" + "&".join(f"topic={n}" for n in range(17)), "too_many_topics"),
    ]:
        answer = client.get(STREAM + query)
        assert (answer.status, answer.code) == (400, code)
    answer = client.get(f"{STREAM}?topic=boiler", "Last-Event-ID: 7")
    assert (answer.status, answer.code) == (400, "bad_position")
    assert client.get(f"{STREAM}?topic=other").status == 404
    answer = client.get(f"{TOPICS}/boiler", method="DELETE")
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert client.get(f"{TOPICS}/boiler", method="OPTIONS").header("allow") == "GET, HEAD, OPTIONS"


def test_it_is_off_unless_asked_for(make_app: MakeApp, raw: OpenRaw) -> None:
    app = make_app()
    app.websocket.state("boiler")
    app.start()
    assert raw(app).get(f"{TOPICS}/boiler").status == 404


@pytest.mark.parametrize(
    "path", ["topics", "/", "/a?b", "/../a", "/*", "/a/<b>", "/_daebus/check", "/_daebus/"]
)
def test_a_path_that_makes_no_sense(make_app: MakeApp, path: str) -> None:
    with pytest.raises(ValueError, match="write topics="):
        make_app(http={"topics": path})


def test_who_may_connect_may_read(make_app: MakeApp, raw: OpenRaw) -> None:
    app = make_app(http={"topics": TOPICS}, origins=["https://friend.example"])
    app.websocket.state("boiler")
    app.websocket.state("secret")
    asked: list[tuple[str, str, Any]] = []

    @app.authenticate
    def who(req: Any) -> Any:
        if "x-late" in req.headers:
            raise Reject(503, "come back later")
        return req.headers.get("x-name")

    @app.websocket.on_subscribe("*")
    def may(client_id: str, topic: str) -> bool:
        asked.append((client_id[:5], topic, app.websocket.get_identity(client_id)))
        return topic != "secret"

    app.start()
    client = raw(app)
    for target in (f"{TOPICS}/boiler", f"{STREAM}?topic=boiler"):
        assert client.get(target).code == "unauthorized"
        assert client.get(target, "X-Late: 1").status == 503
        answer = client.get(target, "X-Name: ada", "Origin: https://evil.example")
        assert (answer.status, answer.header("access-control-allow-origin")) == (403, None)
    for target in (f"{TOPICS}/secret", f"{STREAM}?topic=boiler&topic=secret"):
        answer = client.get(target, "X-Name: ada")
        assert (answer.status, answer.code) == (403, "forbidden")
    answer = client.get(f"{TOPICS}/boiler", "X-Name: ada", "Origin: https://friend.example")
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == "https://friend.example"
    asks = client.get(f"{TOPICS}/boiler", "Origin: https://friend.example", method="OPTIONS")
    assert "Authorization" in (asks.header("access-control-allow-headers") or "")
    asks = client.get(f"{TOPICS}/boiler", "Origin: https://evil.example", method="OPTIONS")
    assert asks.header("access-control-allow-headers") is None
    assert set(asked) == {("http-", "boiler", "ada"), ("http-", "secret", "ada")}
    assert app.websocket.stats()["refused"]["unauthorized"] == 2


def test_a_stream_tells_where_it_begins_and_goes_on(site: Daebus, watch: Any) -> None:
    boiler, alarms = site.websocket.state("boiler"), site.websocket.topic("alarms, all")
    boiler["celsius"] = 21.4
    for n in range(3):
        alarms.publish(n, "alarm")
    site.start()
    stream = watch(site, "topic=boiler&topic=alarms,%20all&last=2")
    assert stream.status == 200
    assert "content-type: text/event-stream" in stream.headers
    assert "cache-control: no-store" in stream.headers
    first = stream.next()
    assert stream.retry is not None
    assert 1000 <= stream.retry <= 3000
    assert first.name == "subscribed"
    assert first.data["type"] == "subscribed"
    state, history = first.data["data"]["topics"]
    assert (state["topic"], state["recovered"], state["reason"]) == ("boiler", False, "new")
    assert (history["topic"], history["replay"], history["offset"]) == ("alarms, all", 2, 3)
    assert first.id == f"alarms%2C%20all={alarms.epoch}.1"
    got = [stream.next() for _ in range(3)]
    assert [event.data["data"] for event in got if event.name == "alarm"] == [1, 2]
    (values,) = [event.data["data"] for event in got if event.name == "state"]
    assert values["set"] == {"celsius": 21.4}
    boiler["celsius"] = 22
    assert stream.next().data["data"]["set"] == {"celsius": 22}
    alarms.publish("last", "alarm")
    last = stream.next()
    assert last.data == {
        "type": "alarm",
        "topic": "alarms, all",
        "offset": 4,
        "data": "last",
    }
    assert last.id == f"boiler={boiler.epoch}.{boiler.offset},alarms%2C%20all={alarms.epoch}.4"
    assert site.stats()["websocket"]["topics"]["boiler"]["watchers"] == 1


def test_who_comes_back_gets_what_it_missed(site: Daebus, watch: Any) -> None:
    boiler, alarms = site.websocket.state("boiler"), site.websocket.topic("alarms")
    site.start()
    stream = watch(site, "topic=alarms&topic=boiler")
    stream.next()
    alarms.publish(1)
    events = [stream.next(), stream.next()]
    stream.client.sock.close()
    assert eventually(lambda: site.stats()["websocket"]["topics"]["alarms"]["watchers"] == 0)
    alarms.publish(2)
    boiler["x"] = 1
    alarms.publish(3)
    again = watch(site, "topic=alarms&topic=boiler", f"Last-Event-ID: {events[-1].id}")
    answers = again.next().data["data"]["topics"]
    assert [(answer["recovered"], answer["missed"]) for answer in answers] == [(True, 0)] * 2
    assert [answer["replay"] for answer in answers] == [2, 1]
    got = [again.next() for _ in range(3)]
    assert [event.data["data"] for event in got if event.name == "message"] == [2, 3]
    alarms.clear()
    gap = again.next()
    assert (gap.name, gap.data["data"]["reason"]) == ("gap", "epoch")
    alarms.publish(4)
    assert again.next().data["data"] == 4
    third = watch(site, "topic=alarms", f"Last-Event-ID: {events[-1].id}")
    (answer,) = third.next().data["data"]["topics"]
    assert (answer["recovered"], answer["reason"], answer["missed"]) == (False, "epoch", None)


def test_streams_are_counted_and_bounded(make_app: MakeApp, watch: Any, raw: OpenRaw) -> None:
    app = make_app(http={"topics": TOPICS, "max_watchers": 2}, ping_interval=None)
    app.websocket.state("boiler")
    app.start()
    before = threading.active_count()
    one, two = (watch(app, "topic=boiler") for _ in range(2))
    for stream in (one, two):
        assert stream.next().name == "subscribed"
    answer = raw(app).get(f"{STREAM}?topic=boiler")
    assert (answer.status, answer.code) == (503, "too_many_watchers")
    assert answer.header("retry-after") == "5"
    one.client.sock.close()
    assert eventually(lambda: watch(app, "topic=boiler").status == 200)
    # The thread that judged them is parked; there is none a stream.
    assert threading.active_count() <= before + 2


def test_streams_of_one_address_are_bounded(make_app: MakeApp, watch: Any, raw: OpenRaw) -> None:
    app = make_app(http={"topics": TOPICS}, max_clients_per_ip=2)
    app.websocket.state("boiler")
    app.start()
    streams = [watch(app, "topic=boiler") for _ in range(2)]
    assert raw(app).get(f"{STREAM}?topic=boiler").code == "too_many_from_address"
    streams.pop().client.sock.close()
    assert eventually(lambda: raw(app).get(f"{TOPICS}/boiler").status == 200)


def test_a_client_that_does_not_read_costs_one_piece(make_app: MakeApp, watch: Any) -> None:
    app = make_app(http={"topics": TOPICS}, ping_interval=None)
    alarms = app.websocket.topic("alarms", history=100)
    app.start()
    stream = watch(app, "topic=alarms")
    stream.next()
    text = "x" * 10_000
    for n in range(2000):  # twenty times what two sockets hold
        alarms.publish([n, text])
    seen: list[int] = []
    missed = 0
    while not seen or seen[-1] != 1999:
        event = stream.next()
        if event.name == "gap":
            assert event.data["data"]["reason"] == "slow"
            missed += event.data["data"]["missed"]
        else:
            seen.append(event.data["data"][0])
    assert seen == sorted(set(seen))
    assert missed > 0
    assert len(seen) + missed == 2000


def test_a_client_that_takes_nothing_is_cut(make_app: MakeApp, watch: Any) -> None:
    app = make_app(http={"topics": TOPICS, "write_timeout": 0.2}, ping_interval=None)
    alarms = app.websocket.topic("alarms")
    app.start()
    watch(app, "topic=alarms").next()

    def gone() -> bool:
        for _ in range(50):
            alarms.publish("x" * 10_000)
        return app.stats()["websocket"]["topics"]["alarms"]["watchers"] == 0

    assert eventually(gone)


def test_silence_is_broken_by_comments(make_app: MakeApp, watch: Any) -> None:
    app = make_app(http={"topics": TOPICS}, ping_interval=0.05)
    alarms = app.websocket.topic("alarms")
    app.start()
    stream = watch(app, "topic=alarms")
    stream.next()
    while b":\n\n:\n\n" not in stream.text:
        stream.text += stream.client.sock.recv(100)
    alarms.publish(1)
    assert stream.next().data["data"] == 1


def test_a_stream_ends_with_the_identity(make_app: MakeApp, watch: Any) -> None:
    app = make_app(http={"topics": TOPICS}, ping_interval=None)
    app.websocket.topic("alarms")
    app.authenticate(lambda req: {"expires_at": time.time() + 0.2})
    app.start()
    stream = watch(app, "topic=alarms")
    stream.next()
    with pytest.raises(EOFError):
        stream.next()


def test_a_stop_ends_streams(site: Daebus, watch: Any) -> None:
    alarms = site.websocket.topic("alarms")
    site.start()
    stream = watch(site, "topic=alarms")
    stream.next()
    alarms.publish(1)
    event = stream.next()
    site.stop(timeout=5)
    with pytest.raises(EOFError):
        stream.next()
    alarms.publish(2)
    site.start()
    again = watch(site, "topic=alarms", f"Last-Event-ID: {event.id}")
    assert again.next().data["data"]["topics"][0]["recovered"] is True
    assert again.next().data["data"] == 2


def spent(streams: list[Stream]) -> list[float]:
    """Read streams to their ends; return how long each was there."""
    began, ends = time.monotonic(), [0.0] * len(streams)

    def read(number: int) -> None:
        with contextlib.suppress(EOFError):
            while True:
                streams[number].next()
        ends[number] = time.monotonic() - began

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return ends


@pytest.mark.parametrize("end", ["drain", "spread", "passed on", "stop"])
def test_streams_leave_as_websockets_do(make_app: MakeApp, watch: Any, end: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        place: dict[str, Any] = {"sock": sock} if end == "passed on" else {}
        app = make_app(http={"topics": TOPICS, **place}, ping_interval=None)
        app.websocket.topic("alarms")
        app.start()
        streams = [watch(app, "topic=alarms") for _ in range(20)]
        for stream in streams:
            stream.next()
        if end in ("drain", "passed on"):
            app.drain(0.6)
            ends = spent(streams)
            app.stop(5)
        else:
            stopper = threading.Thread(
                target=app.stop, kwargs={"timeout": 5.0, "spread": 0.6 if end == "spread" else 0.0}
            )
            stopper.start()
            ends = spent(streams)
            stopper.join()
    pauses = [(stream.retry or 0) / 1000 for stream in streams]
    assert len(set(pauses)) > 10, pauses
    if end != "stop":
        assert max(ends) - min(ends) > 0.2  # each has its own moment
    if end in ("stop", "passed on"):  # whoever comes then is taken, or waits
        assert all(0.2 <= pause <= 2.0 for pause in pauses), pauses
    else:  # before the end of the spread they would be refused, and a browser gives up then
        comes = [0.6 - now - pause for now, pause in zip(ends, pauses, strict=True)]
        assert all(-2.2 < early < 0 for early in comes), comes


def test_a_client_has_nothing_to_say(site: Daebus, watch: Any) -> None:
    site.websocket.topic("alarms")
    site.start()
    stream = watch(site, "topic=alarms")
    stream.next()
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            stream.client.send(b"x" * 10_000)
    with pytest.raises((EOFError, ConnectionError)):
        stream.next()


def test_an_error_in_on_subscribe_is_not_told(site: Daebus, raw: OpenRaw) -> None:
    site.websocket.topic("alarms")

    @site.websocket.on_subscribe("alarms")
    def broken(client_id: str, topic: str) -> None:
        raise RuntimeError("the secret")

    site.start()
    answer = raw(site).get(f"{TOPICS}/alarms")
    assert (answer.status, answer.code) == (500, "internal_server_error")
    assert b"secret" not in answer.body


def test_a_hook_may_publish(site: Daebus, watch: Any) -> None:
    alarms = site.websocket.topic("alarms")
    site.websocket.on_subscribe("alarms")(lambda client_id, topic: bool(alarms.publish(1)) or True)
    site.start()
    stream = watch(site, "topic=alarms")
    assert stream.next().data["data"]["topics"][0]["offset"] == 1


def test_a_stream_over_tls(watch: Any) -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(port=0, topics=TOPICS, ssl_context=server_context()))
    app.attach(DaebusWebSocket())
    alarms = app.websocket.topic("alarms")
    with app:
        client = Raw(app)
        client.sock = client_context().wrap_socket(client.sock, server_hostname="127.0.0.1")
        with client:
            stream = Stream(client, f"{STREAM}?topic=alarms")
            stream.next()
            alarms.publish("x" * 300_000)  # more than one piece, and than one record
            assert len(stream.next().data["data"]) == 300_000


def test_another_server_shows_topics_and_streams_none() -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(topics=TOPICS))
    app.attach(DaebusWebSocket())
    app.websocket.state("boiler")["celsius"] = 21.4
    statuses: list[str] = []

    def get(path: str, query: str = "") -> Any:
        environ = create_environ(path, query_string=query)
        answer = app.wsgi(environ, lambda status, headers: statuses.append(status))
        return json.loads(b"".join(answer))

    assert get(f"{TOPICS}/boiler")["values"] == {"celsius": 21.4}
    assert get(STREAM, "topic=boiler")["code"] == "not_implemented"
    assert [status[:3] for status in statuses] == ["200", "501"]
    app.stop()


@pytest.mark.slow
def test_a_browser_resumes_by_itself(browser: Any) -> None:
    app = Daebus("test")
    app.attach(DaebusHttp(port=0, topics=TOPICS))
    app.attach(DaebusWebSocket())
    alarms = app.websocket.topic("alarms")
    app.route("/")(lambda req: "<!doctype html><link rel=icon href=data:,><title>t</title>")
    app.start()
    port = app.http.port
    page = browser.new_page()
    try:
        page.goto(f"http://localhost:{port}/")
        page.evaluate(
            """() => {
                window.seen = []; window.answers = [];
                const source = new EventSource('/_daebus/topics/events?topic=alarms');
                const parse = event => JSON.parse(event.data).data;
                source.addEventListener('alarm', event => seen.push(parse(event)));
                const note = event => answers.push(parse(event).topics[0]);
                source.addEventListener('subscribed', note);
            }"""
        )
        page.wait_for_function("() => answers.length == 1")
        alarms.publish(1, "alarm")
        page.wait_for_function("() => seen.length == 1")
        app.stop()
        alarms.publish(2, "alarm")
        app.start(port=port)
        alarms.publish(3, "alarm")
        page.wait_for_function("() => seen.length == 3")
        assert page.evaluate("() => seen") == [1, 2, 3]
        assert page.evaluate("() => answers[1].recovered") is True
    finally:
        page.close()
        app.stop()


@pytest.mark.slow
def test_hundreds_of_watchers_cost_no_thread(make_app: MakeApp, watch: Any) -> None:
    app = make_app(http={"topics": TOPICS}, ping_interval=None)
    alarms = app.websocket.topic("alarms")
    app.start()
    before = threading.active_count()
    streams = [watch(app, "topic=alarms") for _ in range(400)]
    for stream in streams:
        stream.next()
    assert threading.active_count() <= before + 8
    for n in range(20):
        alarms.publish(n)
    for stream in streams:
        assert [stream.next().data["data"] for _ in range(20)] == list(range(20))
