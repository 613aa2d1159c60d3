"""One WebSocket: its socket, its state, its two directions.

May import: ``websocket/protocol``, ``websocket.runtime`` and ``server``.

* ``connection``: the internal whole, and the view of it that the program gets.
* ``writer``: state, outbox and everything that leaves. ``reader``: everything that arrives.
* ``outbox``: what the socket would not take yet.
* ``keepalive``, ``lifetime``: the two timers of a connection.
* ``limits``: every limit with its default; ``events``: what hooks are told.
"""
