"""From a connection to a request and from an answer back to bytes.

May import: ``http/protocol``, ``http/site`` for the request that is handed to an upgrade, and
``server``.

* ``serving``: what the app starts, asks and stops. Owns the server between a start and a stop.
* ``server``: listeners, acceptor and pool around Werkzeug's server object. Owns them all.
* ``exchange``: what connections share, and what happens between two requests of one.
* ``handler``: one request on one connection, in a worker.
* ``keepalive``: what is known of a connection between two reads.
* ``environ``: the WSGI environment; ``writes``: the answer, and what a client has yet to take.
* ``hangup``: whether the client of a streamed answer is still there.
* ``upgrade``: from a request that wants to be a WebSocket to the value that crosses over.
* ``certificates``: from files to a TLS context.
"""
