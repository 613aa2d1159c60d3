"""The Dockerfile in ``deploy/``, its steps taken one by one in a folder."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.meter import DEPLOY, free_port
from tests.support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def steps() -> list[tuple[str, str]]:
    """Return instructions and what follows each."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def command(text: str) -> list[str]:
    """Return what a step runs without a shell, with this Python in the place of its own."""
    words: list[str] = json.loads(text)
    assert words[0] == "python"
    return [sys.executable, *words[1:]]


def test_the_steps_make_an_image_that_serves(tmp_path: Path) -> None:
    image, site = tmp_path / "image", tmp_path / "site"
    done = dict(steps())
    assert steps()[0][0] == "FROM"
    for word, rest in steps():
        if word == "COPY":
            *sources, target = shlex.split(rest)
            place = image / target.lstrip("/")
            for source in sources:
                copy(
                    DEPLOY.parent / source,
                    place / Path(source).name if target[-1] == "/" else place,
                )
        elif word == "RUN":
            pip, install, option, source = shlex.split(rest)
            assert (pip, install, option) == ("pip", "install", "--no-cache-dir")
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                 "--target", str(site), str(image / source.lstrip("/"))],
                check=True,
            )  # fmt: skip
    assert (site / "daebus" / "py.typed").exists()
    user = done["USER"].partition(":")[0]
    assert int(user) > 0
    settings = dict(pair.split("=", 1) for pair in shlex.split(done["ENV"]))
    assert done["EXPOSE"] == settings["METER_LISTEN"]
    assert int(done["EXPOSE"]) > 1023
    assert settings["METER_HOST"] == "0.0.0.0"  # else no other machine would reach it

    run = command(done["CMD"])
    run[-1] = str(image / run[-1].lstrip("/"))
    check = command(done["HEALTHCHECK"].partition(" CMD ")[2])
    environment = {
        **os.environ,
        **settings,
        "METER_LISTEN": str(free_port()),
        "METER_HOST": "127.0.0.1",
        "PYTHONPATH": str(site),
    }

    def is_healthy() -> bool:
        asked = subprocess.run(check, env=environment, capture_output=True, timeout=20)
        return asked.returncode == 0

    assert not is_healthy()
    with subprocess.Popen(run, env=environment, cwd=tmp_path) as process:
        try:
            assert eventually(is_healthy, 30)
            process.terminate()  # as "docker stop" does
            assert process.wait(10) == 0
        finally:
            process.kill()


def copy(source: Path, target: Path) -> None:
    """Copy a file or folder as COPY does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    else:
        shutil.copy(source, target)
