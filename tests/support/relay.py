"""A relay between a client and a server that can stop to forward, as a broken path does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

__all__ = ["Relay"]


class Relay:
    """Forward connections to a port; use it as a context manager.

    Attributes:
        port: where clients connect.
        host: put in place of the host that clients ask for, as a wrong proxy does.
    """

    def __init__(self, target: int) -> None:
        self.host: bytes | None = None
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._flowing.set()
        for thread in self._threads:
            thread.join(10)

    def stop_forwarding(self) -> None:
        """Forward nothing more on the connections there are; new ones are well."""
        self._flowing.clear()
        self._flowing = threading.Event()
        self._flowing.set()

    def lead_to(self, target: int) -> None:
        """Forward connections that come from now on to another port."""
        self._target = target

    def _start(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._sockets += [client, server]
            flowing = self._flowing
            self._start(self._forward, client, server, flowing)
            self._start(self._forward, server, client, flowing)

    def _forward(
        self, source: socket.socket, target: socket.socket, flowing: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and flowing.is_set():
                if self.host is not None:
                    data = data.replace(b"Host: 127.0.0.1", b"Host: " + self.host)
                target.sendall(data)
            if flowing.is_set():
                target.shutdown(socket.SHUT_WR)
