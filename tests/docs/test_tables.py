"""The tables of the documents and the code say the same."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from websockets.frames import CloseCode

from daebus import ClientError, Connection, Daebus, DaebusHttp, DaebusRedis, DaebusWebSocket
from daebus.http.protocol import errors as wire
from daebus.http.protocol import parser
from daebus.http.protocol.limits import Limits
from daebus.http.site import request
from daebus.websocket.connection import controls
from daebus.websocket.connection import reader as reading
from daebus.websocket.messages import pending, shared_rate
from tests.support.documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    blocks,
    blocks_of_docutils,
    is_test,
    links,
    table,
)

PROTOCOL = ROOT / "docs" / "protocol.rst"
API = ROOT / "docs" / "api.rst"
LOAD = ROOT / "docs" / "guide" / "load.rst"
DESIGN = ROOT / "docs" / "design.rst"
DEBUGGING = ROOT / "docs" / "debugging.rst"
SECURITY = ROOT / "SECURITY.rst"
SOURCE = ROOT / "src" / "daebus"
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "KiB/s": 1 << 10, "MiB": 1 << 20}

# Limits that are no arguments, and their rows.
FIXED = {
    "form fields, no files": request.MAX_FORM_MEMORY,
    "fields and files of one": request.MAX_FORM_PARTS,
    "uploaded file in memory": request.MAX_MEMORY_FILE,
    "slow streams and bodies": Limits().max_streams,
    "empty lines": parser.MAX_EMPTY_LINES,
    "messages read ahead": reading.MAX_READ_AHEAD,
    "the same, for a call": reading.MAX_WAITING,
    "calls to one client": pending.MAX_CALLS,
    "users or addresses": shared_rate.MAX_BUCKETS,
    "control frames a second": controls.CONTROL_RATE,
    "control frames at once": controls.CONTROL_BURST,
}


class Call:
    """A call in the source, with the name of what is called."""

    def __init__(self, node: ast.Call, assigned: Mapping[str, list[ast.expr]]) -> None:
        self._assigned = assigned
        self.name = ast.unparse(node.func).rpartition(".")[2]
        self.arguments = node.args

    def constants(self, index: int, kind: type[Any]) -> list[Any]:
        """Return the literals in an argument, or in what is assigned to the name it is."""
        trees: list[ast.expr] = self.arguments[index : index + 1]
        if trees and isinstance(trees[0], ast.Name):
            trees = self._assigned.get(trees[0].id, [])
        nodes = (node for tree in trees for node in ast.walk(tree))
        return [n.value for n in nodes if isinstance(n, ast.Constant) and type(n.value) is kind]


@cache
def calls_of(file: Path) -> list[Call]:
    """Return each call in a module."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    assigned: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                assigned.setdefault(ast.unparse(target), []).append(node.value)
    return [Call(node, assigned) for node in nodes if isinstance(node, ast.Call)]


def calls(*paths: str) -> Iterator[Call]:
    """Yield each call in modules of the source."""
    for path in paths:
        for file in sorted(SOURCE.glob(path)):
            yield from calls_of(file)


def column(title: str, path: Path = PROTOCOL) -> list[str]:
    return [row[0] for row in table(path, title)]


def same(documented: list[Any], real: set[Any]) -> None:
    assert len(documented) == len(set(documented))
    assert set(documented) == real


def test_error_codes_of_messages() -> None:
    codes = {inspect.signature(ClientError).parameters["code"].default}
    for call in calls("websocket/**/dispatch*.py", "websocket/**/envelope.py"):
        if call.name in ("BadMessage", "_refuse", "error"):
            codes.update(call.constants(0 if call.name == "BadMessage" else 1, str))
    for call in calls("websocket/**/*.py"):
        if call.name in ("ClientError", "Cancelled"):
            codes.update(call.constants(1, str))
    codes = {code for code in codes if re.fullmatch("[a-z_]+", code)}  # no texts of logger.error
    assert len(codes) > 5
    same(column("Errors in messages"), codes)


def test_close_codes() -> None:
    codes = {inspect.signature(Connection.close).parameters["code"].default}
    for call in calls("websocket/**/*.py"):
        for index, argument in enumerate(call.arguments):
            codes.update(
                n for n in call.constants(index, int) if 1000 <= n < 1016 or n in range(4000, 5000)
            )
            name = ast.unparse(argument).removeprefix("CloseCode.")
            if name in CloseCode.__members__:
                codes.add(int(CloseCode[name]))
    browser = (SOURCE / "browser" / "client.js").read_text()
    codes.update(map(int, re.findall(r"code: (4\d{3})", browser)))
    assert len(codes) > 5
    same(column("Close codes"), {str(code) for code in codes})


def test_statuses_and_codes_of_http() -> None:
    answers = {("405", "method_not_allowed")}
    for call in calls("http/**/*.py", "server/handoff.py", "wsgi.py", "websocket/**/*.py"):
        statuses = [n for n in call.constants(0, int) if 400 <= n < 600]
        if call.name == "Refusal":
            codes = call.constants(1, str)
            answers.update((str(n), code) for n in statuses for code in codes)
        elif call.name in ("BadRequest", "json_error"):
            codes = call.constants(2, str)
            answers.update(
                (str(n), codes[0] if codes else wire.status_code_name(n)) for n in statuses
            )
    assert len(answers) > 10
    same([(row[0], row[1]) for row in table(PROTOCOL, "HTTP answers")], answers)


def test_limits() -> None:
    documented = {row[0]: value(row[1]) for row in table(PROTOCOL, "Limits")}
    real: dict[str, float] = dict(FIXED)
    for component in (DaebusWebSocket, DaebusHttp, DaebusRedis):
        for name, parameter in inspect.signature(component).parameters.items():
            number = type(parameter.default) in (int, float)
            if number and name not in ("port", "unix_mode"):
                real[name] = parameter.default
    assert documented == real


def value(text: str) -> float:
    """Read a number with its unit, such as ``1 MiB``."""
    number, _, unit = text.partition(" ")
    return float(number) * UNITS[unit]


def test_threads() -> None:
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    real = set(re.findall(r"\"(daebus-[a-z]+(?:-parked|-in|-out)?)", text)) - {"daebus-stop"}
    documented = [re.sub(r"-[A-Z]+$", "", name) for name in column("Threads", LOAD)]
    same(documented, real)


def test_the_guide_counts_threads_as_the_design_does() -> None:
    guide, design = ({row[0]: row[1] for row in table(path, "Threads")} for path in (LOAD, DESIGN))
    del design["daebus-stop"], design["another server's"]
    assert {name: normal(count) for name, count in guide.items()} == {
        name: normal(count) for name, count in design.items()
    }


def normal(text: str) -> str:
    return " ".join(text.split())


def test_stats_are_the_documented_ones(app: Daebus) -> None:
    @app.background("beat", 60)
    def beat() -> None: ...

    @app.thread("watch")
    def watch(stop: object) -> None: ...

    with app:
        real = app.stats()
    assert keys(definition("stats", "Daebus")) == {
        *real,
        *real["tasks"]["background"]["beat"],
        "background",
        "thread",
    }
    assert keys(definition("stats", "DaebusWebSocket")) == set(real["websocket"])


def definition(name: str, section: str) -> str:
    """Return what the reference says of a method, in the section of its class."""
    _, _, text = API.read_text().partition(f"\n{section}\n{'-' * len(section)}\n")
    match = re.search(rf"^``{name}``\n((?:    .*\n)+)", text, re.MULTILINE)
    assert match is not None
    return match[1]


def keys(text: str) -> set[str]:
    return set(re.findall(r"``([a-z_]+)``", text))


def test_blocks_are_those_that_docutils_finds() -> None:
    for path in DOCUMENTS:
        quick = [(b.language, b.name, b.text, b.others) for b in blocks(path)]
        assert quick == blocks_of_docutils(path), path


def test_links_lead_somewhere() -> None:
    def leads(path: Path, link: str) -> bool:
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        return target.exists() and (not anchor or anchor in anchors(target))

    found = [(path, link) for path in DOCUMENTS for link in links(path)]
    assert not [(path.name, link) for path, link in found if not leads(path, link)]
    assert any("#" in link for _, link in found)


def test_nobody_is_sent_to_the_other_project() -> None:
    files = [*DOCUMENTS, *SOURCE.rglob("*.py"), ROOT / "Makefile"]
    sent = re.compile(r"(?<!\*\*Not\*\* ``)pip3? install \W?daebus")
    assert not [f for f in files if sent.search(f.read_text())]


def test_promises_of_security_have_their_tests() -> None:
    lines = re.split(r"^\* ", section_of(SECURITY, "What is promised"), flags=re.MULTILINE)[1:]
    assert len(lines) > 20
    for promise in lines:
        named = re.findall(r"``(tests/[^`]+)``", promise)
        assert named, promise
        assert not [name for name in named if "::test_" not in name or not is_test(name)], promise


def section_of(path: Path, title: str) -> str:
    """Return the text of a section, those inside of it included."""
    _, _, text = path.read_text().partition(f"\n{title}\n{'-' * len(title)}\n")
    return re.split(r"\n[^\n]+\n-{4,}\n", text)[0]


def test_targets_of_make_are_documented_and_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    named = {
        name for path in DOCUMENTS for name in re.findall(r"``make ([a-z-]+)", path.read_text())
    }
    assert named <= targets
    assert targets - named == {"clean"}


def test_loggers_and_levels_are_documented() -> None:
    real = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for name in re.findall(r"et_?[lL]ogger\(\"(daebus[a-z.]*)\"\)", text):
            for level in re.findall(r"\blogger\.(\w+)\(", text):
                real.add((name, "ERROR" if level == "exception" else level.upper()))
    rows = table(DEBUGGING, "Tracing a message")
    assert len(real) > 5
    same([(row[0], row[1]) for row in rows], real)


def test_a_stop_that_does_not_end_names_threads_that_exist() -> None:
    names = column("A stop that does not end", DEBUGGING)
    assert set(names) <= set(column("Threads", LOAD))


def test_locks_are_in_the_design() -> None:
    made = re.compile(r"self\._lock = threading\.R?Lock\(\)")
    texts = [path.read_text() for path in SOURCE.rglob("*.py")]
    owners = {
        node.name
        for text in texts
        if made.search(text)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and made.search(ast.get_source_segment(text, node) or "")
    }
    same(re.findall(r"``(\w+)\._lock``", DESIGN.read_text()), owners)


def test_the_design_names_files_that_exist() -> None:
    paths = re.findall(r"(?<![\w/.])((?:[a-z_]+/)+[a-z_]+\.py)", DESIGN.read_text())
    assert len(paths) > 100
    assert not [path for path in paths if not ((SOURCE / path).exists() or (ROOT / path).exists())]


def test_house_names_every_module() -> None:
    text = DESIGN.read_text()
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    modules = {name for name in modules if not name.endswith("__init__.py")}
    documented = re.findall(r"^``([a-z_]+(?:/[a-z_]+)*\.py)``", text, re.MULTILINE)
    same(documented, modules)
