"""The WebSocket of aiohttp; a shout is a loop over the open sockets."""

import json
import sys

from aiohttp import WSMsgType, web

clients: set[web.WebSocketResponse] = set()


def encode(message_type: str, data: object) -> str:
    return json.dumps({"type": message_type, "data": data})


async def handler(request: web.Request) -> web.WebSocketResponse:
    client = web.WebSocketResponse(compress=False)
    await client.prepare(request)
    clients.add(client)
    try:
        async for frame in client:
            if frame.type is not WSMsgType.TEXT:
                continue
            message = json.loads(frame.data)
            if message["type"] == "echo":
                await client.send_str(encode("response", message["data"]))
            elif message["type"] == "shout":
                text = encode("broadcast", message["data"])
                for other in list(clients):
                    try:
                        await other.send_str(text)
                    except ConnectionError:
                        continue  # it has just left
    finally:
        clients.discard(client)
    return client


app = web.Application()
app.router.add_get("/", handler)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
