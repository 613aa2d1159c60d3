"""Node, and what is installed for it: the browser client without a browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["BROWSER", "SCRIPTS", "install", "missing", "run_node"]

ROOT = Path(__file__).resolve().parents[2]
BROWSER = ROOT / "src" / "daebus" / "browser"
SCRIPTS = ROOT / "tests" / "clients" / "js"

# Of the packages of npm that tests use; none is needed to use the client.
PACKAGES = ("esbuild@0.28", "typescript@7", "ws@8")


def missing(problem: str) -> NoReturn:
    """Skip, or fail where ``DAEBUS_REQUIRE_BROWSER`` is set."""
    if os.environ.get("DAEBUS_REQUIRE_BROWSER"):
        pytest.fail(problem)
    pytest.skip(problem)


def run_node(script: Path, *arguments: str, timeout: float = 50.0) -> list[Any]:
    """Run a script to its end, and return the lines of JSON that it prints."""
    node = shutil.which("node")
    if node is None:
        missing("there is no node on this machine")
    ran = subprocess.run(
        [node, str(script), *arguments], capture_output=True, text=True, timeout=timeout
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def install(folder: Path) -> Path:
    """Install the packages, and return the folder that ``node_modules`` is in."""
    npm = shutil.which("npm")
    if npm is None:
        missing("there is no npm on this machine")
    command = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder)]
    ran = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, timeout=120)
    if ran.returncode:
        missing(f"npm cannot install {', '.join(PACKAGES)}: {ran.stderr[-300:]}")
    return folder
