"""The stubs of the reference are the signatures of the code, and none is missing."""

from __future__ import annotations
import __future__

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import daebus
import daebus.testing
from daebus import errors
from tests.support.documents import ROOT, blocks

PATH = ROOT / "docs" / "api.rst"
TEXT = PATH.read_text()

# Public by name only: what the app asks of its components.
INTERNAL = {
    "accept",
    "after_fork",
    "announce",
    "attached",
    "be_guest",
    "begin_stop",
    "configured_port",
    "finish_stop",
    "forget",
    "hub",
    "listening",
    "own_port",
    "start_as_guest",
    "take",
}


def stubs() -> dict[str, type]:
    names: dict[str, Any] = {}
    for block in blocks(PATH):
        flags = __future__.annotations.compiler_flag
        exec(compile(block.text, str(PATH), "exec", flags), names)
    return {name: value for name, value in names.items() if isinstance(value, type)}


STUBS = stubs()


def real(name: str) -> type:
    found = getattr(daebus, name, None) or getattr(daebus.testing, name)
    assert isinstance(found, type)
    return found


def functions(kind: type) -> dict[str, Callable[..., Any]]:
    """Return the functions and properties that a class of ours defines itself."""
    found: dict[str, Callable[..., Any]] = {}
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("daebus", "builtins") and base is not object:
            for name, value in vars(base).items():
                function = value.fget if isinstance(value, property) else value
                if inspect.isfunction(function):
                    found.setdefault(name, function)
    return found


def signature(function: Callable[..., Any]) -> str:
    text = str(inspect.signature(function)).replace("self: 'Blueprint'", "self")
    return text.replace("'_", "'").replace("[_", "[").replace(" _", " ")


@pytest.mark.parametrize("name", STUBS)
def test_signatures(name: str) -> None:
    documented, code = functions(STUBS[name]), functions(real(name))
    assert {n: signature(f) for n, f in documented.items()} == {
        n: signature(code[n]) for n in documented
    }


@pytest.mark.parametrize("name", STUBS)
def test_attributes(name: str) -> None:
    missing = [n for n in STUBS[name].__annotations__ if not hasattr(real(name), n)]
    assert not missing


@pytest.mark.parametrize(
    "name", ["Daebus", "Blueprint", "DaebusHttp", "DaebusWebSocket", "AppClient"]
)
def test_nothing_is_missing(name: str) -> None:
    public = {n for n in functions(real(name)) if not n.startswith("_")}
    if name != "AppClient":
        public -= INTERNAL
    if name in ("DaebusHttp", "DaebusWebSocket"):
        public -= {"answer", "start"}
    assert public == {n for n in functions(STUBS[name]) if not n.startswith("_")}


@pytest.mark.parametrize("name", [*daebus.__all__, *daebus.testing.__all__])
def test_public_name_is_mentioned(name: str) -> None:
    assert name in TEXT or name == "__version__"


@pytest.mark.parametrize("name", errors.__all__)
def test_exception_has_the_documented_bases(name: str) -> None:
    own, *others = getattr(errors, name).__bases__
    assert issubclass(own, errors.DaebusError) or name == "DaebusError"
    line = next(line.strip() for line in TEXT.splitlines() if line.strip().startswith(name))
    assert line.startswith(f"{name} ({others[0].__name__}) " if others else name)
