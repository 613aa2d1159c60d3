"""``Emitter``, for programs that send to an app and are none of its processes.

May import: ``backplane``, the envelopes and names of topics of ``websocket``, and what stands below
them. A server imports none of it. ``emitter`` is what users call, and owns the connection;
``changes`` has what goes to topics until Redis has confirmed it; ``topics`` is a topic and a state
as an emitter sees them.
"""
