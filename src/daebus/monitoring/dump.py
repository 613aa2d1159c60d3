"""The inside of a running app as text, for operators and bug reports."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..server.threads.stacks import stack_of_thread
from ..waits import monotonic
from ..websocket.connection.link import Link
from ..websocket.hub import Hub
from ..websocket.watchdog import stack_of

__all__ = ["describe"]


def describe(title: str, tasks: Iterable[str], hub: Hub | None) -> str:
    """Return threads with their stacks, tasks, and connections with their queues, as text."""
    lines = [title, "", *tasks, ""]
    if hub is not None:
        links = hub.registry.snapshot()
        lines.append(f"{len(links)} connections:")
        for link in links:
            lines += _connection(link)
        lines.append("")
    for thread in threading.enumerate():
        lines.append(f"thread {thread.name}{' (daemon)' if thread.daemon else ''}:")
        lines += _indented(stack_of_thread(thread.ident))
        lines.append("")
    return "\n".join(lines)


def _connection(link: Link) -> list[str]:
    now, activity, counts = monotonic(), link.activity, link.account()
    size, count = link.writer.outlet.queued()
    lines = [
        f"  {link.client_id} from {link.peer.remote_address or 'a Unix socket'} "
        f"{link.peer.path} {counts.seconds:.1f} s, "
        f"running {(activity and activity.running) or '-'}, "
        f"{counts.messages_in} in, {counts.messages_out} out, "
        f"outbox {size} bytes in {count} messages, {counts.dropped} dropped, "
        f"silent for {now - link.last_in:.1f} s"
    ]
    if activity is not None and activity.task is not None:
        lines += ["    coroutine:", *_indented(stack_of(link))]
    return lines


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.rstrip().splitlines()]
