"""Small disks, to be filled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["fill", "mount"]


def mount(*arguments: str) -> bool:
    if not shutil.which("mount"):
        return False
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast
