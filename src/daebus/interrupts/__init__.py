"""Living with what interrupts a thread of ours: signal handlers, destructors and their like.

They run between any two steps of a thread, also while it holds a lock; and they call public
methods, which take locks. The rules, for all of this package:

1. No object of the user's is freed, compared, formatted or called under a lock.
2. What a public method only reads it reads without a lock: one look at a value that is
   replaced, never changed.
3. Where a public method changes something it asks ``inside`` first, if the lock is taken.
   Inside it does not wait: it leaves the work to the minder (``call_later(0.0, ...)``), or raises.
4. A thread that must be woken under a lock, or by such code, waits at a ``Flag``: events,
   conditions and futures of the standard library have locks of their own.

All rooms may import this one; it imports ``errors`` and ``waits`` alone.
"""
