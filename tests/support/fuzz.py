"""The time that the fuzz tests may take, and their seeds."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

__all__ = ["PATIENCE", "SHARE", "seeds"]

# Seconds of all fuzz tests together. What is not asked for begins with the same seeds each
# time, so that a run which fails blames the change. DAEBUS_FUZZ_SECONDS=600 looks for more, and
# 36000 makes it a night; those begin with other seeds each time.
_ASKED = os.environ.get("DAEBUS_FUZZ_SECONDS")
_SECONDS = float(_ASKED or 180)

# Tests that share them; see tests/fuzz.
_TESTS = 9

# Seconds of one test.
SHARE = _SECONDS / _TESTS

# Seconds that one test may take before it is given up: its share, and time to make a
# failure small.
PATIENCE = SHARE + 420


def seeds(seconds: float = SHARE) -> Iterator[int]:
    """Return seeds until the time is over, one at least; each is printed.

    DAEBUS_FUZZ_SEED=N returns N alone: that repeats what a failed test has printed.
    """
    given = os.environ.get("DAEBUS_FUZZ_SEED")
    if given:
        yield int(given)
        return
    end = time.monotonic() + seconds
    source = random.SystemRandom() if _ASKED else random.Random(0)
    first = True
    while first or time.monotonic() < end:
        first = False
        seed = source.randrange(1 << 32)
        print(f"to repeat this one alone: DAEBUS_FUZZ_SEED={seed}", flush=True)
        yield seed
