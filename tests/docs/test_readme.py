"""The README, followed from top to bottom by somebody who has nothing but the repository."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import ROOT, Block, blocks
from tests.support.readme_pages import PAGES

PATIENCE = 300.0  # seconds for a command; pip may have to fetch and build


class Reader:
    """Types the commands of the README, and saves its files, in a folder of its own.

    Args:
        origin: the repository, in the place of ``URL``.
        folder: empty.
        browser: opens the pages.
    """

    def __init__(self, origin: Path, folder: Path, browser: Any) -> None:
        self.origin = origin
        self.folder = folder
        self.browser = browser
        self.seen: list[str] = []
        names = ("HOME", "LANG", "http_proxy", "https_proxy", "no_proxy")
        self.environment = {name: os.environ[name] for name in names if name in os.environ}
        self.environment |= {n: v for n, v in os.environ.items() if n.startswith("PIP_")}
        python = folder / "python"  # the interpreter of the tests is what python3 means here
        python.mkdir()
        (python / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
        self.environment["PATH"] = f"{python}:{os.environ['PATH']}"

    def follow(self, block: Block) -> None:
        """Do what a block asks for."""
        if block.name:
            (self.folder / block.name).write_text(block.text)
        if block.language == "console":
            for line in block.text.splitlines():
                self.type(line.removeprefix("$ "))

    def type(self, line: str) -> None:
        """Type one command."""
        words = shlex.split(line.replace("URL", str(self.origin)))
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == ".":
            binaries = (self.folder / words[1]).parent
            self.environment["PATH"] = f"{binaries}:{self.environment['PATH']}"
        elif words[0] == "python":
            self.watch(words, PAGES[words[1]], 0)
        elif words[:2] == ["make", "run-sample"]:
            # The ports of the README may be taken; make has a code of its own for Ctrl-C.
            self.watch([*words, "PORT=0"], lambda page, url: page.goto(url), None)
        else:
            done = self.run(words)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            if words[0] == "pytest":
                assert re.search(r"\b3 passed in ", done.stdout), done.stdout
        self.seen.append(words[0])

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def watch(self, words: list[str], look: Any, code: int | None) -> None:
        """Start an app, look at the page whose address it prints, and end it with Ctrl-C."""
        with self.started(words) as process:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if match := re.search(r"http://\S+/", line):
                    page = self.browser.new_page()
                    look(page, match[0])
                    page.close()
                    break
            os.killpg(process.pid, signal.SIGINT)
            said += process.communicate(timeout=PATIENCE)[0]
            assert match, said
            assert "Traceback" not in said
            assert code is None or process.returncode == code, said

    @contextmanager
    def started(self, words: list[str]) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            words,
            cwd=self.folder,
            env={**self.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """The files of this checkout as they are, in a repository to clone."""
    folder = tmp_path / "origin"
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"this is no checkout of git: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True, timeout=60)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stranger_gets_through(tmp_path: Path, origin: Path, browser: Any) -> None:
    (tmp_path / "home").mkdir()
    reader = Reader(origin, tmp_path / "home", browser)
    for block in blocks(ROOT / "README.rst"):
        reader.follow(block)
    assert reader.seen.count("make") == 2
    assert reader.seen.count("python") == 2
    assert reader.seen.count("pytest") == 1
