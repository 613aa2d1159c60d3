"""A firmware update that takes its time: every page sees it, any page may come, go, or cancel it.

The job belongs to no page. So its progress goes to a room, where a page that is reloaded
finds it again, and not to the one that asked (``req.progress``); and it ends when somebody
says so, not when that page is gone (``req.cancelled``). ``STEP=0.01`` makes it faster.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import Sample, port_from_environment

from daebus import ClientError, DaebusHttp, DaebusWebSocket, WebSocketRequest

STEP = float(os.environ.get("STEP") or 0.1)  # seconds that the pump needs for one block


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


app = Sample("longjob")
page = Path(__file__).parent / "longjob"
http = app.attach(DaebusHttp(port=port_from_environment(), static=page))
websocket = app.attach(DaebusWebSocket())

pump, lock = Pump(), threading.Lock()
cancel = threading.Event()  # set and cleared under: lock
job: dict[str, Any] = {  # guarded by: lock
    "state": "none",  # then running, and at last done, failed or cancelled
    "version": None,
    "phase": None,
    "done": 0,
    "total": sum(count for _, count in pump.blocks),
    "seconds": 0.0,
    "error": None,
    "installed": pump.version,
}


def tell(**changes: Any) -> None:
    """Change the job and show it to all who watch; ``lock`` is held, so that none is overtaken."""
    job.update(changes)
    websocket.broadcast_to_room("watchers", job, message_type="job", conflate="job")


@app.socket("watch")
def watch(req: WebSocketRequest) -> dict[str, Any]:
    with lock:  # nothing may change between the two; neither of them waits
        websocket.join(req.client_id, "watchers")
        websocket.broadcast_to_clients([req.client_id], job, message_type="job", conflate="job")
    return {"versions": pump.versions}


@app.socket("install", run_in="pool")
def install(req: WebSocketRequest) -> dict[str, str]:
    version: Any = req.data.get("version") if isinstance(req.data, dict) else None
    if version not in pump.versions:
        raise ClientError(f"choose one of {', '.join(pump.versions)}", code="bad_version")
    with lock:
        if job["state"] == "running":
            text = f"version {job['version']} is being installed already"
            raise ClientError(text, code="job_running")
        cancel.clear()
        tell(state="running", version=version, phase="starting", done=0, seconds=0.0, error=None)
    state, error = "failed", "the program failed; its log says why"
    try:
        state = run(version)
        error = ""
    except PumpError as problem:
        error = str(problem)
    finally:
        with lock:
            tell(state=state, error=error or None, installed=pump.version)
    return {"state": state}


def run(version: str) -> str:
    """Do the work, and tell how far it is; return how it ended."""
    started = time.monotonic()
    for done, phase in enumerate(pump.install(version), 1):
        with lock:
            if cancel.is_set() or not app.running:
                return "cancelled"
            tell(phase=phase, done=done, seconds=time.monotonic() - started)
    return "done"


@app.socket("cancel_install")
def cancel_install(req: WebSocketRequest) -> dict[str, str]:
    with lock:
        if job["state"] != "running":
            raise ClientError("nothing is being installed", code="no_job")
        cancel.set()
    return {"state": "cancelling"}


if __name__ == "__main__":
    app.run()
