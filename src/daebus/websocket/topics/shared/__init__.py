"""Topics that the nodes of an app share over a backplane.

Each node has a copy of the topic's log, which its clients read as they do one of its own. A
``Follower`` keeps the copy at what the store of the backplane has; ``Sharing`` owns all of them.

May import ``topics`` and ``backplane``. Whoever has no backplane imports nothing of this.
"""
