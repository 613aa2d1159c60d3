"""The access log: a line for each request, in the common log format."""

from __future__ import annotations

import logging
import re
import time

from ...server.conn import Conn
from ...server.threads.safelog import get_logger, is_shown
from ..protocol.forwarded import Seen
from ..protocol.heads import Head

__all__ = ["AccessLog"]

logger = get_logger("daebus.access")

# Names of months do not depend on the locale here, as those of ``strftime`` do.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What would end a field or a line, or make a terminal do something.
_SPECIAL = re.compile(r'["\\]|[^\x20-\x7e]')


class AccessLog:
    """Writes to the logger ``daebus.access``, at INFO.

    Threads:
        Any: the line is logged by whoever has answered, which may be the acceptor.
    """

    def check(self) -> None:
        """Warn if the program shows no such lines."""
        if not is_shown(logger.logger.name, logging.INFO):
            logger.warning(
                "access_log=True has no effect: no handler takes what daebus.access logs at INFO; "
                "write logging.basicConfig(level=logging.INFO)"
            )

    def note(
        self, client: Conn, head: Head | None, seen: Seen | None, status: str, size: int
    ) -> None:
        """Log one request.

        Args:
            client: that sent it.
            head: None if it could not be read.
            seen: what a trusted proxy says of its client.
            status: of the answer, which may go on with a phrase; empty if there was none.
            size: bytes of its body.
        """
        peer = client.host if seen is None else seen.remote_address
        line = "-" if head is None else f"{head.method} {head.target} HTTP/{head.version}"
        logger.info(
            '%s - - [%s] "%s" %s %s',
            _SPECIAL.sub(_escaped, peer) or "-",
            _date(time.time()),
            _SPECIAL.sub(_escaped, line),
            status[:3] or "-",
            size or "-",
        )


def _escaped(match: re.Match[str]) -> str:
    text = match[0]
    return "\\" + text if text in '"\\' else text.encode("unicode_escape").decode()


def _date(seconds: float) -> str:
    now = time.localtime(seconds)
    minutes = now.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
    return f"{now.tm_mday:02}/{_MONTHS[now.tm_mon - 1]}/{time.strftime('%Y:%H:%M:%S', now)} {zone}"
