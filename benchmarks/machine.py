"""Where a run took place: machine, interpreter, versions, command."""

import datetime
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks import http
from benchmarks.cases import NODE_MODULES

PACKAGES = (
    "daebus", "websockets", "Werkzeug", "simple-websocket", "wsproto", "Flask", "flask-sock",
    "aiohttp", "orjson", "waitress", "cheroot", "gunicorn",
    "redis", "python-socketio", "channels", "channels_redis", "uvicorn",
)  # fmt: skip


def describe(arguments: list[str]) -> dict[str, str]:
    """Return what somebody needs to judge or repeat the run, as texts by name."""
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m benchmarks", *arguments]),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": sys.version.split(" (")[0],
    }
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    facts["HTTP client"] = http.client()
    if shutil.which("node"):
        facts["Node.js"] = _output("node", "--version").lstrip("v")
        if (NODE_MODULES / "ws").is_dir():
            package_json = f"require({str(NODE_MODULES / 'ws' / 'package.json')!r}).version"
            facts["ws (Node.js)"] = _output("node", "-p", package_json)
    return facts


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
