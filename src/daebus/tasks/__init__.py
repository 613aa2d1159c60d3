"""Functions that run beside the server: at an interval, or all the time.

May import: ``server.threads``, ``errors`` and ``waits``.

* ``registry``: owns the tasks of an app.
* ``task``: one task. Owns its thread from a start to a stop.
"""
