"""Every limit and deadline of an HTTP connection, with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from ...data.depth import MAX_DEPTH

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may use; the defaults are those of widely used servers.

    Attributes:
        max_line: bytes of the request line or a header line: 8 KiB in nginx, Apache and
            gunicorn.
        max_headers: header lines of one request: 100 in gunicorn and Apache.
        max_head: bytes of a whole request head: 64 KiB, above what 100 real headers need.
        max_body: bytes of a request body: 16 MiB holds a photo or a firmware image.
        max_memory_body: bytes of a body kept in memory while it comes; a larger one
            waits in a temporary file.
        max_depth: levels of arrays and objects in a JSON body, looked at before it is
            parsed: the parser needs stack for each.
        head_timeout: seconds for a whole head, however it comes: 10 s is generous for
            one packet.
        body_timeout: seconds for a whole body: a slow line sends 16 MiB in five minutes.
        min_rate: bytes a second, both for bodies that come and answers that are taken,
            counted after a grace of ``head_timeout``; slower clients are cut.
        write_timeout: seconds in which a client must take the next part of a streamed
            answer.
        idle_timeout: seconds a connection is kept for its next request.
        max_streams: streamed answers that go on beside the workers, each in a thread of its
            own: as many as are worth a few MiB. What lasts longer than ``stream_timeout``, or
            waits for its client, does so there; if there are too many it is cut. So does a
            large body that ``before_request`` hooks were asked about first; with too many
            of them it is refused.
        stream_timeout: seconds for which a streamed answer may hold its worker.
        linger_timeout: seconds in which a refused client can still read the answer.
    """

    max_line: int = 8192
    max_headers: int = 100
    max_head: int = 65536
    max_body: int = 16 << 20
    max_memory_body: int = 65536
    max_depth: int = MAX_DEPTH
    head_timeout: float = 10.0
    body_timeout: float = 300.0
    min_rate: float = 1024.0
    write_timeout: float = 30.0
    idle_timeout: float = 15.0
    max_streams: int = 64
    stream_timeout: float = 1.0
    linger_timeout: float = 2.0
