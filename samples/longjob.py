"""A firmware update that takes its time: every page sees it, any page may come, go, or cancel it.

The job belongs to no page. So its progress is a state, where a page that is reloaded finds it
again, and does not go to the one that asked (``req.progress``); and it ends when somebody says so,
not when that page is gone (``req.cancelled``). The state is kept in ``JOB_FILE``: a daemon that was
killed in the middle says so as soon as it is back. ``STEP=0.01`` makes the pump faster.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daebus import ClientError, Daebus, DaebusHttp, DaebusWebSocket, WebSocketRequest

STEP = float(os.environ.get("STEP") or 0.1)  # seconds that the pump needs for one block
FILE = os.environ.get("JOB_FILE") or Path(__file__).with_name("longjob.sqlite")


class PumpError(Exception):
    """What the pump itself reports."""


class Pump:
    """Simulate a pump's controller, which writes new firmware to its second memory bank."""

    versions = ("2.4.0", "2.4.1", "2.5.0-rc1")
    blocks = (("writing", 80), ("verifying", 30), ("restarting", 10))

    def __init__(self) -> None:
        self.version = self.versions[0]

    def install(self, version: str) -> Iterator[str]:
        """Write block after block; yield what each was. It may be left at any of them."""
        for phase, count in self.blocks:
            for block in range(count):
                time.sleep(STEP)
                if version.endswith("-rc1") and (phase, block) == ("verifying", 20):
                    raise PumpError(f"the checksum of {version} is wrong in block {block}")
                yield phase
        self.version = version


app = Daebus("longjob")
port, page = int(os.environ.get("PORT") or 8083), Path(__file__).parent / "longjob"
app.attach(DaebusHttp(port=port, static=page))
websocket = app.attach(DaebusWebSocket())

pump, lock = Pump(), threading.Lock()  # the lock is held from a look at the job to its change
looked_back = threading.Event()  # before that, nobody knows what the state says
cancel = threading.Event()  # set and cleared under: lock
job = websocket.state("job", persist=FILE)  # "state" is none, running, done, failed or cancelled
NOTHING = {
    "state": "none",
    "version": None,
    "phase": None,
    "done": 0,
    "seconds": 0.0,
    "error": None,
}


def look_back() -> None:
    """Find the job of the last run of this program; if it was not over then, it is now."""
    pump.version = job.get("installed", pump.version)
    facts = {"versions": list(pump.versions), "total": sum(count for _, count in pump.blocks)}
    job.update({**NOTHING, **job, **facts, "installed": pump.version})
    if job["state"] == "running":
        job.update(state="failed", error="the daemon was restarted in the middle of it")
    looked_back.set()


@app.socket("install", run_in="pool")
def install(req: WebSocketRequest) -> dict[str, str]:
    version: Any = req.data.get("version") if isinstance(req.data, dict) else None
    if version not in pump.versions:
        raise ClientError(f"choose one of {', '.join(pump.versions)}", code="bad_version")
    looked_back.wait(5)
    with lock:
        if job["state"] == "running":
            text = f"version {job['version']} is being installed already"
            raise ClientError(text, code="job_running")
        cancel.clear()
        job.update({**NOTHING, "state": "running", "version": version, "phase": "starting"})
    state, error = "failed", "the program failed; its log says why"
    try:
        state = run(version)
        error = ""
    except PumpError as problem:
        error = str(problem)
    finally:
        with lock:
            job.update(state=state, error=error or None, installed=pump.version)
    return {"state": state}


def run(version: str) -> str:
    """Do the work, and tell how far it is; return how it ended."""
    started = time.monotonic()
    for done, phase in enumerate(pump.install(version), 1):
        with lock:
            if cancel.is_set() or not app.running:
                return "cancelled"
            job.update(phase=phase, done=done, seconds=time.monotonic() - started)
    return "done"


@app.socket("cancel_install")
def cancel_install(req: WebSocketRequest) -> dict[str, str]:
    with lock:
        if job.get("state") != "running":
            raise ClientError("nothing is being installed", code="no_job")
        cancel.set()
    return {"state": "cancelling"}


if __name__ == "__main__":
    with app.serve():
        look_back()
        app.wait()
