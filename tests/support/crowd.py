"""A crowd of slow clients, in a process of its own: ``crowd.py PORT DRIPPING SILENT IDLE``.

Prints ``ready`` once all are connected and drips one byte a second for each of the first
kind, until its standard input ends; then it prints how many connections were still open.
"""

from __future__ import annotations

import select
import socket
import sys
import time

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "


def main(port: int, dripping: int, silent: int, idle: int) -> None:
    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=20)

    drips = [connect() for _ in range(dripping)]
    for sock in drips:
        sock.sendall(HEAD)
    others = [connect() for _ in range(silent)]
    for _ in range(idle):
        sock = connect()
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        others.append(sock)
    print("ready", flush=True)
    step = 1.0 / max(1, len(drips))
    due = time.monotonic()
    number = 0
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        due += step
        if drips:
            drips[number % len(drips)].send(b"a")
            number += 1
    poller = select.poll()
    for sock in drips + others:
        poller.register(sock, select.POLLIN)
    print(len(drips) + len(others) - len(poller.poll(0)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
