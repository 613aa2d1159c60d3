"""``samples/restart.py`` under ``systemd-socket-activate``: a restart refuses nobody."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.meter import environment, free_port, program
from tests.support.peer import CLOSE, Peer
from tests.support.waiting import eventually

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "restart.py"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The sample, run as its docstring says."""
    port = free_port()
    command = [program("systemd-socket-activate"), "-l", f"127.0.0.1:{port}", "-E", "SPREAD=0.2"]
    told = environment()
    command += ["-E", f"RESTART_FILE={tmp_path / 'restart.sqlite'}"]
    command += ["-E", f"PYTHONPATH={told['PYTHONPATH']}", sys.executable, str(SAMPLE)]
    assert f"{Path(command[0]).name} -l 127.0.0.1:8080" in SAMPLE.read_text()
    process = subprocess.Popen(command, env=told, stderr=subprocess.PIPE, text=True)
    try:
        assert eventually(lambda: listens(port), 20)
        yield f"http://127.0.0.1:{port}"
        process.terminate()  # it is the sample by now
        assert process.wait(20) == 0
    finally:
        process.kill()
        _, errors = process.communicate()
        assert "Traceback" not in errors, errors


def listens(port: int) -> bool:
    """Look whether it listens, without being somebody who comes."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(f":{port:04X} 00000000:0000 0A" in line for line in lines)


def fetch(url: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(url, data, timeout=20) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_restart_refuses_nobody(url: str) -> None:
    first = fetch(f"{url}/who")["started"]
    with urllib.request.urlopen(f"{url}/", timeout=20) as page:
        assert b"<title>Restart</title>" in page.read()
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 20) as sock:
        peer = Peer.joined(sock)
        peer.say("subscribe", {"topic": "ticks"})
        assert peer.message()["data"]["kind"] == "history"
        assert peer.message()["type"] == "tick"
        fetch(f"{url}/restart", b"")

        while (second := fetch(f"{url}/who")["started"]) == first:  # any refusal raises
            pass
        assert second > first
        while (message := peer.message())["type"] == "tick":
            pass
        assert message["data"]["reason"] == "restart"
        opcode, payload = peer.frame()
        assert (opcode, int.from_bytes(payload, "big")) == (CLOSE, 1012)


@pytest.mark.slow
def test_the_page_misses_no_tick(url: str, browser: Any) -> None:
    page = browser.new_page()
    try:
        page.goto(url)
        for starts in range(1, 4):
            page.locator("#starts", has_text=str(starts)).wait_for()
            page.wait_for_function("() => Number(document.querySelector('#tick').textContent) > 0")
            page.locator("#restart:enabled").click()
        page.locator("#starts", has_text="4").wait_for()
        assert page.text_content("#missed") == "no tick missed"
    finally:
        page.close()
