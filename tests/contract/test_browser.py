"""The API document's JavaScript client, as a page of our own in a real Chromium."""

from __future__ import annotations

import queue
from typing import Any

from daebus import Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest

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
