"""The other end of the wire: ``daebus.Client``, for programs that talk to an app.

One thread reads, reconnects and keeps the heartbeat (``session``); one more makes the calls of
the program's functions, once there are any (``callbacks``). Neither runs before the client
connects. ``wire`` alone imports ``websockets``, and ``daebus`` imports this room when it is
first asked for a name of it.

It may import ``fork``, the envelope of ``websocket.protocol``, and what stands below these.
"""
