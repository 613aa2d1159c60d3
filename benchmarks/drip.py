"""Slow clients, in a process of their own: ``python -m benchmarks.drip PORT NUMBER``.

Each sends a byte of its request head every second. Prints ``ready`` once all are connected, and
goes on until its standard input ends; then it prints how many were still connected.
"""

import contextlib
import select
import socket
import sys
import time

from benchmarks.procs import HOST, raise_descriptor_limit

HEAD = b"GET /data/64 HTTP/1.1\r\nHost: x\r\nX-Slow: "


def main(port: int, number: int) -> None:
    raise_descriptor_limit()
    clients = [socket.create_connection((HOST, port), timeout=20.0) for _ in range(number)]
    for client in clients:
        client.setblocking(False)
        client.send(HEAD)
    print("ready", flush=True)
    due = time.monotonic()
    turn = 0
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        with contextlib.suppress(OSError):  # sent away; counted at the end
            clients[turn % number].send(b"a")
        turn += 1
        due += 1.0 / number
    poller = select.poll()
    for client in clients:
        poller.register(client, select.POLLIN)
    print(number - len(poller.poll(0)), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
