"""A chat room: what one page sends, every page gets."""

from pathlib import Path

from _common import exit_without_port, port_from_environment

from daebus import ClientError, Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest


class Chat(Daebus):
    """Tell where the page is as soon as ``run`` has made it listen."""

    def start(self, *, notify: bool = False) -> None:
        super().start(notify=notify)
        print(f"chat: http://127.0.0.1:{self.http.port}/  (Ctrl-C ends it)", flush=True)


app = Chat("chat")
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
    try:
        app.run()
    except OSError as error:
        exit_without_port("chat", http.port, error)
