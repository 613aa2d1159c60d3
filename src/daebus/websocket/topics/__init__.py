"""Topics: one bounded log each, and a cursor for each subscriber.

Who is current gets the shared frame at once. Who is behind (new, back again, slow) is pulled
forward from the log when its socket takes more. So snapshot, resume and slow client are one
mechanism, and a topic fills no outbox.

The logs (``history``, ``values``) and what surrounds them (``position``, ``envelopes``) are pure:
no lock, no socket, no clock. ``feed`` has the locks of one topic; ``table`` has all topics of a
component. May import ``connection`` and ``protocol``; ``clients``, ``messages`` and what is above
import from here.
"""
