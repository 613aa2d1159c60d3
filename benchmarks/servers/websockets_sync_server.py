"""The threading server of websockets, with its own broadcast()."""

import json
import sys

from websockets.sync.server import ServerConnection, broadcast, serve


def encode(message_type: str, data: object) -> str:
    return json.dumps({"type": message_type, "data": data})


def handler(connection: ServerConnection) -> None:
    for text in connection:
        message = json.loads(text)
        if message["type"] == "echo":
            connection.send(encode("response", message["data"]))
        elif message["type"] == "shout":
            broadcast(server.connections, encode("broadcast", message["data"]))


server = serve(handler, "127.0.0.1", int(sys.argv[1]))
server.serve_forever()
