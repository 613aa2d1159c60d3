"""The HTTP side of an app. Werkzeug is imported in this folder alone.

May import: ``server``, ``errors``, ``arguments`` and ``waits``; never ``websocket``.

* ``component``: ``DaebusHttp``, what users see.
* ``hosted``: requests that somebody else's server received.
* ``serving/``: connections and requests. ``site/``: what answers them. ``protocol/``: the bytes.
"""
