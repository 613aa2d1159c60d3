"""The threads of daebus, and what they hand each other.

May import: ``errors`` and the sockets next door.

* ``minder``: one thread for everything that waits: deadlines, unfinished writes, sockets of busy
  handlers. Owns its selector and its timers.
* ``loop``: the private asyncio loop and its thread.
* ``pump``: calls handed over to a thread of the host.
* ``pool``: a bounded pool of workers; ``fairpool``: one that clients share by turns.
* ``connection_threads``: one thread per connection, reused.
* ``vitals``: what becomes known when one of them dies.
* ``track``: which threads are ours, and what for.
* ``affinity``: keeps a thread on chosen cores.
* ``safelog``: logging that cannot end one of our threads; ``repeats``: what it writes once.
"""
