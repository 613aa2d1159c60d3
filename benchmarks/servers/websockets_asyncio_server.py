"""The asyncio server of websockets, with its own broadcast()."""

import asyncio
import json
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve


def encode(message_type: str, data: object) -> str:
    return json.dumps({"type": message_type, "data": data})


async def handler(connection: ServerConnection) -> None:
    async for text in connection:
        message = json.loads(text)
        if message["type"] == "echo":
            await connection.send(encode("response", message["data"]))
        elif message["type"] == "shout":
            broadcast(connection.server.connections, encode("broadcast", message["data"]))


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port) as server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
