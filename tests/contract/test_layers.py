"""The house: who may import whom, and how large a room and a module may be.

Every import counts: those under ``TYPE_CHECKING`` and those inside functions too.
"""

from __future__ import annotations

import ast
import functools
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

Modules = dict[str, ast.Module]
Edges = set[tuple[str, str]]

SOURCE = Path(__file__).resolve().parents[2] / "src" / "daebus"

# From the top. A module imports what stands below it; those of one folder may import each
# other, as long as there is no circle. The longest entry that fits a module is its place.
LAYERS = [
    "daebus",
    "__main__",
    "emitter",
    "pytest_plugin",
    "app",
    "blueprint",
    "lifecycle",
    "engine",
    "scaffold",
    "testing",
    "client",
    "components",
    "signals",
    "fork",
    "wsgi",
    "monitoring",
    "tasks",
    "websocket.component",
    "websocket.api",
    "websocket.cluster",
    "websocket.hub",
    "websocket.visits",
    "websocket.runner",
    "websocket.admission",
    "websocket.messages",
    "websocket.watchdog",
    "websocket.stats",
    "websocket.settings",
    "websocket.clients",
    "websocket.topics",
    "websocket.connection",
    "websocket.protocol",
    "websocket.runtime",
    "websocket",
    "http.component",
    "http.hosted",
    "http.serving",
    "http.site",
    "http.protocol",
    "http",
    "backplane",
    "server.tlshandshakes",
    "server.acceptor",
    "server.listeners",
    "server.deadlines",
    "server.conn",
    "server.watching",
    "server.handoff",
    "server.threads",
    "server.sockets",
    "server.threads.safelog",
    "server.threads.repeats",
    "server",
    "checks",
    "data",
    "origins",
    "interrupts",
    "waits",
    "errors",
]

# The first never imports the second, whatever the order says.
STRANGERS = [
    ("http", "websocket"),
    ("websocket", "http"),
    ("server", "http"),
    ("server", "websocket"),
]

# Where a package may be imported; nobody else may, and no other package at all.
THIRD_PARTY = {
    "orjson": ["data.fastjson"],
    "pytest": ["pytest_plugin"],
    "redis": ["backplane.redis"],
    "simple_websocket": ["testing"],
    "typing_extensions": ["websocket.messages.request"],
    "websockets": ["websocket.protocol", "client"],
    "werkzeug": ["http"],
}

# What the folders named ``protocol`` do without: they are bytes and values.
IMPURE = {"asyncio", "select", "selectors", "socket", "threading", "time"}

MAX_LINES = 300  # of code: docstrings, comments and blank lines do not count
MAX_MODULES = 16  # in a folder, its __init__ and __main__ apart


@functools.cache
def texts() -> dict[str, str]:
    """Return the texts of the modules by dotted name, ``daebus`` left out.

    A folder stands for its ``__init__``, and ``daebus`` for that of the whole package.
    """
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or "daebus"] = path.read_text()
    return found


@functools.cache
def modules() -> Modules:
    """Return the parsed modules by the same names."""
    return {name: ast.parse(text) for name, text in texts().items()}


def within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(f"{folder}.")


def imported(name: str, tree: ast.Module, *, is_folder: bool) -> Iterator[str]:
    """Yield every name that a module imports, absolute: ``daebus.errors.Reject``, ``time``."""
    parts = ["daebus", *(name.split(".") if name != "daebus" else [])]
    here = parts if is_folder else parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*origin, alias.name]) for alias in node.names)


def folders(names: set[str] | Modules) -> set[str]:
    return {"daebus"} | {n.rpartition(".")[0] for n in names if "." in n}


def edges(modules: Modules) -> Edges:
    """Return who imports whom among the modules."""
    found: Edges = set()
    for name, tree in modules.items():
        for target in imported(name, tree, is_folder=name in folders(modules)):
            parts = target.split(".")
            if parts[0] == "daebus":
                inner = ".".join(parts[1:]) or "daebus"
                parent = ".".join(parts[1:-1]) or "daebus"
                found.add((name, inner if inner in modules else parent))
    return found


def place(name: str, layers: list[str]) -> int:
    fitting = [entry for entry in layers if within(name, entry)]
    assert fitting, f"{name} has no place in LAYERS"
    return layers.index(max(fitting, key=len))


def upward(found: Edges, layers: list[str]) -> Edges:
    """Return the imports that do not go down."""
    return {(a, b) for a, b in found if place(b, layers) < place(a, layers)} | {
        (a, b) for a, b in found for one, other in STRANGERS if within(a, one) and within(b, other)
    }


def circular(found: Edges) -> Edges:
    """Return the imports that are part of a circle: those whose target leads back."""
    below: dict[str, set[str]] = {}
    for a, b in found:
        below.setdefault(a, set()).add(b)

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(below.get(name, ()))
        return seen

    return {(a, b) for a, b in found if a in reached(b)}


def wrong(found: Edges, layers: list[str]) -> Edges:
    up = upward(found, layers)
    return up | circular(found - up)


def packages(modules: Modules) -> set[tuple[str, str]]:
    """Return which module imports which package that is not ours."""
    return {
        (name, target.partition(".")[0])
        for name, tree in modules.items()
        for target in imported(name, tree, is_folder=name in folders(modules))
        if not within(target, "daebus")
    }


def misplaced(found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the imports of packages where they have no business."""
    return {
        (name, package)
        for name, package in found
        if (
            package not in sys.stdlib_module_names
            and not any(within(name, room) for room in THIRD_PARTY.get(package, []))
        )
        or (package in IMPURE and "protocol" in name.split(".")[:-1])
    }


def lines_of_code(text: str) -> int:
    """Count the lines that are no docstring, comment or blank."""
    texts: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                texts.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    layout = {
        tokenize.COMMENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.NEWLINE,
        tokenize.NL,
    }
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - texts)


def population(names: set[str] | Modules) -> dict[str, int]:
    """Return how many modules each folder holds."""
    rooms = folders(names)
    count = dict.fromkeys(rooms, 0)
    for name in names:
        if name not in rooms and name != "__main__":
            count[name.rpartition(".")[0] or "daebus"] += 1
    return count


def pages_missing(modules: Modules) -> list[str]:
    """Return the folders whose ``__init__`` does not say what they are for."""
    return [
        name
        for name in sorted(folders(modules))
        if len((ast.get_docstring(modules[name]) or "").splitlines()) < 3
    ]


# --- what holds --------------------------------------------------------------------


def test_imports_go_down_and_in_no_circle() -> None:
    assert sorted(wrong(edges(modules()), LAYERS)) == []


def test_every_layer_exists() -> None:
    empty = {entry for entry in LAYERS if not any(within(name, entry) for name in modules())}
    assert empty == set()


def test_packages_are_imported_in_their_rooms() -> None:
    assert sorted(misplaced(packages(modules()))) == []


def test_no_module_is_too_large() -> None:
    long = {name: text for name, text in texts().items() if text.count("\n") > MAX_LINES}
    large = {name for name, text in long.items() if lines_of_code(text) > MAX_LINES}
    assert large == set()


def test_no_folder_is_too_full() -> None:
    assert {room: n for room, n in population(modules()).items() if n > MAX_MODULES} == {}


def test_every_folder_opens_with_a_page() -> None:
    assert pages_missing(modules()) == []


# --- that it would be seen -----------------------------------------------------------


def house(**texts: str) -> Modules:
    names = {"daebus": "", "room": "", "room.attic": "", "room.cellar": "", "errors": ""}
    return {name: ast.parse(text) for name, text in (names | texts).items()}


ROOMS = ["daebus", "room.attic", "room.cellar", "room", "errors"]


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("from .attic import Chest", "room.attic"),
        ("from . import attic", "room.attic"),
        ("from .. import Daebus", "daebus"),
        ("from daebus.room import attic", "room.attic"),
        ("import daebus.room.attic", "room.attic"),
        ("def dig():\n    from ..room.attic import Chest", "room.attic"),
        ("if TYPE_CHECKING:\n    from .attic import Chest", "room.attic"),
    ],
)
def test_import_that_goes_up_is_found(line: str, target: str) -> None:
    found = edges(house(**{"room.cellar": line}))

    assert found == {("room.cellar", target)} == wrong(found, ROOMS)


def test_import_that_goes_down_is_right() -> None:
    found = edges(
        house(**{"room": "from ..errors import Oops", "room.attic": "from .cellar import Rat"})
    )

    assert found == {("room", "errors"), ("room.attic", "room.cellar")}
    assert wrong(found, ROOMS) == set()


def test_circle_in_one_layer_is_found() -> None:
    circle = {("room.a", "room.b"), ("room.b", "room.c"), ("room.c", "room.a")}

    assert wrong(circle | {("room.a", "errors")}, ["room", "errors"]) == circle


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_strangers_are_found(one: str, other: str) -> None:
    edge = {(f"{one}.protocol", f"{other}.protocol")}
    either_way = [sorted((one, other)), sorted((one, other), reverse=True)]

    assert all(wrong(edge, layers) == edge for layers in either_way)


def test_module_without_a_place_is_found() -> None:
    with pytest.raises(AssertionError, match=r"garden has no place in LAYERS"):
        wrong({("garden", "errors")}, ROOMS)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("app", "werkzeug"),
        ("http.site.router", "requests"),
        ("http.protocol.heads", "time"),
    ],
)
def test_package_in_the_wrong_room_is_found(name: str, package: str) -> None:
    modules = {"daebus": ast.parse(""), name: ast.parse(f"import {package}.part")}

    assert misplaced(packages(modules)) == {(name, package)}


@pytest.mark.parametrize(
    ("name", "package"),
    [("http.site.router", "werkzeug"), ("websocket.protocol.codec", "websockets"), ("app", "time")],
)
def test_package_in_its_room_is_right(name: str, package: str) -> None:
    assert misplaced({(name, package)}) == set()


def test_only_code_is_counted() -> None:
    text = '''"""A page.

    Of three lines.
    """

# Why.
def answer() -> str:
    """Return it."""
    return """fortytwo,
    and nothing else"""  # that is two lines
'''
    assert lines_of_code(text) == 3


def test_modules_of_a_folder_are_counted() -> None:
    assert population({"daebus", "errors", "room", "room.attic", "room.cellar"}) == {
        "daebus": 1,
        "room": 2,
    }


def test_folder_without_a_page_is_found() -> None:
    page = '"""The room.\n\nMay import: errors.\n"""'

    assert pages_missing(house(daebus=page, room='"""The room."""')) == ["room"]
    assert pages_missing(house(daebus=page, room=page)) == []
