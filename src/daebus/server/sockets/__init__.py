"""Sockets and what makes them: no protocol, and no thread of its own.

May import: ``errors`` and ``server.threads.safelog``.

* ``addresses``: where an app was told to listen. Owns the listeners until the acceptor takes them.
* ``listener``, ``systemd``: one listening socket, ours or passed in.
* ``transport``, ``tlssocket``: one connected socket, plain or TLS.
* ``poller``, ``wakeup``: waiting for many sockets, and ending that wait from another thread.
"""
