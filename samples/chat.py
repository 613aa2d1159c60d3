"""A chat room: what one page sends, every page gets."""

from pathlib import Path

from _common import Sample, port_from_environment

from daebus import ClientError, DaebusHttp, DaebusWebSocket, WebSocketRequest

app = Sample("chat")
http = app.attach(DaebusHttp(port=port_from_environment(), static=Path(__file__).parent / "chat"))
websocket = app.attach(DaebusWebSocket())


@app.socket("chat_message")
def handle_chat_message(req: WebSocketRequest) -> dict[str, str]:
    data = req.data if isinstance(req.data, dict) else {}
    username = str(data.get("username") or "Anonymous").strip()[:40]
    message = str(data.get("message") or "").strip()[:2000]
    if not message:
        raise ClientError("a chat message needs some text", code="empty_message")
    websocket.broadcast_to_all(
        {"username": username, "message": message}, message_type="chat_message"
    )
    return {"status": "received"}


@websocket.on_connect
@websocket.on_disconnect
def tell_user_count(client_id: str) -> None:
    websocket.broadcast_to_all({"user_count": websocket.get_client_count()})


if __name__ == "__main__":
    app.run()
