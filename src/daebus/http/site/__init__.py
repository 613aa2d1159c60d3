"""What answers the requests: views, hooks, files, other WSGI apps.

May import: ``http/protocol``, ``server`` (for the loop and for logging), ``errors``.

* ``router``: the WSGI app. Owns the routes, the hooks and the mounts.
* ``decorators``: how they are registered. ``hooks``, ``mounts``, ``files``: one kind each.
* ``own``: the paths that daebus answers itself, without any of these.
* ``spool``: bodies and uploads on the disk, and their common bound.
* ``request``: what a view is given; ``results``: from what it returned to a response.
"""
