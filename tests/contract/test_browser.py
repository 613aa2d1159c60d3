"""What pages do: the API document's JavaScript client, and tokens, in a real Chromium."""

from __future__ import annotations

import queue
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket, UpgradeRequest, WebSocketRequest

PAGE = """<!doctype html>
<title>harbour</title>
<link rel="icon" href="data:,">
<script>
window.log = {open: 0, response: [], broadcast: [], error: []};

const station = new WebSocket(`ws://${window.location.host}`);

station.addEventListener('open', () => {
    window.log.open += 1;
    report('sighting', {boat: 'Marlene', what: 'a whale \\u{1F433}'});
});

station.addEventListener('message', (event) => {
    const {type, data} = JSON.parse(event.data);
    switch (type) {
        case 'response':
        case 'broadcast':
        case 'error':
            window.log[type].push(data);
            break;
        default:
            throw new Error(`a message of type ${type} came`);
    }
});

function report(type, data) {
    station.send(JSON.stringify({type, data}));
}
</script>
"""


def test_a_page_served_by_the_app_talks_to_it(browser: Any) -> None:
    app = Daebus("harbour")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    left: queue.Queue[str] = queue.Queue()
    seen: queue.Queue[str] = queue.Queue()
    app.websocket.on_disconnect(left.put)
    app.route("/")(lambda req: PAGE)

    @app.socket("sighting")
    def note_sighting(req: WebSocketRequest) -> dict[str, str]:
        seen.put(req.client_id)
        return {"noted": req.data["what"], "thanks": req.data["boat"]}

    problems: list[str] = []
    with app:
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto(f"http://127.0.0.1:{app.http.port}/")

        def logged(kind: str, count: int = 1) -> Any:
            page.wait_for_function(
                "([kind, count]) => window.log[kind].length >= count", arg=[kind, count]
            )
            return page.evaluate("kind => window.log[kind]", kind)

        assert logged("response") == [{"noted": "a whale \N{SPOUTING WHALE}", "thanks": "Marlene"}]
        client_id = seen.get(timeout=5)
        assert app.websocket.get_clients() == [client_id]

        assert app.websocket.broadcast_to_all({"storm": True}) == 1
        assert logged("broadcast") == [{"storm": True}]

        page.evaluate("report('sigthing', {})")
        (error,) = logged("error")
        assert error["code"] == "unknown_type"
        assert "did you mean 'sighting'?" in error["error"]

        page.evaluate("report('sighting', {boat: 'Ole', what: 'fog'})")
        assert logged("response", 2)[1] == {"noted": "fog", "thanks": "Ole"}
        assert page.evaluate("window.log.open") == 1

        page.close()
        assert left.get(timeout=5) == client_id
        assert app.websocket.get_client_count() == 0
    assert problems == []


SHIP = """<!doctype html>
<title>ship</title>
<link rel="icon" href="data:,">
<script>
function sail(protocols) {
    return new Promise((resolve) => {
        const ship = new WebSocket(`ws://${location.host}/`, protocols);
        ship.onopen = () => ship.send(JSON.stringify({type: "who"}));
        ship.onmessage = (event) => {
            ship.onclose = null;
            ship.close();
            resolve([ship.protocol, JSON.parse(event.data).data]);
        };
        ship.onclose = (event) => resolve(["closed", event.code]);
    });
}
</script>
"""


def test_a_page_sends_a_token_as_a_subprotocol(browser: Any, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    app = Daebus("ship")
    app.attach(DaebusHttp(port=0))
    app.attach(DaebusWebSocket())
    app.route("/")(lambda req: SHIP)
    offered: queue.Queue[list[str]] = queue.Queue()
    good, wrong = "daebus.token.czMtY3JldF9-", "daebus.token.czMtd3Jvbmc"  # s3-cret_~ and s3-wrong

    @app.websocket.authenticate
    def authenticate(req: UpgradeRequest) -> str | None:
        offered.put(req.subprotocols)
        return "Ole" if req.token == "s3-cret_~" else None

    app.socket("who")(lambda req: req.identity)
    with app:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{app.http.port}/")
        assert page.evaluate(f"sail(['daebus', '{good}'])") == ["daebus", "Ole"]
        assert offered.get(timeout=5) == ["daebus", good]
        # Refused, and the other mistake: nothing is offered that the server could answer.
        assert page.evaluate(f"sail(['daebus', '{wrong}'])") == ["closed", 1006]
        assert page.evaluate(f"sail(['{good}'])") == ["closed", 1006]
        page.close()
    assert "s3-" not in caplog.text
    assert "czMt" not in caplog.text
