"""Topics over HTTP: the values of one at its address, and a stream of several.

Below the path of the app everything is the name of a topic, slashes as they are; ``events`` is
the stream.
"""

from __future__ import annotations

import random
from typing import Final
from urllib.parse import parse_qs, unquote

from werkzeug.http import parse_etags, quote_etag

from ...server.handoff import Checked, Handshake, Refusal
from ...server.sockets.transport import Stream
from ...server.threads.minder import Minder
from ...server.watching import TopicReader, Wanted
from ..protocol import events
from ..protocol.errors import error_body, status_code_name
from ..protocol.limits import Limits
from ..site.own import OwnAnswer, check_answer
from .eventstream import EventStream, Watchers

__all__ = ["MAX_STREAM_TOPICS", "RESERVED", "TopicPages"]

# Topics of one stream: the id of each of its events names all of them.
MAX_STREAM_TOPICS: Final = 16

# Seconds that a browser waits before it comes back to a stream that was cut, the least and the
# most: all that were cut at once come back at moments of their own.
_SOONEST, _LATEST = 1.0, 3.0

# In place of a topic's name.
RESERVED: Final = "events"

_JSON = ("Content-Type", "application/json")
_ALLOW_HEADERS = ("Access-Control-Allow-Headers", "Authorization, If-None-Match, Last-Event-ID")
_ALLOW = ("Allow", "GET, HEAD, OPTIONS")
_FRESH = (("Cache-Control", "no-store"),)
# It may be kept, if it is asked for again each time with its tag.
_REVALIDATED = (("Cache-Control", "no-cache"),)
_STREAM_HEADERS = (
    ("Content-Type", events.MEDIA_TYPE),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),  # nginx would hold messages back
)

_NO_STREAMS = Refusal(
    501, "not_implemented", "streams of events need the server of daebus: start the app by itself"
)


class TopicPages:
    """Answers requests for topics.

    Args:
        path: where they are, without a slash at its end.
        max_watchers: streams at once.
        reader: has the topics.
        minder: writes the streams; None where another server has the sockets.
        limits: of one connection.

    Attributes:
        watchers: the streams.

    Threads:
        Those of ``TopicReader``.
    """

    def __init__(
        self,
        path: str,
        max_watchers: int,
        reader: TopicReader,
        minder: Minder | None,
        limits: Limits,
    ) -> None:
        self._path = f"{path}/"
        self._reader = reader
        self._minder = minder
        self._limits = limits
        self.watchers = Watchers(max_watchers, minder)

    def owns(self, path: str) -> bool:
        """Tell whether a path, still encoded, is one of these."""
        return path.startswith(self._path)

    def answer(
        self, handshake: Handshake, method: str, path: str, query: str
    ) -> OwnAnswer | EventStream:
        """Answer a request; a stream is still to begin, or to be released.

        Args:
            handshake: the request.
            method: of the request.
            path: of its target, still encoded.
            query: of its target.
        """
        if method == "OPTIONS":
            headers = self._reader.readable(handshake)
            if headers:  # what a browser asks before it sends these
                headers = (*headers, _ALLOW_HEADERS)
            return OwnAnswer(200, (*_FRESH, _ALLOW, *headers), b"")
        if method not in ("GET", "HEAD"):
            body = error_body("topics are there for GET alone", status_code_name(405))
            return OwnAnswer(405, (_JSON, *_FRESH, _ALLOW), body)
        name = unquote(path[len(self._path) :])
        if name == RESERVED:
            return self._stream(handshake, method, query)
        return self._show(handshake, name)

    def _show(self, handshake: Handshake, name: str) -> OwnAnswer:
        shown = self._reader.show(handshake, name)
        if isinstance(shown, Refusal):
            return check_answer(Checked(shown))
        headers = (("ETag", quote_etag(shown.tag)), *_REVALIDATED, *shown.headers)
        if parse_etags(handshake.header("if-none-match")).contains_weak(shown.tag):
            return OwnAnswer(304, headers, b"")
        return OwnAnswer(200, (_JSON, *headers), shown.body)

    def _stream(self, handshake: Handshake, method: str, query: str) -> OwnAnswer | EventStream:
        if self._minder is None:
            return check_answer(Checked(_NO_STREAMS))
        wanted = _wanted(query, handshake.header("last-event-id"))
        if isinstance(wanted, Refusal):
            return check_answer(Checked(wanted))
        refusal = self.watchers.reserve()
        if refusal is not None:
            return check_answer(Checked(refusal))
        stream = EventStream(self._minder, self._limits.write_timeout, self.watchers.left)
        try:
            watch = self._reader.watch(handshake, wanted, stream.wake)
            if isinstance(watch, Refusal):
                stream.release()
                return check_answer(Checked(watch))
            stream.watch = watch
            if method == "HEAD":
                stream.release()
                return OwnAnswer(200, (*_STREAM_HEADERS, *watch.headers), b"")
        except BaseException:
            stream.release()
            raise
        return stream

    def begin(self, stream: EventStream, sock: Stream, date: str) -> None:
        """Start a stream.

        Args:
            stream: from ``answer``.
            sock: of the client, which the minder owns from now on.
            date: the ``Date`` header.
        """
        assert stream.watch is not None
        lines = ["HTTP/1.1 200 OK", date]
        headers = (*_STREAM_HEADERS, ("Connection", "close"), *stream.watch.headers)
        lines += [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        stream.begin(sock, head + events.retry(random.uniform(_SOONEST, _LATEST)))
        self.watchers.enter(stream)


def _wanted(query: str, last_id: str | None) -> list[Wanted] | Refusal:
    """Read what a request for a stream asks for."""
    fields = parse_qs(query, keep_blank_values=True)
    names = list(dict.fromkeys(fields.get("topic", ())))
    if not names:
        return Refusal(400, "bad_request", "name a topic, as in ?topic=alarms")
    if len(names) > MAX_STREAM_TOPICS:
        text = f"a stream has {MAX_STREAM_TOPICS} topics at most"
        return Refusal(400, "too_many_topics", text)
    last = fields.get("last", ["0"])[-1]
    if not (last.isascii() and last.isdecimal() and len(last) < 16):
        return Refusal(400, "bad_position", "last must be a number of messages, 0 or more")
    try:
        known = events.parse_id(last_id) if last_id else {}
    except ValueError:
        return Refusal(400, "bad_position", "Last-Event-ID is not the id of an event of a stream")
    return [Wanted(name, known.get(name), int(last)) for name in names]
