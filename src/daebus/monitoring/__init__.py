"""Reports about a running app, for operators.

May import: ``websocket/`` and everything below it. Owns nothing.

* ``dump``: threads, tasks and connections as text.
"""
