"""The public methods of ``DaebusWebSocket``, one module for each subject.

May import: everything of ``websocket/`` except ``component``, and ``server``, ``errors``
and ``arguments``. These classes have no state of their own; ``context`` owns what they
share: the settings, the dispatcher and the hub while it runs.

* ``sending``: to send. ``calls``: to ask clients and wait for their answers.
* ``rooms``: rooms and users. ``clients``: the connected clients, their facts, their end.
* ``access``: identities and rates. ``decorators``: handlers and hooks.
"""
