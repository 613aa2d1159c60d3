"""HTTP/1.1 as bytes and values (RFC 9112): no socket, thread or clock.

May import: ``errors``, and Werkzeug for its table of statuses.

* ``parser``: from bytes to whole requests; ``heads``: the strict reading of one head.
* ``forwarded``: what proxies say of a client; ``cors``: what pages of other sites are told.
* ``errors``: the one shape of errors.
* ``limits``: every limit of a connection with its default and its reason.
"""
