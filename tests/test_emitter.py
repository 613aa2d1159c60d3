"""``Emitter`` and ``python -m daebus emit``: messages from programs without a server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daebus import (
    BackplaneError,
    Daebus,
    DaebusHttp,
    DaebusRedis,
    DaebusWebSocket,
    Emitter,
    EncodeError,
    StateError,
    TooLargeError,
    WebSocketRequest,
)
from daebus.__main__ import main
from daebus.backplane.frames import Header, Unsigned, unpack
from daebus.backplane.names import Names
from tests.support.cluster import Site, node_of
from tests.support.redisserver import RedisCluster, RedisServer
from tests.support.waiting import eventually

NAMES = Names("shop")
FRAMES, BEATS = NAMES.frames(0), NAMES.beats
ROOT = Path(__file__).resolve().parents[1]

Heard = Callable[[], tuple[Header, bytes]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture
def heard(server: RedisServer) -> Iterator[Heard]:
    """Return a function that gives the next frame of the app ``shop``."""
    import redis

    client: Any = redis.Redis.from_url(server.url, protocol=2)
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(FRAMES, BEATS)
    assert listener.get_message(timeout=5) is None  # the two answers to that
    assert listener.get_message(timeout=5) is None

    def take() -> tuple[Header, bytes]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            message = listener.get_message(timeout=0.25)
            if message is not None:
                return unpack(message["data"], message["channel"].decode())
        raise AssertionError("no frame came")

    yield take
    listener.close()
    client.close()


def test_every_kind_is_sent_and_numbered(server: RedisServer, heard: Heard) -> None:
    with Emitter(server.url, app="shop") as emitter:
        emitter.broadcast_to_all({"a": 1})
        emitter.broadcast_to_room("ops", [2], "job", exclude=["x"], droppable=True, conflate="job")
        emitter.send_to_user("ada", "three")
    hello, *frames = [heard() for _ in range(5)]
    assert (hello[0].kind, hello[0].more) == ("hello", {"up": 0.0})
    shown = [(h.kind, h.to, h.exclude, h.conflate, h.droppable, text) for h, text in frames[:3]]
    assert shown == [
        ("all", "", (), None, False, b'{"type":"broadcast","data":{"a":1}}'),
        ("room", "ops", ("x",), "job", True, b'{"type":"job","data":[2]}'),
        ("user", "ada", (), None, False, b'{"type":"message","data":"three"}'),
    ]
    assert [header.number for header, _ in frames] == [1, 2, 3, 0]
    assert len({(header.node, header.incarnation) for header, _ in frames}) == 1
    goodbye = frames[3][0]
    assert (goodbye.kind, goodbye.more) == ("bye", {"q": {FRAMES: 3}, "all": [FRAMES]})


def test_a_secret_signs(server: RedisServer, heard: Heard) -> None:
    with Emitter(server.url, app="shop", secret="s3") as emitter:
        emitter.broadcast_to_all(1)
    assert [heard()[0].kind for _ in range(3)] == ["hello", "all", "bye"]
    frame = b'{"v":1,"n":"e","i":"i","k":"all","s":1}\n1'
    with pytest.raises(Unsigned):
        unpack(frame, FRAMES, b"s3")


def test_what_cannot_be_sent_is_said_at_once(server: RedisServer) -> None:
    emitter = Emitter(server.url, app="shop", max_frame=2048)
    with pytest.raises(TooLargeError, match="max_frame is 2048"):
        emitter.broadcast_to_all("x" * 2048)
    with pytest.raises(EncodeError, match="'broadcast' message cannot be sent"):
        emitter.broadcast_to_all(object())
    for name in ("a*", "a\nb", "events", ""):
        for make in (emitter.topic, emitter.state):
            with pytest.raises(ValueError, match="name"):
                make(name)
    with pytest.raises(ValueError, match="a name has 1 to 128 characters"):
        emitter.broadcast_to_room("", 1)
    emitter.close()
    emitter.close()
    with pytest.raises(StateError, match="closed"):
        emitter.broadcast_to_all(1)


def test_an_outage_is_survived_and_a_long_one_is_said() -> None:
    with RedisServer() as server:
        server.kill()
        emitter = Emitter(server.url, app="shop", queue_age=0.3, queue_bytes=4096, max_frame=2048)
        emitter.broadcast_to_all("while it is away")
        emitter.broadcast_to_all("x" * 1500)
        emitter.broadcast_to_all("x" * 1500)
        with pytest.raises(BackplaneError, match="queue_bytes is 4096"):
            emitter.broadcast_to_all("x" * 1500)

        def is_said() -> bool:
            try:
                emitter.broadcast_to_all(1)
            except BackplaneError as exc:
                return "has been away for more than 0.3 s" in str(exc)
            return False

        assert eventually(is_said)
        server.start()
        assert eventually(lambda: not is_said())
        with pytest.raises(BackplaneError, match="messages did not reach <DaebusRedis"):
            emitter.close()


def test_close_waits_for_redis_and_says_what_is_lost() -> None:
    with RedisServer() as server:
        emitter = Emitter(server.url, app="shop")
        emitter.broadcast_to_all(1)
        server.kill()
        emitter.broadcast_to_all(2)
        threading.Timer(0.3, server.start).start()
        emitter.close()
        late = Emitter(server.url, app="shop")
        server.kill()
        late.broadcast_to_all(3)
        started = time.monotonic()
        with pytest.raises(BackplaneError, match="1 message did not reach"):
            late.close(0.5)
        assert time.monotonic() - started < 3


def test_an_exception_in_the_block_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        emitter = Emitter("redis://127.0.0.1:1/0", app="shop")
        monkeypatch.setattr(emitter, "close", lambda: Emitter.close(emitter, 0.1))
        with emitter:
            emitter.broadcast_to_all(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_forked_child_makes_its_own(server: RedisServer) -> None:
    with Emitter(server.url, app="shop") as emitter:
        child = os.fork()
        if child == 0:
            try:
                emitter.broadcast_to_all(1)
            except StateError:
                emitter.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# --- the command --------------------------------------------------------------------


def emit(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell would."""
    return subprocess.run(
        [sys.executable, "-m", "daebus", "emit", *words],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_command_sends(server: RedisServer, heard: Heard) -> None:
    done = emit(
        "--app", "shop", "--room", "ops", "--type", "job", '{"exit": 0}', DAEBUS_REDIS=server.url
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    heard()
    header, text = heard()
    assert (header.kind, header.to, text) == ("room", "ops", b'{"type":"job","data":{"exit":0}}')


@pytest.mark.parametrize(
    ("words", "kind", "to"), [(["--all"], "all", ""), (["--user", "ada"], "user", "ada")]
)
def test_the_url_may_stand_in_the_command(
    server: RedisServer, heard: Heard, words: list[str], kind: str, to: str
) -> None:
    assert main(["emit", server.url, "--app", "shop", *words, "--type", "t", "1"]) == 0
    heard()
    header, text = heard()
    assert (header.kind, header.to, text) == (kind, to, b'{"type":"t","data":1}')


def test_the_command_signs_with_the_secret_of_its_environment(
    server: RedisServer, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEBUS_SECRET", "s3")
    assert main(["emit", server.url, "--app", "shop", "--all", "--type", "t", "1"]) == 0
    heard()


LONG = f'"{"x" * 1024}"'
DEEP = "[" * 100_000 + "]" * 100_000  # beyond what any version reads
WHOLE = ["--app", "shop", "--all", "--type", "t", "1"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "there is no command ''"),
        (["emitt"], "there is no command 'emitt'"),
        (["emit", *WHOLE], "no URL; write redis://"),
        (["emit", "http://x", *WHOLE], "begins with redis://"),
        (["emit", "redis://127.0.0.1:1", "redis://127.0.0.1:2", *WHOLE], "one URL at most"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:2], *WHOLE[3:]], "--all --room --user --topic"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-1], "closed"], "the data is no JSON"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-1], "NaN"], "the data is no JSON (NaN is none)"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-1], ""], "the data is no JSON"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-1], DEEP], "JSON (it is nested too deeply)"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-1], '"\udcff"'], "surrogates not allowed"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-1]], "the data is missing"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:-2], "", "1"], "the type is empty"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:2], "--topic", "a*", *WHOLE[3:]], "a family"),
        (["emit", "redis://127.0.0.1:1", "--max-frame", "1024", *WHOLE[:-1], LONG], "max_frame"),
        (["emit", "redis://127.0.0.1:1", *WHOLE[:2], "--room", "", *WHOLE[3:]], "a name has"),
    ],
)
def test_what_makes_no_sense_ends_with_2(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAEBUS_REDIS", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_redis_that_is_away_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daebus.__main__.PATIENCE", 0.3)
    assert main(["emit", "redis://:geheim@127.0.0.1:1/0", *WHOLE]) == 1
    said = capsys.readouterr().err
    assert "1 message did not reach <DaebusRedis 127.0.0.1:1 down>" in said
    assert "geheim" not in said


# --- with apps -----------------------------------------------------------------------


@pytest.fixture
def shop(server: RedisServer) -> Iterator[Daebus]:
    """An app of that name, which runs."""
    server.command("FLUSHALL")
    app = Daebus("shop")
    app.attach(DaebusHttp(port=0))
    websocket = app.attach(DaebusWebSocket())
    app.attach(DaebusRedis(server.url))
    websocket.topic("alarms", history=5)
    websocket.state("house")

    @app.socket("enter")
    def enter(req: WebSocketRequest) -> None:
        websocket.join(req.client_id, "ops")
        websocket.identify(req.client_id, "ada")

    with app:
        assert eventually(lambda: app.stats()["backplane"]["up"])
        yield app


def test_everything_reaches_the_clients_of_an_app(server: RedisServer, shop: Daebus) -> None:
    with shop.test_client() as client:
        client.request("enter")
        client.request("subscribe", {"topic": "alarms"})
        client.request("subscribe", {"topic": "house"})
        with Emitter(server.url, app="shop") as emitter:
            emitter.broadcast_to_all(1)
            emitter.broadcast_to_room("ops", 2, "to room")
            emitter.send_to_user("ada", 3, "to user")
            emitter.broadcast_to_room("nobody", 4, "to nobody")
            for number in range(3):
                emitter.topic("alarms").publish({"n": number}, "alarm")
            house = emitter.state("house")
            house["doors"] = 4
            house.update(lights=2, heating={"celsius": 21})
            house.set("visitors", 1, ttl=60)
            del house["lights"]
        assert client.receive("broadcast", timeout=5)["data"] == 1
        assert client.receive("to room", timeout=5)["data"] == 2
        assert client.receive("to user", timeout=5)["data"] == 3
        alarms = [client.receive("alarm", timeout=5) for _ in range(3)]
        assert [(each["data"]["n"], each["topic"]) for each in alarms] == [
            (number, "alarms") for number in range(3)
        ]
        expected = {"doors": 4, "heating": {"celsius": 21}, "visitors": 1}
        values: dict[str, Any] = {}
        while values != expected:
            change = client.receive("state", timeout=5)["data"]
            values |= change["set"]
            for key in change["removed"]:
                del values[key]
    stats = shop.stats()["backplane"]
    assert (stats["missed"], stats["nodes"]) == (0, 1)


def test_an_app_in_another_database_is_another_one(server: RedisServer, shop: Daebus) -> None:
    """Redis has one pub/sub for all databases."""
    url = server.url.removesuffix("0") + "1"
    other = Site("one", DaebusRedis(url, "shop", node=node_of(shop).name))
    with other.app, other.client() as away, shop.test_client() as client:
        for to in (url, server.url):
            with Emitter(to, app="shop") as emitter:
                emitter.broadcast_to_all(to)
        assert away.client.receive("broadcast")["data"] == url
        assert client.receive("broadcast")["data"] == server.url
        assert other.ws.cluster.nodes().keys() == shop.websocket.cluster.nodes().keys()
        assert [app.stats()["backplane"]["nodes"] for app in (shop, other.app)] == [1, 1]


def test_a_topic_is_not_taken_for_a_state(server: RedisServer, shop: Daebus) -> None:
    with shop.test_client() as client:
        for topic in ("alarms", "house"):
            client.request("subscribe", {"topic": topic})
        with Emitter(server.url, app="shop") as emitter:
            emitter.topic("alarms").publish("pressure")
        assert client.receive("message", timeout=5)["data"] == "pressure"
        with (
            pytest.raises(BackplaneError, match="the app has a history of this name, not a state"),
            Emitter(server.url, app="shop") as emitter,
        ):
            emitter.state("alarms")["doors"] = 4
        with (
            pytest.raises(BackplaneError, match="the app has a state of this name, not a history"),
            Emitter(server.url, app="shop") as emitter,
        ):
            emitter.topic("house").publish("lights")
        client.request("unsubscribe", {"topic": "alarms"})
        assert client.request("subscribe", {"topic": "alarms", "last": 5})["replay"] == 1


def test_what_an_emitter_lost_is_counted(server: RedisServer, shop: Daebus) -> None:
    """A connection of Redis that is killed at the wrong moment, as far as the app can see."""
    node = node_of(shop)
    # Counting is exact for who is born after the node has noted that it hears the channel.
    assert eventually(lambda: FRAMES in node._life.ledger._since)
    with shop.test_client() as client:
        emitter = Emitter(server.url, app="shop")
        emitter.broadcast_to_all(1)
        assert client.receive("broadcast", timeout=5)["data"] == 1
        emitter._numbers[FRAMES] += 3  # as if three had been dropped for their age
        emitter.close()
    assert eventually(lambda: shop.stats()["backplane"]["missed"] == 3)


def test_what_waited_for_redis_waits_for_the_app_as_well() -> None:
    with RedisServer() as server:
        app = Daebus("shop")
        app.attach(DaebusHttp(port=0))
        app.attach(DaebusWebSocket())
        app.attach(DaebusRedis(server.url))
        with app, app.test_client() as client, Emitter(server.url, app="shop") as emitter:
            emitter.broadcast_to_all(0)
            assert client.receive("broadcast", timeout=5)["data"] == 0
            server.kill()
            emitter.broadcast_to_all(1)
            server.start()
            assert client.receive("broadcast", timeout=10)["data"] == 1


def test_publications_wait_for_redis_in_their_order() -> None:
    with RedisServer() as server:
        emitter = Emitter(server.url, app="shop")
        topic = emitter.topic("alarms")
        topic.publish(0)
        server.command("PING")
        server.kill()
        topic.publish(1)
        assert eventually(lambda: not emitter._is_up())
        used = time.thread_time()
        for number in range(2, 4001):
            topic.publish(number)
        assert time.thread_time() - used < 1  # each looks at none of those that wait already
        server.start()
        emitter.close()
        app = Daebus("shop")
        app.attach(DaebusHttp(port=0))
        alarms = app.attach(DaebusWebSocket()).topic("alarms")
        app.attach(DaebusRedis(server.url))
        with app:
            found = eventually(lambda: [each.data for each in alarms.history()])
        assert found[-3:] == [3998, 3999, 4000]


class Overtaken(DaebusRedis):
    """Hears the channels of partitions behind a goodbye, which comes over another server."""

    def start(
        self,
        names: Names,
        receive: Callable[[str, bytes], None],
        lost: Callable[[], None],
        died: Callable[[], object] = bool,
    ) -> None:
        lock = threading.Lock()
        waiting: list[tuple[str, bytes]] | None = []

        def later(channel: str, frame: bytes) -> None:
            nonlocal waiting
            with lock:
                if waiting is not None and channel.endswith(":f"):
                    waiting.append((channel, frame))
                    return
                receive(channel, frame)
                if channel == names.beats and waiting and unpack(frame, channel)[0].kind == "bye":
                    late, waiting = waiting, None
                    for each in late:
                        receive(*each)

        super().start(names, later, lost, died)


def test_what_a_goodbye_overtakes_in_a_cluster_is_not_lost() -> None:
    with RedisCluster() as cluster:
        site = Site("one", Overtaken(cluster.url, "shop", node="one", cluster=True))
        site.ws.topic("alarms", history=5)
        house = site.ws.state("house")
        rooms = [f"floor {number}" for number in range(6)]
        with site.app, site.client(user="ada") as visitor:
            for room in rooms:
                assert site.ws.join(visitor.id, room)
            visitor.client.request("subscribe", {"topic": "alarms"})
            visitor.client.request("subscribe", {"topic": "house"})
            with Emitter(cluster.servers[1].url, app="shop", cluster=True) as emitter:
                emitter.broadcast_to_all("all", "told")
                emitter.send_to_user("ada", "user", "told")
                for room in rooms:
                    emitter.broadcast_to_room(room, room, "told")
                emitter.topic("alarms").publish("pressure", "alarm")
                emitter.state("house")["doors"] = 4
            got = [visitor.client.receive("told")["data"] for _ in range(2 + len(rooms))]
            assert sorted(got) == ["all", *rooms, "user"]
            assert visitor.client.receive("alarm")["data"] == "pressure"
            assert eventually(lambda: house.copy() == {"doors": 4})
            assert site.app.stats()["backplane"]["missed"] == 0
