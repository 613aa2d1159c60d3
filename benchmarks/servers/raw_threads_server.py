"""Bare TCP threads with a line of JSON each way: the limit of one thread per connection."""

import json
import socket
import sys
import threading

clients: set[socket.socket] = set()  # guarded by: lock
lock = threading.Lock()


def encode(message_type: str, data: object) -> bytes:
    return json.dumps({"type": message_type, "data": data}).encode() + b"\n"


def shout(data: object) -> None:
    line = encode("broadcast", data)
    with lock:
        everybody = list(clients)
    for client in everybody:
        try:
            client.sendall(line)
        except OSError:
            continue  # it has just left


def serve(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with lock:
        clients.add(client)
    rest = b""
    try:
        while chunk := client.recv(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["type"] == "echo":
                    client.sendall(encode("response", message["data"]))
                elif message["type"] == "shout":
                    shout(message["data"])
    except OSError:
        pass
    finally:
        with lock:
            clients.discard(client)
        client.close()


def main(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


main(int(sys.argv[1]))
