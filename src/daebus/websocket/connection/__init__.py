"""One WebSocket: its socket, its state, its two directions.

May import: ``websocket/protocol``, ``websocket.runtime``, ``server`` and ``errors``.

* ``link``: one connection as a whole: its halves, its timers, its end. Owns both halves.
* ``connection``: the public view of a link, which handlers get.
* ``writer``: everything that leaves. Makes and owns the lock, the state and the outbox.
* ``reader``: everything that arrives. Shares the writer's lock; owns the codec and the inbox.
* ``outbox``: frames that the socket has not taken yet.
* ``states``: the states of a connection, and the causes of its end.
* ``keepalive``, ``lifetime``: the two timers of a connection.
* ``limits``: every limit with its default; ``events``: the infos that hooks get.
"""
