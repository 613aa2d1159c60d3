"""What users call: the methods of ``DaebusWebSocket``, a file for each subject.

May import: everything of ``websocket/`` but the component. These classes hold no state of their
own; what they share is in ``context``.

* ``sending``, ``calls``: to send, and to ask and wait. ``rooms``, ``clients``: who is where.
* ``access``: who may come in. ``decorators``: handlers and hooks.
"""
