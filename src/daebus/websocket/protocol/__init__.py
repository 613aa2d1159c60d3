"""WebSocket as bytes and values (RFC 6455): no socket, thread or clock.

May import: ``errors``, ``data`` and ``server.handoff``, whose values a handshake takes and
returns. The websockets package is imported in this folder alone.

* ``codec``: bytes to messages and back. Owns the state of one connection's protocol.
* ``handshake``: accepts or refuses a request to upgrade.
* ``envelope``: the JSON around a message.
"""
