"""Every case of the Autobahn suite, run against a raw echo by the ``kosoku`` client."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from daebus.websocket.connection.connection import Connection
from tests.support.fixture_types import MakeApp

CASES = 517
# A message of series 9 is 16 MiB, cut into up to 262,144 fragments.
LARGE = 64 << 20
PARALLEL = 8


# Ten pings that come together, each of which these two want answered. RFC 6455 section 5.5.3
# allows what we do: the newest alone is answered, so that a flood costs one pong a read.
PINGS = {"2.10", "2.11"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_autobahn_case_passes(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(
        compression="deflate",
        max_message_size=LARGE,
        max_fragments=1 << 20,
        max_outbox=LARGE,
        max_outbox_messages=100_000,
        ping_interval=None,
    )

    @app.websocket.raw("/")
    def echo(ws: Connection) -> None:
        for message in ws:
            ws.send(message)

    app.start()
    kosoku = Path(sysconfig.get_path("scripts")) / "kosoku"
    url = f"ws://127.0.0.1:{app.websocket.port}"
    ran = subprocess.run(
        [kosoku, "-m", "fuzzingclient", url, "-p", str(PARALLEL), "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    index = tmp_path / "index.json"
    assert index.is_file(), ran.stdout + ran.stderr
    (cases,) = json.loads(index.read_text()).values()
    failed = {
        case: (result["behavior"], result["behaviorClose"])
        for case, result in cases.items()
        if (result["behavior"] not in ("OK", "NON-STRICT", "INFORMATIONAL") and case not in PINGS)
        or result["behaviorClose"] not in ("OK", "INFORMATIONAL")
    }
    assert failed == {}, ran.stderr
    assert len(cases) == CASES
    assert ran.returncode in (0, 1), ran.stderr  # 1: some case failed, such as those two
