"""From a message to its handler and back to an answer.

May import: ``websocket/connection``, ``websocket/protocol``, ``websocket.stats``, ``server``
and ``errors``.

* ``dispatcher``: finds the handler of a message and answers. Has the table of handlers.
* ``handlers``: the table. ``options``, ``signature``: compile what was registered to one
  callable each.
* ``activity``: owns what one connection is doing: its request, its counts, its open calls.
* ``request``: the argument of a handler. ``results``: what it returned, turned into answers.
* ``pending``: open calls and stoppable requests, which take their messages out of turn.
* ``cancellation``: the token of one stoppable request.
* ``ratelimit``: token buckets.
"""
