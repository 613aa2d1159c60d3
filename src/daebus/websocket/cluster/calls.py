"""Calls to clients of other nodes, and those of other nodes to clients of ours.

::

    asking node                        the client's node
    ask        call  ────────────────▶ _take_call: a question, as if it had come from here
    _take_answer  ◀────────── answer   _Relayed: once the client has answered, or left
    forget     cancel ───────────────▶ _take_cancel, if the time is not over

Rules of this module:

1. A frame asks several clients of one node; each is answered by a frame of its own.
2. Whoever takes a call out of its table ends it, so the tables need no lock: that is one step.
3. The client's node forgets a call by itself when its time is over, or the asking node is gone.
4. An answer is encoded by the minder, since it comes under a connection's lock, and decoded by
   whoever waits for it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...backplane.frames import Header
from ...errors import CallError, CallTimeout, ClientGone, TooLargeError
from ...server.threads.minder import Minder, Timer
from ...waits import monotonic
from ..clients.registry import Registry
from ..messages.pending import Answer, PendingCall
from ..messages.questions import ask
from .fields import field, texts
from .node import Node

__all__ = ["Calls", "split"]

# Clients that one frame names at most: its header stays small.
_BATCH = 500

# Seconds after which a client's node forgets a call whose asker would wait for ever.
_LONGEST = 864_000.0

_Key = tuple[str, str, str]  # the other node, the call, the client


def split(clients: Mapping[str, list[str]]) -> list[tuple[str, list[str]]]:
    """Return the clients of each node in groups that one frame can name."""
    return [
        (node, ids[start : start + _BATCH])
        for node, ids in clients.items()
        for start in range(0, len(ids), _BATCH)
    ]


class _RemoteAnswer(Answer):
    """What a client of another node answers, as bytes of that node."""

    def __init__(self, client_id: str, kind: str) -> None:
        super().__init__()
        self._client_id = client_id
        self._kind = kind

    def get(self) -> Any:
        """Return the data, or raise what has come in its place."""
        payload = super().get()
        try:
            outcome = json.loads(payload.decode("utf-8", "surrogatepass"))
            if "data" in outcome:
                return outcome["data"]
            if outcome.get("gone"):
                raise ClientGone(self._client_id)
            if outcome.get("dropped"):
                raise CallTimeout(
                    f"{self._kind!r} was dropped, as client {self._client_id} does not read"
                )
            text, code, data = outcome["error"]
            raise CallError(str(text), str(code), data)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
            raise CallError(
                f"the answer of client {self._client_id} cannot be read: {exc!r:.100}",
                "unreadable_answer",
            ) from None


class Calls:
    """The calls of this node that wait, and those of others that its clients are asked.

    Args:
        node: this node.
        registry: the clients of this node.
        minder: has the deadlines, and encodes answers.

    Threads:
        ``ask`` may be called from any thread and does not wait.
    """

    def __init__(self, node: Node, registry: Registry, minder: Minder) -> None:
        self._node = node
        self._registry = registry
        self._minder = minder
        self._stopping = False
        self._open: dict[_Key, _RemoteAnswer] = {}
        self._relayed: dict[_Key, _Relayed] = {}
        node.on("call", self._take_call)
        node.on("answer", self._take_answer)
        node.on("cancel", self._take_cancel)
        node.gone.append(self._node_gone)

    # --- calls of ours ---------------------------------------------------------------

    def ask(
        self, asked: Mapping[str, list[str]], kind: str, message: bytes, timeout: float
    ) -> dict[str, PendingCall]:
        """Ask clients of other nodes.

        Args:
            asked: the clients, by their nodes.
            kind: the message type.
            message: the envelope, without an id.
            timeout: seconds, after which their nodes forget the call.

        Returns:
            A call for each; that of a client whose node is not alive has failed already.

        Raises:
            TooLargeError: the message is larger than ``max_frame``; nobody was asked.
        """
        ident = secrets.token_hex(8)
        more: dict[str, Any] = {"r": ident, "m": kind, "t": float(min(timeout, _LONGEST))}
        batches = split(asked)
        for _, ids in batches:
            self._node.judge("call", message, more={"ids": ids, **more})
        deadline = monotonic() + timeout
        calls: dict[str, PendingCall] = {}
        for node, ids in batches:
            for client_id in ids:
                answer = self._open[node, ident, client_id] = _RemoteAnswer(client_id, kind)
                forget = partial(self._forget, (node, ident, client_id), deadline)
                calls[client_id] = PendingCall(client_id, kind, answer, forget)
            handed = self._node.post_to(node, "call", message, more={"ids": ids, **more})
            if not handed or self._stopping:
                for client_id in ids:
                    self._lose((node, ident, client_id))
        return calls

    def stop(self) -> None:
        """Have no call wait any more, nor those that are still to come."""
        self._stopping = True
        for key in list(self._open):
            self._lose(key)

    def _forget(self, key: _Key, deadline: float) -> bool:
        if self._open.pop(key, None) is None:
            return False
        if monotonic() < deadline:  # else the other node has forgotten it too
            node, ident, client_id = key
            self._node.post_to(node, "cancel", to=client_id, more={"r": ident})
        return True

    def _lose(self, key: _Key) -> None:
        answer = self._open.pop(key, None)
        if answer is not None:
            answer.settle(None, ClientGone(key[2]))

    def _take_answer(self, header: Header, payload: bytes) -> None:
        answer = self._open.pop((header.node, field(header, "r", str), header.to), None)
        if answer is not None:
            answer.settle(payload, None)

    # --- calls of others -------------------------------------------------------------

    def _take_call(self, header: Header, message: bytes) -> None:
        ident, kind = field(header, "r", str), field(header, "m", str)
        seconds = min(field(header, "t", float), _LONGEST)
        for client_id in texts(header, "ids"):
            key = (header.node, ident, client_id)
            relayed = self._relayed[key] = _Relayed(self._minder, partial(self._answer, key))
            try:
                relayed.forget = ask(
                    self._registry.get(client_id), client_id, kind, message, relayed
                )
            except (ClientGone, CallError, CallTimeout) as exc:
                relayed.settle(None, exc)
            else:
                relayed.timer = self._minder.call_later(seconds, partial(self._drop, key))
                if key not in self._relayed:  # it was answered or given up meanwhile
                    relayed.give_up()

    def _take_cancel(self, header: Header, payload: bytes) -> None:
        self._drop((header.node, field(header, "r", str), header.to))

    def _drop(self, key: _Key) -> None:
        relayed = self._relayed.pop(key, None)
        if relayed is not None:
            relayed.give_up()

    def _answer(self, key: _Key) -> None:
        """Send an answer on; the minder does."""
        relayed = self._relayed.pop(key, None)
        if relayed is None:
            return
        relayed.give_up()
        node, ident, client_id = key
        more = {"r": ident}
        try:
            self._node.post_to(node, "answer", relayed.encode(), to=client_id, more=more)
        except TooLargeError as exc:
            payload = _encode({"error": [str(exc), "too_large", None]})
            self._node.post_to(node, "answer", payload, to=client_id, more=more)

    # --- the end of a node -----------------------------------------------------------

    def _node_gone(self, name: str) -> None:
        for key in list(self._open):
            if key[0] == name:
                self._lose(key)
        for key in list(self._relayed):
            if key[0] == name:
                self._drop(key)


class _Relayed:
    """A call of another node to a client of ours.

    Args:
        minder: sends the answer on.
        answered: called by the minder, once, when there is one.

    Attributes:
        forget: gives up the answer; None as long as the question was not sent.
        timer: gives it up when the time is over.
    """

    __slots__ = ("_answered", "_data", "_minder", "_problem", "forget", "timer")

    def __init__(self, minder: Minder, answered: Callable[[], object]) -> None:
        self._minder = minder
        self._answered = answered
        self._data: Any = None
        self._problem: Exception | None = None
        self.forget: Callable[[], bool] | None = None
        self.timer: Timer | None = None

    def settle(self, data: Any, problem: Exception | None) -> None:
        """Keep the answer, and have the minder send it on."""
        self._data, self._problem = data, problem
        self._minder.call_later(0.0, self._answered)

    def give_up(self) -> None:
        """Forget the question, if it waits for an answer still."""
        if self.timer is not None:
            self.timer.cancel()
        if self.forget is not None:
            self.forget()

    def encode(self) -> bytes:
        """Return the answer for the other node."""
        problem = self._problem
        if problem is None:
            try:
                return _encode({"data": self._data})
            except RecursionError:
                problem = CallError("the answer is nested too deep", "too_deep")
        if isinstance(problem, CallError):
            return _encode({"error": [problem.text, problem.code, problem.data]})
        return _encode({"gone" if isinstance(problem, ClientGone) else "dropped": True})


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )
