"""Who is there, and the one door through which everything is sent.

May import: ``websocket/connection``, ``websocket/protocol`` and ``errors``.

* ``registry``: the open connections by client id. Owns the lock that ``groups`` shares.
* ``groups``: rooms and users, which are sets of clients.
* ``broadcast``: the door.
* ``metadata``: what is known about a client.
"""
