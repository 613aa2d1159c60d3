"""Token buckets: how many messages a client may send. Pure: the moment is an argument."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["Bucket", "Per", "Rate", "RateLimiter", "check_per", "parse_rate"]

# Whose messages a rate counts together.
Per = Literal["client", "user", "address"]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}

# A token may be short of a whole one by this much: clocks are inexact, more so the longer
# the machine has run, and a client that waited as long as it was told must pass. The
# difference stays owed, so that it does not add up.
_SLACK = 1e-3

# Seconds over which refused messages add up: a client that ignores refusals is cut within
# a minute, and an accident is forgotten after one.
STRIKE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """A number of messages in a number of seconds, and as many at once after a pause.

    Compared by identity: two types with the same numbers do not share a bucket.

    Attributes:
        count: at least 1.
        seconds: greater than 0.
        per: whose messages it counts together.
    """

    count: int
    seconds: float
    per: Per = "client"


def check_per(per: str) -> None:
    """Raise ``ValueError`` unless it says whose messages are counted together."""
    if per not in get_args(Per):
        raise ValueError(f"per is {per!r}; write per='client', 'user' or 'address'")


def parse_rate(text: str, per: Per = "client") -> Rate:
    """Read a rate such as ``"10/s"``, ``"100/m"`` or ``"5/h"``.

    Raises:
        TypeError: it is not a string.
        ValueError: it is not of that form, or ``per`` is not one of its three.
    """
    check_per(per)
    if not isinstance(text, str):
        raise TypeError(f"a rate must be a string, not {text!r}; write rate='10/s'")
    match = re.fullmatch(r"([1-9][0-9]{0,8})/([smh])", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write rate='10/s', '100/m' or '5/h'")
    return Rate(int(match[1]), _SECONDS[match[2]], per)


class Bucket:
    """Tokens that accrue at a rate, up to its count; each message takes one.

    Within t seconds at most ``count + t * count / seconds`` are taken.

    Attributes:
        rate: of the tokens.
        used: the moment of the last message.
    """

    __slots__ = ("_tokens", "rate", "used")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = float(rate.count)
        self.used = now

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        rate = self.rate
        tokens = min(rate.count, self._tokens + (now - self.used) * rate.count / rate.seconds)
        self.used = now
        if tokens >= 1 - _SLACK:
            self._tokens = tokens - 1
            return 0.0
        self._tokens = tokens
        return (1 - tokens) * rate.seconds / rate.count


class RateLimiter:
    """How much one client has used of its rates, and how often it exceeded them.

    Args:
        max_strikes: refused messages within a minute after which ``beyond`` is true;
            None for never.
        now: the moment to begin at.
    """

    __slots__ = ("_buckets", "_strikes", "beyond")

    def __init__(self, max_strikes: int | None, now: float) -> None:
        self.beyond = False
        self._buckets: dict[Rate | None, Bucket] = {}
        self._strikes = (
            None if max_strikes is None else Bucket(Rate(max_strikes, STRIKE_SECONDS), now)
        )

    def wait(self, key: Rate | None, rate: Rate, now: float) -> float:
        """Count a message.

        Args:
            key: the rate itself for one type's rate; None for the rate of all messages.
            rate: how many messages may come; a rate that has changed starts a new bucket.
            now: the moment.

        Returns:
            0 if it may pass, else the seconds to wait for, in whole milliseconds.
        """
        bucket = self._buckets.get(key)
        if bucket is None or bucket.rate is not rate:
            bucket = self._buckets[key] = Bucket(rate, now)
        return self.judge(bucket.take(now), now)

    def judge(self, wait: float, now: float) -> float:
        """Count a strike for a message that must wait.

        Returns:
            The seconds to wait for, in whole milliseconds.
        """
        if wait and self._strikes is not None and self._strikes.take(now):
            self.beyond = True
        return math.ceil(wait * 1000) / 1000
