"""Other interpreters than that of the benchmarks: the newest with the GIL, and one without it.

``BENCH_PYTHONS`` names them by their paths, with blanks between; unset, they are looked for on
``PATH``. One that lacks the packages which its servers need gets an environment of its own.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".venv-bench" / "pythons"  # of their environments

USUAL = tuple(f"python3.{minor}{build}" for minor in range(11, 20) for build in ("", "t"))

PACKAGES = ("websockets>=17,<18", "werkzeug>=3.1", "simple-websocket>=1.1")
PEERS = ("aiohttp>=3.10,<4", "picows>=2")  # measured with the GIL

_SAY = """
import platform, sysconfig
print(platform.python_version(), int(bool(sysconfig.get_config_var("Py_GIL_DISABLED"))))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python.

    Attributes:
        path: of its program.
        version: such as ``3.14.2``.
        gil: whether it has the GIL.
    """

    path: str
    version: str
    gil: bool


def find(names: Iterable[str]) -> dict[str, Interpreter]:
    """Return the latest interpreter with the GIL as ``newest``, and without as ``nogil``.

    Args:
        names: paths, or names on ``PATH``; those that do not run are passed over.
    """
    found = [one for one in map(_look, names) if one is not None]
    found.sort(key=lambda one: [int(part) for part in one.version.split(".") if part.isdigit()])
    return {"newest" if one.gil else "nogil": one for one in found}


def chosen() -> dict[str, Interpreter]:
    """Return what ``find`` makes of ``BENCH_PYTHONS``, or of what is on ``PATH``."""
    return find(os.environ.get("BENCH_PYTHONS", "").split() or USUAL)


def prepare(say: Callable[[str], None]) -> dict[str, str]:
    """Choose the interpreters for ``path_of``, each with what its servers need.

    Args:
        say: told what is installed, and why one is left out.

    Returns:
        What they are, for the report.
    """
    told = {}
    for name, one in chosen().items():
        modules = ("websockets", "werkzeug", *(("aiohttp", "picows") if one.gil else ()))
        own = _environment(one) / "bin" / "python"
        ready = [path for path in (one.path, str(own)) if has(path, *modules)]
        if ready:
            _paths[name] = ready[0]
        else:
            say(f"installing packages for Python {one.version}")
            try:
                _install(one, (*PACKAGES, *PEERS) if one.gil else PACKAGES)
            except (OSError, subprocess.CalledProcessError) as exc:
                say(f"without Python {one.version}: its packages cannot be installed: {exc}")
                continue
            _paths[name] = str(own)
        told[f"Python, {name}"] = one.version if one.gil else f"{one.version}, without the GIL"
    return told


_paths: dict[str, str] = {}


def path_of(name: str) -> str | None:
    """Return the program of ``newest`` or ``nogil``; None if there is none."""
    return _paths.get(name)


@functools.cache
def has(path: str, *modules: str) -> bool:
    """Tell whether an interpreter can import these."""
    command = (path, "-c", f"import {', '.join(modules)}")
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:  # there is none
        return False


def _look(name: str) -> Interpreter | None:
    path = shutil.which(name)
    if path is None:
        return None
    done = subprocess.run((path, "-c", _SAY), capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    version, free = done.stdout.split()
    return Interpreter(path, version, gil=free == "0")


def _environment(one: Interpreter) -> Path:
    return PLACE / (one.version if one.gil else f"{one.version}t")


def _install(one: Interpreter, packages: Iterable[str]) -> None:
    folder = _environment(one)
    has.cache_clear()
    # Not every interpreter brings pip along, so the one that runs this installs.
    subprocess.run((one.path, "-m", "venv", "--without-pip", str(folder)), check=True)
    subprocess.run(
        (
            *(sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")),
            *("install", "--quiet", "--disable-pip-version-check", *packages),
        ),
        # Where there is no wheel of websockets, its part in C is built.
        env=os.environ | {"BUILD_EXTENSION": "yes"},
        check=True,
    )
