"""Functions that run beside the server: every so many seconds, or all the time.

May import: ``server.threads`` and ``errors``.

* ``registry``: the tasks of an app. Owns them and their threads.
* ``task``: one task, and its thread from a start to a stop.
"""
