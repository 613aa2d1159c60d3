"""What a running app looks like from inside: for operators and for bug reports."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable

from ..websocket.hub import Hub
from ..websocket.watchdog import stack_of

__all__ = ["describe", "threads_by_role"]


def threads_by_role() -> dict[str, int]:
    """Return how many threads of daebus this process has, by what they do."""
    roles = Counter(
        thread.name.split("-")[1]
        for thread in threading.enumerate()
        if thread.name.startswith("daebus-")
    )
    roles["parked"] = sum(thread.name == "daebus-ws-parked" for thread in threading.enumerate())
    roles["ws"] -= roles["parked"]
    return {role: count for role, count in sorted(roles.items()) if count}


def describe(title: str, tasks: Iterable[str], hub: Hub | None) -> str:
    """Return threads with their stacks, tasks, and connections with their queues, as text."""
    lines = [title, "", *tasks, ""]
    if hub is not None:
        connections = hub.registry.snapshot()
        lines.append(f"{len(connections)} connections:")
        now = time.monotonic()
        for connection in connections:
            size, count = connection.queued()
            lines.append(
                f"  {connection.client_id} from {connection.remote_address or 'a Unix socket'} "
                f"{connection.path} {now - connection.connected_at:.1f} s, "
                f"running {connection.running or '-'}, "
                f"{connection.messages_in} in, {connection.messages_out} out, "
                f"outbox {size} bytes in {count} messages, {connection.dropped} dropped, "
                f"silent for {now - connection.last_in:.1f} s"
            )
            if connection.task is not None:
                lines += ["    coroutine:", *_indented(stack_of(connection))]
        lines.append("")
    frames = sys._current_frames()
    for thread in threading.enumerate():
        lines.append(f"thread {thread.name}{' (daemon)' if thread.daemon else ''}:")
        frame = frames.get(thread.ident or 0)
        if frame is not None:
            lines += _indented("".join(traceback.format_stack(frame)))
        lines.append("")
    return "\n".join(lines)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.rstrip().splitlines()]
