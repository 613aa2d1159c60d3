"""Redis and Valkey as the backplane of an app.

May import: what ``backplane`` may, and the package ``redis``, which is imported by the first
``DaebusRedis`` and not before. ``component`` is what users attach. ``outbound`` owns the thread
that sends, with the ``queue`` of what waits; ``inbound`` owns those that listen, one for each
server. Both own their connections, which are a ``line`` each, and share ``shards``, the map of a
cluster. ``address`` is the URL, without its password wherever it is shown.
"""
