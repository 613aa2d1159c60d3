"""Each code block and table of the API document, as an app that runs.

The app is a weather station on a harbour wall: boats report what they see, the station
answers, warns everybody, and knows who listens.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import queue
import socket
import time
import urllib.request
from typing import Any

import pytest

from daebus import AttachError, Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest
from daebus.testing import AppClient
from tests.support.waiting import eventually


def harbour() -> Daebus:
    app = Daebus("harbour")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    return app


# --- setup: import and attach -------------------------------------------------------


def test_components_are_attached_in_order_and_share_one_port() -> None:
    app = Daebus("harbour")

    http = app.attach(DaebusHttp(port=0))
    websocket = app.attach(DaebusWebSocket())

    assert isinstance(http, DaebusHttp)
    assert isinstance(websocket, DaebusWebSocket)
    assert app.http is http
    assert app.websocket is websocket
    app.route("/tide")(lambda req: "rising")
    app.socket("tide")(lambda req: "rising")
    with app:
        assert websocket.port == http.port != 0
        with urllib.request.urlopen(f"http://127.0.0.1:{http.port}/tide") as answer:
            assert answer.read() == b"rising"
        with app.test_client() as boat:
            assert boat.request("tide") == "rising"


def test_the_port_is_the_one_that_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    app = Daebus("harbour")
    http = app.attach(DaebusHttp(port=free))
    app.attach(DaebusWebSocket())
    assert http.port == free
    with app, app.test_client() as boat:
        assert http.port == free
        assert boat.websocket.port == free


def test_a_websocket_component_without_http_is_refused_with_what_to_type() -> None:
    with pytest.raises(AttachError, match=r"attach DaebusHttp first: app\.attach\(DaebusHttp\("):
        Daebus("harbour").attach(DaebusWebSocket())


# --- setup: register message handlers -----------------------------------------------


def test_a_handler_reads_its_data_and_returns_the_response() -> None:
    app = harbour()
    logbook: queue.Queue[str] = queue.Queue()

    @app.socket("sighting")
    def note_sighting(req: WebSocketRequest) -> dict[str, str]:
        boat = req.data.get("boat", "somebody")
        what = req.data.get("what", "")
        logbook.put(f"{boat} saw {what!r}")
        return {"status": "noted"}

    with app.test_client() as client:
        client.send("sighting", {"boat": "Marlene", "what": "a whale"})
        assert client.receive() == {"type": "response", "data": {"status": "noted"}}
        client.send("sighting", {})
        assert client.receive() == {"type": "response", "data": {"status": "noted"}}
    assert logbook.get_nowait() == "Marlene saw 'a whale'"
    assert logbook.get_nowait() == "somebody saw ''"


def test_the_decorator_leaves_the_function_as_it_was() -> None:
    def handler(req: WebSocketRequest) -> None: ...

    assert harbour().socket("sighting")(handler) is handler


# --- message handling: the request object -------------------------------------------


def test_the_request_has_every_documented_property() -> None:
    app = harbour()
    seen: queue.Queue[WebSocketRequest] = queue.Queue()

    @app.socket("position")
    def note_position(req: WebSocketRequest) -> str:
        seen.put(req)
        req.websocket.send(f"raw greetings to {req.client_id}")
        return req.client_id

    with app.test_client() as client:
        client.websocket.send('{"type": "position", "data": {"lat": 54.3}, "sent": "today"}')
        greeting = client.websocket.receive(timeout=5)
        answer = client.receive()
        req = seen.get(timeout=5)
        assert app.websocket.get_clients() == [req.client_id]
    assert req.message_type == "position"
    assert req.data == {"lat": 54.3}
    assert req.payload == {"type": "position", "data": {"lat": 54.3}, "sent": "today"}
    assert greeting == f"raw greetings to {req.client_id}"
    assert answer["data"] == req.client_id


def test_client_ids_are_unique() -> None:
    app = harbour()
    app.socket("who")(lambda req: req.client_id)
    with app.test_client() as one, app.test_client() as two:
        assert one.request("who") == one.request("who")
        assert one.request("who") != two.request("who")


# --- sending responses --------------------------------------------------------------


def test_a_returned_value_goes_out_with_type_response() -> None:
    app = harbour()

    @app.socket("clock")
    def tell_the_time(req: WebSocketRequest) -> dict[str, Any]:
        return {"ticking": True, "now": time.time()}

    with app.test_client() as client:
        before = time.time()
        client.send("clock", {})
        message = client.receive()
        assert message["type"] == "response"
        assert message["data"]["ticking"] is True
        assert before <= message["data"]["now"] <= time.time()


def test_a_handler_may_send_several_messages_on_its_way() -> None:
    app = harbour()

    @app.socket("forecast")
    def forecast(req: WebSocketRequest) -> None:
        app.websocket.send({"status": "measuring"})
        metres = sum(range(5)) / 10
        app.websocket.send({"status": "done", "waves": metres})

    with app.test_client() as client:
        client.send("forecast", {})
        assert client.receive() == {"type": "response", "data": {"status": "measuring"}}
        assert client.receive() == {"type": "response", "data": {"status": "done", "waves": 1.0}}


def test_send_takes_a_message_type() -> None:
    app = harbour()

    @app.socket("forecast")
    def forecast(req: WebSocketRequest) -> None:
        app.websocket.send({"waves": 1.0}, message_type="outlook")

    with app.test_client() as client:
        client.send("forecast")
        assert client.receive() == {"type": "outlook", "data": {"waves": 1.0}}


# --- broadcasting -------------------------------------------------------------------


def test_a_broadcast_reaches_every_client() -> None:
    app = harbour()
    warning = {"text": "storm from the west", "at": time.time()}
    with app.test_client() as one, app.test_client() as two:
        # A client has its 101 a moment before it is counted.
        assert eventually(lambda: app.websocket.get_client_count() == 2)
        app.websocket.broadcast_to_all(warning, message_type="storm_warning")
        app.websocket.broadcast_to_all({"text": "over"})
        for client in (one, two):
            assert client.receive() == {"type": "storm_warning", "data": warning}
            assert client.receive() == {"type": "broadcast", "data": {"text": "over"}}


# --- connection events --------------------------------------------------------------


def test_connect_and_disconnect_hooks_tell_everybody_how_many_listen() -> None:
    app = harbour()
    came: queue.Queue[str] = queue.Queue()
    went: queue.Queue[str] = queue.Queue()
    app.socket("who")(lambda req: req.client_id)

    @app.websocket.on_connect
    def somebody_came(client_id: str) -> None:
        came.put(client_id)
        app.websocket.broadcast_to_all({"listeners": app.websocket.get_client_count()})

    @app.websocket.on_disconnect
    def somebody_went(client_id: str) -> None:
        went.put(client_id)
        app.websocket.broadcast_to_all({"listeners": app.websocket.get_client_count()})

    with app.test_client() as first:
        assert first.receive() == {"type": "broadcast", "data": {"listeners": 1}}
        assert came.get(timeout=5) == first.request("who")
        with app.test_client() as second:
            assert first.receive()["data"] == {"listeners": 2}
            assert second.receive()["data"] == {"listeners": 2}
            second_id = second.request("who")
            assert came.get(timeout=5) == second_id
        assert first.receive()["data"] == {"listeners": 1}
        assert went.get(timeout=5) == second_id


# --- client management --------------------------------------------------------------


def test_clients_are_listed_counted_and_looked_up() -> None:
    app = harbour()
    app.socket("who")(lambda req: req.client_id)
    left = queue.Queue[str]()
    app.websocket.on_disconnect(left.put)
    with app:
        assert app.websocket.get_clients() == []
        assert app.websocket.get_client_count() == 0
        with app.test_client() as one:
            first = one.request("who")
            with app.test_client() as two:
                second = two.request("who")
                assert app.websocket.get_clients() == [first, second]
                assert app.websocket.get_client_count() == 2
                assert app.websocket.is_client_connected(first)
                assert app.websocket.is_client_connected(second)
            assert left.get(timeout=5) == second
            assert app.websocket.get_clients() == [first]
            assert app.websocket.get_client_count() == 1
            assert app.websocket.is_client_connected(first)
            assert not app.websocket.is_client_connected(second)
        assert not app.websocket.is_client_connected("nobody")


# --- message format -----------------------------------------------------------------


def test_messages_have_a_type_and_data_in_both_directions() -> None:
    app = harbour()
    app.socket("sighting")(lambda req: req.data)
    with app.test_client() as client:
        client.send_raw('{\n  "type": "sighting",\n  "data": {"what": ["seal", 2]}\n}')
        text = client.websocket.receive(timeout=5)
        assert isinstance(text, str)
        assert json.loads(text) == {"type": "response", "data": {"what": ["seal", 2]}}


def test_a_type_without_a_handler_is_answered_with_an_error_message() -> None:
    app = harbour()
    app.socket("sighting")(lambda req: req.data)
    with app.test_client() as client:
        client.send("sihgting", {})
        message = client.receive()
        assert message["type"] == "error"
        assert set(message) == {"type", "data"}
        assert message["data"]["code"] == "unknown_type"


# --- requirements and limitations ---------------------------------------------------


def test_the_package_requires_websockets() -> None:
    requirements = importlib.metadata.requires("daebus") or []
    assert any(requirement.startswith("websockets") for requirement in requirements)


def test_sync_and_async_handlers_stand_side_by_side() -> None:
    app = harbour()

    @app.socket("depth")
    def depth(req: WebSocketRequest) -> dict[str, int]:
        return {"depth": 7}

    @app.socket("wind")
    async def wind(req: WebSocketRequest) -> dict[str, int]:
        app.websocket.send({"status": "asking"})
        await asyncio.sleep(0)
        app.websocket.send({"status": "still asking"})
        return {"wind": 5}

    with app.test_client() as client:
        client.send("wind")
        client.send("depth")
        assert [client.receive()["data"] for _ in range(4)] == [
            {"status": "asking"},
            {"status": "still asking"},
            {"wind": 5},
            {"depth": 7},
        ]


@pytest.mark.parametrize("path", ["/", "/ws", "/deep/er/down", "/?token=4"])
def test_any_path_takes_websockets_when_none_is_configured(path: str) -> None:
    app = harbour()
    app.socket("tide")(lambda req: "rising")
    with AppClient(app, path) as client:
        assert client.request("tide") == "rising"
