"""What systemd passes to a service, and what a service tells it."""

from __future__ import annotations

import os

import pytest

from daebus.server.systemd import passed_descriptors


@pytest.mark.parametrize(
    ("count", "pid", "text"),
    [
        (None, None, "systemd has passed no socket"),
        (None, "own", "systemd has passed no socket"),
        ("1", None, "systemd has passed no socket"),
        ("0", "own", "systemd has passed no socket"),
        ("-1", "own", "systemd has passed no socket"),
        ("one", "own", "systemd has passed no socket"),
        ("1", "1", "have the script in between use exec"),
    ],
)
def test_no_sockets(
    monkeypatch: pytest.MonkeyPatch, count: str | None, pid: str | None, text: str
) -> None:
    for name, value in (("LISTEN_FDS", count), ("LISTEN_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    with pytest.raises(OSError, match=text):
        passed_descriptors()
