"""picows, whose connections are in C; a shout is a loop over the open ones."""

import asyncio
import json
import sys

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

clients: set[WSTransport] = set()


def encode(message_type: str, data: object) -> bytes:
    return json.dumps({"type": message_type, "data": data}).encode()


class Listener(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        clients.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            message = json.loads(frame.get_payload_as_bytes())
            if message["type"] == "echo":
                transport.send(WSMsgType.TEXT, encode("response", message["data"]))
            elif message["type"] == "shout":
                frame_data = encode("broadcast", message["data"])
                for client in list(clients):
                    client.send(WSMsgType.TEXT, frame_data)


async def main(port: int) -> None:
    server = await ws_create_server(lambda request: Listener(), "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
