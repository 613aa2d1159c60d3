"""The files of the browser client: their size, their types, and that they are installed."""

from __future__ import annotations

import configparser
import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

import daebus
from tests.support.node import BROWSER, ROOT, SCRIPTS, install

MAX_SIZE = 6 << 10  # bytes, minified and compressed


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``node_modules``, in which ``daebus`` is the client's."""
    folder = install(tmp_path_factory.mktemp("npm"))
    (folder / "node_modules" / "daebus").symlink_to(BROWSER)
    return folder


def test_the_package_is_of_the_same_version_and_names_its_files() -> None:
    package = json.loads((BROWSER / "package.json").read_text())
    assert package["version"] == daebus.__version__
    assert sorted([*package["files"], "package.json"]) == sorted(
        path.name for path in BROWSER.iterdir() if path.is_file()
    )
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert "browser/*" in setup["options.package_data"]["daebus"].split()


def test_the_client_imports_nothing() -> None:
    source = (BROWSER / "client.js").read_text()
    code = re.sub(r"/\*\*.*?\*/", "", source, flags=re.DOTALL)
    assert not re.search(r"^\s*(?:import\b(?!\.meta)|export .* from)", code, re.MULTILINE)


@pytest.mark.slow
def test_it_is_small(packages: Path) -> None:
    ran = subprocess.run(
        [packages / "node_modules/.bin/esbuild", BROWSER / "client.js", "--minify", "--format=esm"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert len(gzip.compress(ran.stdout, 9)) <= MAX_SIZE


@pytest.mark.slow
def test_the_declarations_and_an_example_compile(packages: Path) -> None:
    (packages / "package.json").write_text('{"type": "module"}')
    (packages / "example.ts").write_text((SCRIPTS / "example.ts").read_text())
    options = {
        "compilerOptions": {
            "strict": True,
            "noEmit": True,
            "target": "ES2022",
            "module": "NodeNext",
            "moduleResolution": "NodeNext",
            "lib": ["ES2022", "DOM"],
            "types": [],
            "preserveSymlinks": True,
        },
        "files": ["example.ts", "node_modules/daebus/client.d.ts"],
    }
    (packages / "tsconfig.json").write_text(json.dumps(options))
    ran = subprocess.run(
        [packages / "node_modules/.bin/tsc", "-p", packages],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
