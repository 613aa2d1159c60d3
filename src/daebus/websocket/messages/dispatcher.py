"""From a message to its handler and back to an answer.

Rules of this module:

1. Each message gets at most one automatic answer: the returned value, or one error. One with
   an id gets exactly one: ``null`` if nothing is returned and no ``response`` was sent.
2. Whatever a handler raises, its connection goes on. The exception is logged here,
   once; the client sees it only with ``debug``.
3. A handler is one callable, compiled when it is registered (``options``): an option
   that a handler does not use costs its messages nothing.
4. What all connections share is read without a lock, on builds without the GIL too: there
   ``d[k]`` and ``k in d`` take none, where ``d.get(k)`` and ``k in`` a set lock the dict or
   the set, for which all cores would wait.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...data.depth import MAX_DEPTH
from ...data.encoder import PLAIN as PLAIN_JSON
from ...data.encoder import Encoder
from ...errors import Cancelled, ClientError, ClientGone, EncodeError
from ...interrupts.raised import is_for_host
from ...server.threads.safelog import format_exception, get_logger
from ...waits import perf_counter
from ..clients.broadcast import reply
from ..protocol import envelope
from ..protocol.codec import TEXT
from ..stats import Times
from ..topics.table import Topics
from .activity import Activity, current
from .handlers import ANY, BINARY, HandlerTable
from .heartbeats import HEARTBEAT, Heartbeats
from .options import Handler
from .pending import KINDS
from .request import WebSocketRequest, asked
from .results import ANSWERED_LATER, PLAIN, resolve
from .shared_rate import AnyRate
from .subscribing import Subscribing

__all__ = ["Dispatcher"]

logger = get_logger("daebus.websocket")

# Raised in a thread that waits for a cancelled coroutine, and in the coroutine itself.
_ASYNC_CANCELLED = (concurrent.futures.CancelledError, asyncio.CancelledError)

# What a handler may raise because its client has left, which is not an error.
_QUIET = (*_ASYNC_CANCELLED, Cancelled, ClientGone, EncodeError)

# Longer names are not compared with the known ones: difflib is quadratic.
_MAX_SUGGEST = 64


class Dispatcher:
    """Calls the handler of each message, and answers.

    Args:
        debug: put tracebacks into error messages.

    Attributes:
        table: the handlers.
        heartbeats: answers those of clients.
        topics: those of the component.
        subscribing: lets clients subscribe to them.
        on_error: hooks for what handlers raise.
        rate: the limit of messages of all types together, or None.
        max_depth: levels of arrays and objects in a message.
        encoder: makes JSON of what is sent.

    Threads:
        ``handle`` runs in connection threads, ``run`` in any other.
    """

    def __init__(self, *, debug: bool = False) -> None:
        self.table = HandlerTable(self.run)
        self.heartbeats = Heartbeats(lambda kind: kind in self.table.by_type)
        self.topics = Topics()
        self.subscribing = Subscribing(self.topics)
        self.topics.reserve = partial(self.table.reserve, self.subscribing.handlers)
        self.debug = debug
        # Typed for what people write; a SystemExit of a handler comes as well.
        self.on_error: list[Callable[[WebSocketRequest, Any], Any]] = []
        self.rate: AnyRate | None = None
        self.max_depth = MAX_DEPTH
        self.encoder: Encoder = PLAIN_JSON

    def handle(self, activity: Activity, message: str | bytes) -> None:
        """Answer one message; never raises.

        Threads:
            The connection's own; waits for the handler, an async one included.
        """
        if self.rate is not None and self._over(activity, message, self.rate):
            return
        ident: Any = None
        if message.__class__ is bytes:
            handler = self.table.binary
            if handler is None:
                self._refuse(activity, "binary_not_supported", "send JSON in text messages")
                return
            kind, payload = BINARY, {"data": message}
        else:
            try:
                kind, payload = envelope.decode(message, self.max_depth)  # type: ignore[arg-type]  # no bytes
            except envelope.BadMessage as exc:
                self._refuse(activity, exc.code, exc.text, None, exc.ident)
                return
            if "id" in payload:
                ident = payload["id"]
                if ident is not None and not envelope.is_id(ident):
                    self._bad_id(activity, kind)
                    return
            try:
                handler = self.table.by_type[kind]  # not get(), see rule 4
            except KeyError:
                handler = None
            if handler is None:
                handler = self._unhandled(activity, kind, payload, ident)
                if handler is None:
                    return
        activity.request = req = WebSocketRequest(activity, kind, payload)
        started = perf_counter()
        try:
            result = handler(req)
            if result is not None and result.__class__ not in PLAIN:
                result = resolve(req, result)
                if result is ANSWERED_LATER:  # answered and counted where the handler ends
                    activity.request = None
                    return
            if result is not None or (ident is not None and req._wants_answer()):
                data = envelope.encode("response", result, self.encoder)
                if ident is not None:
                    data = envelope.stamp(data, ident)
                writer = activity.writer
                writer.answer(writer.compress(TEXT, data))
        except BaseException as exc:  # a SystemExit must not end the connection's thread
            self._failed(req, exc)
        activity.request = None
        if req._token is not None:
            req._token.end()
        try:
            times = activity.times[kind]
        except KeyError:
            times = activity.times.setdefault(self._label(kind), Times())
        elapsed = perf_counter() - started
        if elapsed < 0.001:
            times.seconds += elapsed
            times.buckets[0] += 1
        else:
            times.add(elapsed)

    def run(self, req: WebSocketRequest, handler: Handler) -> BaseException | None:
        """Handle a request outside of its connection's thread; never raises.

        For messages whose handler returned ``ANSWERED_LATER``: it answers, counts, and makes
        ``send()`` reach the request's client.

        Returns:
            The exception, which the client has been told of; None if there was none. One for
            the host that came while it was told of another.

        Threads:
            Any but the loop's and the minder's; waits for the handler.
        """
        activity = req._activity
        client, request = current.set(activity), asked.set(req)
        started = perf_counter()
        try:
            result = handler(req)
            if result is not None and result.__class__ not in PLAIN:
                result = resolve(req, result)
            if result is not ANSWERED_LATER and (result is not None or req._wants_answer()):
                req._respond(result)
        except BaseException as exc:  # must not end that thread either
            return self._failed(req, exc)
        finally:
            asked.reset(request)
            current.reset(client)
            if req._token is not None:
                req._token.end()
            activity.stats.handled(self._label(req.message_type), perf_counter() - started)
        return None

    def _label(self, kind: str) -> str:
        """Return the type to count a message as; the types that ``"*"`` takes count as one."""
        return kind if kind in self.table.by_type or kind == BINARY else ANY

    def _over(self, activity: Activity, message: str | bytes, rate: AnyRate) -> bool:
        """Refuse a message beyond the rate of all messages; return True if it was."""
        if isinstance(message, str) and self.heartbeats.take(message) is not None:
            return False
        wait = activity.charge(rate, overall=True)
        if not wait:
            return False
        kind = ident = None
        with contextlib.suppress(envelope.BadMessage):
            if isinstance(message, str):
                kind, payload = envelope.decode(message, self.max_depth)
                if kind in KINDS and activity.take_pending(kind, payload):
                    return True  # counted, but not refused: an answer or a cancel
                ident = payload.get("id")
                if not envelope.is_id(ident):
                    ident = None
        more = {"retry_after": wait}
        self._refuse(activity, "rate_limited", "too many messages", kind, ident, more)
        return True

    def _failed(self, req: WebSocketRequest, exc: BaseException) -> BaseException:
        """Answer a request whose handler raised, with one error, whatever it raised.

        Returns:
            The exception, or one for the host that came instead.
        """
        try:
            return self._answer_failure(req, exc)
        except (
            BaseException
        ) as failure:  # its own methods raise: not even its class can be asked for
            activity, kind = req._activity, req.message_type
            logger.exception("an exception of client %s cannot be read", activity.link.client_id)
            self._refuse(activity, "handler_error", "the handler failed", kind, req.id)
            return failure if is_for_host(failure) else exc

    def _answer_failure(self, req: WebSocketRequest, exc: BaseException) -> BaseException:
        activity, kind = req._activity, req.message_type
        if isinstance(exc, _ASYNC_CANCELLED) and req._token is not None and req._token.is_set():
            exc = req._token.error()
        if not activity.link.open and isinstance(exc, _QUIET):
            return exc
        if isinstance(exc, ClientError):
            self._refuse(activity, exc.code, exc.text, kind, req.id, exc.data)
            return exc
        logger.error(
            "handler for %r failed for client %s",
            kind[: envelope.MAX_ECHO],
            activity.link.client_id,
            exc_info=exc,
            kind=self._label(kind),
        )
        result = exc
        more: dict[str, Any] = {}
        for hook in tuple(self.on_error):
            try:
                more = {**self._ask(hook, req, exc), **more}
            except BaseException as failure:  # it must not keep the others from running
                logger.exception("on_error hook failed for client %s", req.client_id)
                if is_for_host(failure):
                    result = failure
        if self.debug:
            more["traceback"] = format_exception(exc)
        self._refuse(activity, "handler_error", "the handler failed", kind, req.id, more)
        return result

    def _ask(
        self,
        hook: Callable[[WebSocketRequest, Any], Any],
        req: WebSocketRequest,
        exc: BaseException,
    ) -> dict[str, Any]:
        """Call an ``on_error`` hook; return what it adds to the error."""
        data = hook(req, exc)
        if hasattr(data, "__await__"):
            data = req._activity.runtime.loop.run(data)
        if data is not None and not isinstance(data, Mapping):
            raise TypeError(f"an on_error hook must return a dict or None, not {data!r:.100}")
        return dict(data or {})

    def _refuse(
        self,
        activity: Activity,
        code: str,
        text: str,
        kind: str | None = None,
        ident: Any = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        try:
            data = envelope.error(text, code, kind, more, self.encoder)
        except EncodeError:  # a ClientError with a text or code that JSON cannot carry
            logger.error("error %r for client %s cannot be sent", code, activity.link.client_id)
            code = "handler_error"
            data = envelope.error("the handler failed", code, kind)
        if ident is not None:
            data = envelope.stamp(data, ident)
        writer = activity.writer
        if writer.is_owner():
            activity.errors[code] = activity.errors.get(code, 0) + 1
            writer.answer(writer.compress(TEXT, data))
        else:
            activity.stats.refused_message(code)
            reply(writer, data)

    def _bad_id(self, activity: Activity, kind: str) -> None:
        if kind in KINDS:
            logger.debug("dropped a %r of client %s: bad id", kind, activity.link.client_id)
            activity.link.reader.charge()
            return
        text = f'"id" must be a string or a number, of at most {envelope.MAX_ID} characters'
        self._refuse(activity, "bad_id", text, kind)

    def _unhandled(
        self, activity: Activity, kind: str, payload: dict[str, Any], ident: Any
    ) -> Handler | None:
        """Act on the protocol's own types; for others return the ``"*"`` handler, or refuse.

        An answer or a cancel is one by its id; without it the type is one like any other.
        """
        if kind == HEARTBEAT:
            activity.link.reader.discount()
            answer = self.heartbeats.answer(ident)
            activity.writer.answer(activity.writer.compress(TEXT, answer))
            return None
        if kind not in KINDS or ident is None:
            handler = self.table.by_type.get(ANY)
            if handler is None:
                self._refuse(activity, "unknown_type", self._unknown(kind), kind, ident)
            return handler
        if not activity.take_pending(kind, payload):
            # Late or unknown. Not answered with an error, which could start a loop of errors.
            logger.debug(
                "dropped a %r of client %s: nobody waits for it", kind, activity.link.client_id
            )
            activity.link.reader.charge()
        return None

    def _unknown(self, kind: str) -> str:
        if len(kind) > _MAX_SUGGEST:
            return "unknown message type"
        close = difflib.get_close_matches(kind, self.table.by_type, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"unknown message type {kind!r}{hint}"
