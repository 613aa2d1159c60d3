"""Deciding which clients are let in.

May import: ``websocket.settings``, ``websocket/clients``, ``websocket/connection``,
``websocket/protocol``, ``server``, ``errors`` and ``arguments``.

* ``admission``: every check of an upgrade, in order. The places are the registry's.
* ``authentication``: asks the program who a client is. Owns the checks that still wait.
* ``per_address``: owns the count of clients of each address.
* ``client_ids``: chooses ids, and owns those in use.
"""
