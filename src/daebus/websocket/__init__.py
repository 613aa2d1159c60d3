"""The WebSocket side of an app.

May import: ``server``, ``errors``, ``arguments`` and ``waits``; never ``http``.

* ``component``: ``DaebusWebSocket`` and its arguments. Its methods are in ``api/``, whose
  ``context`` owns the hub between a start and a stop.
* ``hub``: one start of the app. Owns the registry, the connection threads and the counters.
* ``runner``: one connection in its thread, from the handshake to the last hook.
* ``runtime``: the threads that the connections of one start share, as a value.
* ``settings``: arguments and hooks. ``stats``: counters. ``watchdog``: slow handlers.
* ``admission/``: which clients are let in. ``messages/``: message, handler, answer.
  ``clients/``: the connected clients. ``connection/``: one socket. ``protocol/``: the bytes.
"""
