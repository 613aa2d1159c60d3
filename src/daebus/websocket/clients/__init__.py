"""The connected clients, and the one door through which everything is sent.

May import: ``websocket/connection``, ``websocket/protocol``, ``server`` and ``errors``.

* ``registry``: the open connections by client id. Owns the lock that ``groups`` shares.
* ``groups``: rooms and users, which are named sets of clients. Owns who is in which.
* ``broadcast``: the door, which sends a payload to a target.
* ``metadata``: the facts about a client, as a dict.
"""
