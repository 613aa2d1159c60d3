"""Accepts connections and runs threads; knows neither HTTP nor WebSocket.

May import: ``errors``, ``arguments`` and ``waits``.

* ``acceptor``: the one thread that accepts. Owns every connection for which no worker is needed.
* ``listeners``, ``conn``, ``deadlines``: its listening sockets, its connections, their deadlines.
* ``tlshandshakes``: handshakes in progress, and the threads that compute them.
* ``handoff``: the values with which a connection changes its owner.
* ``sockets/``: what is done to one socket. ``threads/``: what runs.
"""
