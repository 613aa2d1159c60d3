"""From a message to its handler and back to an answer.

May import: ``websocket/clients``, ``websocket/connection``, ``websocket/protocol``,
``websocket.stats``, ``websocket.runtime`` and ``server``.

* ``dispatcher``: finds the handler and answers. Owns the table of handlers.
* ``handlers``, ``options``, ``signature``: what was registered, compiled to one callable each.
* ``request``: what a handler is given; ``results``: what it returned.
* ``pending``, ``cancellation``: open calls, and requests that can be stopped.
* ``ratelimit``: token buckets.
"""
