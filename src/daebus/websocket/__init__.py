"""The WebSocket side of an app.

May import: ``server``, ``errors`` and ``arguments``; never ``http``.

* ``component``: ``DaebusWebSocket``. Owns the hub between a start and a stop; ``api/`` is its
  public part.
* ``hub``: one start of the app. Owns the registry and the connection threads.
* ``admission/``: who comes in. ``messages/``: message, handler, answer. ``clients/``: who is
  there. ``connection/``: one socket. ``protocol/``: the bytes.
* ``settings``: what the component was told; ``stats``: counters; ``watchdog``: slow handlers.
"""
