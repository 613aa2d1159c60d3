"""What has no underscore is public: the reference names all of it, and nothing else."""

from __future__ import annotations
import __future__

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import daebus
import daebus.scaffold
import daebus.testing
from daebus import errors
from tests.support.documents import ROOT, blocks

PATH = ROOT / "docs" / "api.rst"
TEXT = PATH.read_text()

# Those whose keywords are the caller's own.
FREE = {"DaebusWebSocket.set_client_metadata", "EmittedState.update", "State.update"}


def stubs() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in blocks(PATH):
        flags = __future__.annotations.compiler_flag
        exec(compile(block.text, str(PATH), "exec", flags), names)
    return {name: value for name, value in names.items() if isinstance(value, type)} | {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value) and value.__code__.co_filename == str(PATH)
    }


def tree(text: str) -> list[str]:
    """Return the names of the drawn family of exceptions."""
    drawn = text.partition("\n    DaebusError\n")[2].partition("\n\n")[0]
    return ["DaebusError", *re.findall(r"^ +(\w+)", drawn, re.MULTILINE)]


DESCRIBED = stubs()
EXPORTED = [name for name in [*daebus.__all__, *daebus.testing.__all__] if name != "__version__"]


def find(name: str) -> Any:
    places: tuple[object, ...] = (daebus, daebus.testing, daebus.scaffold)
    return next(getattr(place, name) for place in places if hasattr(place, name))


# The classes among them, which most of them are.
STUBS: dict[str, type] = {n: value for n, value in DESCRIBED.items() if isinstance(value, type)}
PUBLIC = [name for name in EXPORTED if isinstance(find(name), type)]
FUNCTIONS = [name for name in EXPORTED if name not in PUBLIC]


def real(name: str) -> type:
    found = find(name)
    assert isinstance(found, type)
    return found


def is_own(kind: type, package: str) -> bool:
    return kind.__module__.partition(".")[0] == package


def assigned(kind: type) -> set[str]:
    """Return the names that the methods of a class assign to ``self``."""
    source = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    return {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def attributes(kind: type, package: str = "daebus") -> set[str]:
    """Return the names without underscore that a class of ours adds to what it inherits."""
    own: set[str] = set()
    foreign: set[str] = set()
    for base in kind.__mro__:
        if is_own(base, package):
            own |= {*vars(base), *vars(base).get("__annotations__", ()), *assigned(base)}
        else:
            foreign |= {*vars(base)}
    return {name for name in own - foreign if not name.startswith("_")}


def documented(kind: type, stubs: dict[str, type]) -> set[str]:
    """Return the names that the stubs of a class and of its bases show."""
    names: set[str] = set()
    for base in kind.__mro__:
        if base.__name__ in stubs:
            stub = stubs[base.__name__]
            names |= {*vars(stub), *vars(stub).get("__annotations__", ())}
    return {name for name in names if not name.startswith("_")}


def functions(kind: type, package: str = "daebus") -> dict[str, Callable[..., Any]]:
    """Return the functions and properties that a class of ours defines itself."""
    found: dict[str, Callable[..., Any]] = {}
    for base in kind.__mro__:
        if is_own(base, package):
            for name, value in vars(base).items():
                function = value.fget if isinstance(value, property) else value
                if inspect.isfunction(function) and function.__module__ != "typing":
                    found.setdefault(name, function)
    return found


def public_functions(kind: type, package: str = "daebus") -> dict[str, Callable[..., Any]]:
    found = functions(kind, package)
    return {name: f for name, f in found.items() if name == "__init__" or name[0] != "_"}


def bare(function: Callable[..., Any]) -> bool:
    """Tell whether a function lacks an annotation, or a docstring of its own."""
    described = inspect.signature(function)
    lacking = described.return_annotation is inspect.Signature.empty or any(
        parameter.annotation is inspect.Parameter.empty
        for parameter in [*described.parameters.values()][1:]
    )
    return lacking or not (function.__doc__ or function.__name__ == "__init__")


def loose(function: Callable[..., Any]) -> bool:
    """Tell whether a function takes any keyword, of any type."""
    return any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD and parameter.annotation == "Any"
        for parameter in inspect.signature(function).parameters.values()
    )


def signature(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function)).replace("'_App'", "'Daebus'")


# --- what holds ----------------------------------------------------------------------


def test_reference_names_what_is_exported() -> None:
    # The common base of Daebus and Blueprint is shown once, and exported by neither.
    assert sorted({*DESCRIBED, *tree(TEXT)} - {"Scaffold"}) == sorted(EXPORTED)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_stub_is_the_signature_of_a_function(name: str) -> None:
    function = find(name)
    assert signature(DESCRIBED[name]) == signature(function)
    assert function.__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_is_documented(name: str) -> None:
    kind = real(name)
    assert attributes(kind) - documented(kind, STUBS) == set()


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_documented_exists(name: str) -> None:
    kind = real(name)
    assert {n for n in documented(kind, STUBS) - attributes(kind) if not hasattr(kind, n)} == set()


@pytest.mark.parametrize("name", STUBS)
def test_stub_is_the_signature(name: str) -> None:
    shown, code = functions(STUBS[name], "builtins"), functions(real(name))
    assert {n: signature(f) for n, f in shown.items()} == {n: signature(code[n]) for n in shown}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_function_is_described_and_annotated(name: str) -> None:
    assert [n for n, function in public_functions(real(name)).items() if bare(function)] == []


def test_functions_name_their_keywords() -> None:
    found = {
        f"{name}.{n}"
        for name in PUBLIC
        for n, function in public_functions(real(name)).items()
        if loose(function)
    }
    assert found == FREE


@pytest.mark.parametrize("name", errors.__all__)
def test_exception_has_the_documented_bases(name: str) -> None:
    own, *others = getattr(errors, name).__bases__
    assert issubclass(own, errors.DaebusError) or name == "DaebusError"
    line = next(line.strip() for line in TEXT.splitlines() if line.strip().startswith(name))
    assert line.startswith(f"{name} ({others[0].__name__}) " if others else name)


# --- that it would be seen -------------------------------------------------------------


class Buoy(dict[str, int]):
    colour: str
    __slots__ = ("_rope", "depth")

    def __init__(self, depth: int, **options: Any) -> None:
        self.depth = depth
        self._rope = 2 * depth

    @property
    def length(self) -> int:
        """Return how much rope there is."""
        return self._rope

    def keys(self) -> Any:
        return super().keys()

    def ring(self, times) -> None:  # type: ignore[no-untyped-def]  # that is the mistake
        """Ring the bell."""

    def _sink(self) -> None: ...


class Lightbuoy(Buoy):
    def __init__(self) -> None:
        super().__init__(3)
        self.lamp = "red"


PACKAGE = __name__.partition(".")[0]


def test_attributes_of_every_kind_are_found() -> None:
    assert attributes(Buoy, PACKAGE) == {"colour", "depth", "length", "ring"}
    assert attributes(Lightbuoy, PACKAGE) == {"colour", "depth", "lamp", "length", "ring"}


def test_stubs_of_the_bases_count() -> None:
    stub = type("Stub", (), {"ring": None, "__annotations__": {"depth": int}})

    assert documented(Lightbuoy, {"Buoy": stub}) == {"depth", "ring"}
    assert documented(Lightbuoy, {}) == set()


def test_function_that_says_too_little_is_found() -> None:
    found = public_functions(Buoy, PACKAGE)

    assert {name for name, function in found.items() if bare(function)} == {"keys", "ring"}
    assert {name for name, function in found.items() if loose(function)} == {"__init__"}


def test_tree_is_read() -> None:
    drawn = (
        "::\n\n    DaebusError\n        A (ValueError)  text\n            B  more\n\nThen text\n"
    )
    assert tree(drawn) == ["DaebusError", "A", "B"]
