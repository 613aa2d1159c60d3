"""Who comes in.

May import: everything of ``websocket/`` below the hub.

* ``admission``: every check of an upgrade, and the places that are taken.
* ``authentication``: asks the program who a client is.
* ``per_address``: how many clients each address has.
* ``client_ids``: the ids in use.
"""
