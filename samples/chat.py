"""A chat room: what one page sends, every page gets; who comes later reads what was said.

A page says who it is, which puts it into the room. Anybody may take any name here; see
``auth.py`` for a login.
"""

import os
import time
from pathlib import Path

from daebus import ClientError, Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest

ROOM = "lobby"

app = Daebus("chat")
port, page = int(os.environ.get("PORT") or 8081), Path(__file__).parent / "chat"
app.attach(DaebusHttp(port=port, static=page))
websocket = app.attach(DaebusWebSocket())
talk = websocket.topic("talk", history=200, max_age=None)
websocket.presence(ROOM)  # the state "presence:lobby": each name, and in how many tabs it is there


@app.socket("enter")
def enter(req: WebSocketRequest) -> dict[str, str]:
    data = req.data if isinstance(req.data, dict) else {}
    username = str(data.get("username") or "").strip()[:40] or "Anonymous"
    websocket.identify(req.client_id, username)
    websocket.join(req.client_id, ROOM)
    return {"username": username}


@app.socket("chat_message")
def handle_chat_message(req: WebSocketRequest) -> dict[str, str]:
    data = req.data if isinstance(req.data, dict) else {}
    message = str(data.get("message") or "").strip()[:2000]
    if req.user is None:
        raise ClientError("say who you are first", code="not_entered")
    if not message:
        raise ClientError("a chat message needs some text", code="empty_message")
    said = {"username": req.user, "message": message, "time": time.time()}
    talk.publish(said, "chat_message")
    return {"status": "received"}


if __name__ == "__main__":
    app.run()
