"""Server processes: start one pinned, read its clock and memory from /proc, stop it."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"


class ServerError(Exception):
    """A server did not start, or ended when it should not have."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit on descriptors to the hard one, for us and the servers; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def busy_seconds(cpus: Collection[int]) -> float:
    """Return how long the given cores have been busy with anything, steal included."""
    wanted = {f"cpu{cpu}" for cpu in cpus}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """One server process, from start to end; use it in a ``with`` statement.

    Args:
        command: the program and its arguments; ``{port}`` stands for the port.
        cpus: the cores it may run on.
        environment: variables to set besides ours.
        log: where its output goes.
        start_timeout: seconds until it must accept a connection.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cpus: Collection[int],
        environment: dict[str, str],
        log: Path,
        start_timeout: float = 20.0,
    ) -> None:
        self.port = free_port()
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [part.format(port=self.port) for part in command],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )
        self._proc = Path("/proc") / str(self._process.pid)
        # How Linux numbers the CPU clock of another process: see clock_getcpuclockid(3).
        self._clock = (~self._process.pid << 3) | 2
        try:
            self._wait_until_it_accepts(start_timeout)
        except BaseException:
            self._kill()
            raise

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.stop(timeout=3.0)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads so far, in seconds, to the nanosecond."""
        return time.clock_gettime(self._clock)

    def threads(self) -> int:
        """Return how many threads it has."""
        return int(self._status("Threads"))

    def settled_threads(self) -> int:
        """Return how many threads it has once that number no longer changes."""
        count, calm = self.threads(), 0
        while calm < 5:  # the thread of a connection that has just ended may go any moment
            time.sleep(0.05)
            last, count = count, self.threads()
            calm = calm + 1 if count == last else 0
        return count

    def descriptors(self) -> int:
        """Return how many descriptors it has open."""
        return len(list((self._proc / "fd").iterdir()))

    def pss_kib(self) -> int:
        """Return its proportional set size: memory of its own and its share of what is shared."""
        for line in (self._proc / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise ServerError("no Pss in smaps_rollup")

    def rss_kib(self) -> int:
        """Return its resident memory now."""
        return int(self._status("VmRSS").split()[0])

    def reset_peak(self) -> None:
        """Begin a new measure of peak memory (proc(5), clear_refs)."""
        (self._proc / "clear_refs").write_text("5")

    def peak_kib(self) -> int:
        """Return its largest resident memory since ``reset_peak``."""
        return int(self._status("VmHWM").split()[0])

    def stop(self, timeout: float = 10.0) -> tuple[float, int | None]:
        """Send SIGTERM and wait.

        Returns:
            The seconds it took, and the exit code; None if it had to be killed.
        """
        started = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self.wait(started, timeout)

    def begin_stop(self) -> float:
        """Send SIGTERM only; pass what it returns to ``wait``."""
        self._process.send_signal(signal.SIGTERM)
        return time.monotonic()

    def wait(self, started: float, timeout: float) -> tuple[float, int | None]:
        """Wait for the end of a stop begun at ``started``; see ``stop``."""
        try:
            code = self._process.wait(max(0.0, started + timeout - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._kill()
            return time.monotonic() - started, None
        return time.monotonic() - started, code

    def last_words(self) -> str:
        """Return the last line of its output, to explain a failure."""
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "(it said nothing)")

    def _status(self, field: str) -> str:
        for line in (self._proc / "status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return value.strip()
        raise ServerError(f"no {field} in the status of the server process")

    def _wait_until_it_accepts(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if self._process.poll() is not None:
                raise ServerError(f"the server ended at its start: {self.last_words()}")
            try:
                # The kernel may pick the very port as ours, and the socket connects to itself.
                with socket.create_connection((HOST, self.port), timeout=1.0) as probe:
                    if probe.getsockname() != probe.getpeername():
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise ServerError(f"the server accepts nothing after {timeout} s")
            time.sleep(0.02)

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
