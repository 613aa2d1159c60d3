"""What a comment says is guarded by a lock is touched under that lock alone.

``# guarded by: _lock`` stands behind an assignment, or in a line of its own before one; more
words follow after a semicolon. Such an attribute is read and written

* under ``with self._lock``, or a condition over it,
* in methods whose names end with ``_locked``: their callers hold the lock, which they assert,
* in methods that make the lock, ``__init__`` and what runs in a forked child,
* in a line that says ``# unguarded:`` and why.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from daebus.interrupts.stack import _NAMES

pytestmark = pytest.mark.timeout(180)  # the first to ask reads all of the source

SOURCE = Path(__file__).resolve().parents[2] / "src" / "daebus"

# Methods that need not assert that the lock is held, since each message passes through them
# and the question costs a call. Four at most, as ``Class.method``.
HOT_PATH: set[str] = {
    "Reader._sort_locked",
    "Writer.flush_held_locked",
}

GUARDED = re.compile(r"\bguarded by: (\w+)(;|$)")
ANY_LOCK = "*"


@dataclass
class Class:
    """One class as it is written."""

    file: str
    node: ast.ClassDef
    bases: list[str]
    guarded: dict[str, str] = field(default_factory=dict)  # attribute: lock
    conditions: dict[str, str] = field(default_factory=dict)  # condition: lock
    locks: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)


@dataclass
class Faults:
    """What was found, as file, class and name; the lines are for the reader."""

    unguarded: set[tuple[str, str, str]] = field(default_factory=set)
    unreadable: set[tuple[str, str, str]] = field(default_factory=set)
    unasserted: set[tuple[str, str, str]] = field(default_factory=set)
    unlocked: set[tuple[str, str, str]] = field(default_factory=set)
    needless: set[str] = field(default_factory=set)  # ``unguarded:`` that excuses nothing
    lines: set[str] = field(default_factory=set)


def comments(text: str) -> dict[int, str]:
    if "guarded" not in text:  # most modules have none that is looked for
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def own_attribute(node: ast.AST) -> str | None:
    """Return the name of ``self.name``."""
    match node:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name
    return None


def assignments(tree: ast.AST) -> Iterator[tuple[ast.Assign | ast.AnnAssign, str, ast.expr | None]]:
    """Yield what is assigned to ``self``: the statement, the name, the value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                    name = own_attribute(part)
                    if name is not None:
                        yield node, name, node.value


def made(value: ast.expr | None, kind: str) -> ast.Call | None:
    """Return the call if the value is ``threading.<kind>(...)``."""
    match value:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="threading"), attr=name)):
            return value if name == kind else None
    return None


def is_locked(name: str) -> bool:
    return name.endswith("_locked")


class Checker:
    """Reads modules, and says where they break the rules."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.trees = {file: ast.parse(text) for file, text in texts.items()}
        self.lines = {file: text.splitlines() for file, text in texts.items()}
        self.comments = {file: comments(text) for file, text in texts.items()}
        self.faults = Faults()
        self.excused: set[tuple[str, int]] = set()
        self.classes: dict[str, list[Class]] = {}
        self.within: dict[str, list[ast.ClassDef]] = {}
        for file, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found = self.read_class(file, node)
                    self.classes.setdefault(node.name, []).append(found)
                    self.within.setdefault(file, []).append(node)
        self.unique = self.guarded_once()
        self.names = {name for found in self.every_class() for name in found.guarded}
        for file, tree in self.trees.items():
            self.check_module(file, tree)

    # --- what the classes say -------------------------------------------------------

    def read_class(self, file: str, node: ast.ClassDef) -> Class:
        bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        found = Class(file, node, bases)
        for statement, name, value in assignments(node):
            found.attributes.add(name)
            condition = made(value, "Condition")
            if made(value, "Lock"):
                found.locks.add(name)
            elif condition and condition.args:
                lock = own_attribute(condition.args[0])
                if lock is not None:
                    found.conditions[name] = lock
            self.read_comment(found, statement, name)
        return found

    def read_comment(self, owner: Class, statement: ast.stmt, name: str) -> None:
        said = self.comments[owner.file]
        last = statement.end_lineno or statement.lineno
        places = [line for line in range(statement.lineno, last + 1) if line in said]
        before = statement.lineno - 1
        while before in said and self.stands_alone(owner.file, before):
            places.append(before)
            before -= 1
        for line in places:
            if "guarded by:" in said[line] and "unguarded" not in said[line]:
                match = GUARDED.search(said[line])
                if match:
                    owner.guarded[name] = match[1]
                    owner.locks.add(match[1])
                else:
                    self.faults.unreadable.add((owner.file, owner.node.name, name))

    def stands_alone(self, file: str, line: int) -> bool:
        return self.lines[file][line - 1].lstrip().startswith("#")

    def family(self, name: str) -> Iterator[Class]:
        """Yield a class and its bases, as far as their names are clear."""
        same = self.classes.get(name, ())
        if len(same) == 1:
            yield same[0]
            for base in same[0].bases:
                yield from self.family(base)

    def guarded_once(self) -> dict[str, str]:
        """Return the private attributes that one class has, and guards: attribute and lock."""
        owners: Counter[str] = Counter()
        for found in self.every_class():
            owners.update(found.attributes)
        return {
            name: lock
            for found in self.every_class()
            for name, lock in found.guarded.items()
            if owners[name] == 1 and name.startswith("_")
        }

    def guarded_by_name(self, owner: str) -> dict[str, str]:
        """Return what is guarded in the class that a variable is named after.

        ``writer``, ``self._writer`` and ``link.writer`` are each taken for a ``Writer``.
        """
        name = owner.rpartition(".")[2].strip("_")
        kin = self.family(name[:1].upper() + name[1:]) if owner != "self" else ()
        return {attribute: lock for found in kin for attribute, lock in found.guarded.items()}

    def every_class(self) -> Iterable[Class]:
        return (found for same in self.classes.values() for found in same)

    # --- what the code does -----------------------------------------------------------

    def check_module(self, file: str, tree: ast.Module) -> None:
        for node in self.within.get(file, ()):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    Walk(self, file, node.name).function(part, method=True)
        for part in tree.body:
            if not isinstance(part, ast.ClassDef):
                Walk(self, file, "").visit(part, frozenset())
        for line, text in self.comments[file].items():
            if "# unguarded:" in text and (file, line) not in self.excused:
                self.faults.needless.add(f"{file}:{line}")


def declares(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether there is a docstring and nothing else, as in a protocol."""
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str()))]:
            return True
    return False


class Walk:
    """The way through one method, with the locks that are held at each point."""

    def __init__(self, checker: Checker, file: str, name: str) -> None:
        self.checker = checker
        self.file = file
        self.name = name
        kin = [*checker.family(name)] or [
            found for found in checker.classes.get(name, ()) if found.file == file
        ]
        self.guarded = {a: lock for found in reversed(kin) for a, lock in found.guarded.items()}
        self.conditions = {c: lock for found in kin for c, lock in found.conditions.items()}
        self.locks = {lock for found in kin for lock in found.locks}
        self.place = ""

    def function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool = False
    ) -> None:
        held: frozenset[str] = frozenset()
        if method:
            self.place = node.name
            if node.name == "__init__" or (self.locks and self.makes_lock(node)):
                held = frozenset((ANY_LOCK,))
        if is_locked(node.name):
            held = frozenset((ANY_LOCK,))
            if method and not asserts(node) and not declares(node):
                self.checker.faults.unasserted.add((self.file, self.name, node.name))
        for part in node.body:
            self.visit(part, held)

    def makes_lock(self, node: ast.AST) -> bool:
        made_here = {name for _, name, value in assignments(node) if made(value, "Lock")}
        return not made_here.isdisjoint(self.locks)

    def visit(self, node: ast.AST, held: frozenset[str]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.function(node)  # it runs later, when nothing may be held
            return
        if isinstance(node, ast.ClassDef):
            return
        if isinstance(node, ast.Lambda):
            self.visit(node.body, frozenset())
            return
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self.visit(item.context_expr, held)
            within = held | {self.lock(item.context_expr) for item in node.items}
            for part in node.body:
                self.visit(part, within)
            return
        if isinstance(node, ast.Attribute):
            self.attribute(node, held)
        if isinstance(node, ast.Call):
            self.call(node, held)
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="wait_for"), args=[ast.Lambda() as asked, *_]
                ):
                    self.visit(asked.body, held)  # a condition asks with its lock held
                    return
        for child in ast.iter_child_nodes(node):
            self.visit(child, held)

    def lock(self, node: ast.expr) -> str:
        name = own_attribute(node)
        return f"self.{self.conditions.get(name, name)}" if name else ast.unparse(node)

    def attribute(self, node: ast.Attribute, held: frozenset[str]) -> None:
        if node.attr not in self.checker.names:
            return
        owner = ast.unparse(node.value)
        lock = (self.guarded if owner == "self" else self.checker.unique).get(node.attr)
        named = self.checker.guarded_by_name(owner).get(node.attr)
        if lock is None and named is not None:
            lock = named
            if held:  # whose lock this is cannot be told from a name
                return
        if lock is None or held & {ANY_LOCK, f"{owner}.{lock}"}:
            return
        if not self.excused(node):
            self.checker.faults.unguarded.add((self.file, self.name, node.attr))
            self.note(node, f"{owner}.{node.attr} without {owner}.{lock}")

    def call(self, node: ast.Call, held: frozenset[str]) -> None:
        match node.func:
            case ast.Attribute(attr=name) if is_locked(name):
                if not held and not self.excused(node):
                    self.checker.faults.unlocked.add((self.file, self.name, name))
                    self.note(node, f"{name}() without a lock")

    def excused(self, node: ast.expr) -> bool:
        line = (self.file, node.lineno)
        if re.search(r"# unguarded: \w", self.checker.comments[self.file].get(node.lineno, "")):
            self.checker.excused.add(line)
            return True
        return False

    def note(self, node: ast.expr, text: str) -> None:
        self.checker.faults.lines.add(f"{self.file}:{node.lineno} {self.name}.{self.place}: {text}")


def asserts(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function first asserts that a lock is held."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    match body[:1]:
        case [ast.Assert(test=ast.Call(func=ast.Attribute(attr="locked")))]:
            return True
    return False


def read() -> dict[str, str]:
    return {
        path.relative_to(SOURCE).as_posix(): path.read_text()
        for path in sorted(SOURCE.rglob("*.py"))
    }


@functools.cache
def checked() -> Checker:
    """Check the source; that takes seconds, so collecting tests does not."""
    return Checker(read())


def faults_of_source() -> Faults:
    return checked().faults


# --- what holds --------------------------------------------------------------------------


def test_guarded_attributes_are_touched_under_their_lock() -> None:
    assert faults_of_source().unguarded == set(), "\n".join(sorted(faults_of_source().lines))


def test_comments_speak_of_one_attribute_each() -> None:
    assert faults_of_source().unreadable == set()


def test_locked_methods_assert_it() -> None:
    assert {f for f in faults_of_source().unasserted if f"{f[1]}.{f[2]}" not in HOT_PATH} == set()


def test_locked_methods_are_called_under_a_lock() -> None:
    assert faults_of_source().unlocked == set(), "\n".join(sorted(faults_of_source().lines))


def test_hot_path_is_short_and_true() -> None:
    assert len(HOT_PATH) <= 4
    assert {f"{owner}.{method}" for _, owner, method in faults_of_source().unasserted} >= HOT_PATH


def test_every_excuse_is_needed() -> None:
    assert faults_of_source().needless == set()


# --- that it would be seen -----------------------------------------------------------------


TANK = '''
import threading

class Tank:
    def __init__(self):
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._level = 0  # guarded by: _lock; in litres
        # guarded by: _lock; open
        self._valve = True
        self.name = "tank"

    def fill(self, amount):
        with self._lock:
            self._level += amount
            self._overflow_locked()
            self._more.notify()

    def wait(self):
        with self._more:
            self._more.wait_for(lambda: self._level > 0)

    def _overflow_locked(self):
        """Let it run over."""
        assert self._lock.locked()
        self._valve = self._level > 9

    def after_fork(self):
        self._lock = threading.Lock()
        self._level = 0

    def glance(self):
        return self.name, self._level  # unguarded: a guess will do
'''


def faults(method: str, *, outside: str = "") -> Faults:
    """Return what is found in a tank with one more method, and in what follows it."""
    lines = [f"    {line}\n" for line in method.splitlines()]
    return Checker({"tank.py": f"{TANK}\n{''.join(lines)}\n{outside}\n"}).faults


def test_tank_is_right() -> None:
    assert faults("") == Faults()


@pytest.mark.parametrize(
    ("method", "attribute"),
    [
        ("def look(self): return self._level", "_level"),
        ("def shut(self): self._valve = False", "_valve"),
        ("def add(self): self._level += 1", "_level"),
        ("def late(self):\n  with self._lock: pass\n  return self._level", "_level"),
        ("def other(self):\n  with self._door: return self._level", "_level"),
        ("def give(self):\n  with self._lock: return lambda: self._level", "_level"),
        ("def make(self):\n  with self._lock:\n    def f(): return self._level", "_level"),
        ("def rest(self):\n  if (self._level > 3\n      or self.name): pass", "_level"),
    ],
)
def test_access_without_the_lock_is_found(method: str, attribute: str) -> None:
    assert faults(method).unguarded == {("tank.py", "Tank", attribute)}


def test_access_in_a_subclass_is_faults_of_source() -> None:
    found = faults("", outside="class Big(Tank):\n    def look(self): return self._level")
    assert found.unguarded == {("tank.py", "Big", "_level")}


def test_access_from_outside_is_faults_of_source() -> None:
    right = "def peek(tank):\n    with tank._lock: return tank._level"
    wrong = "def peek(tank, other):\n    with other._lock: return tank._level"

    assert faults("", outside=right) == Faults()
    assert faults("", outside=wrong).unguarded == {("tank.py", "", "_level")}


def test_attribute_that_two_classes_have_is_not_guessed_at_from_outside() -> None:
    text = (
        "class Lake:\n    def __init__(self): self._level = 0\ndef peek(lake): return lake._level"
    )
    assert faults("", outside=text) == Faults()


def test_call_without_a_lock_is_faults_of_source() -> None:
    found = faults("def spill(self): self._overflow_locked()")
    assert found.unlocked == {("tank.py", "Tank", "_overflow_locked")}


@pytest.mark.parametrize(
    "body", ["self._level = 0", "assert self._level", "self.fill(3)\n  assert self._lock.locked()"]
)
def test_locked_method_without_an_assertion_is_found(body: str) -> None:
    found = faults(f"def empty_locked(self):\n  {body}")
    assert found.unasserted == {("tank.py", "Tank", "empty_locked")}


@pytest.mark.parametrize(
    "comment", ["guarded by: _lock, as the next two", "All guarded by: it all"]
)
def test_comment_that_is_not_clear_is_found(comment: str) -> None:
    found = faults(f"def more(self):\n  self._colour = 1  # {comment}")
    assert found.unreadable == {("tank.py", "Tank", "_colour")}


@pytest.mark.parametrize("owner", ["tank", "self._tank", "self.house.tank"])
def test_attribute_of_another_object_is_found_by_its_name(owner: str) -> None:
    other = f"class Other:\n  def look(self, tank): return {owner}._level"
    found = Checker({"tank.py": TANK, "other.py": other}).faults
    assert found.unguarded == {("other.py", "Other", "_level")}
    under = f"class Other:\n  def look(self, tank):\n    with {owner}._lock: return {owner}._level"
    assert Checker({"tank.py": TANK, "other.py": under}).faults.unguarded == set()


def test_excuse_without_a_reason_is_none() -> None:
    assert faults("def look(self): return self._level  # unguarded:").unguarded


def test_excuse_that_is_not_needed_is_faults_of_source() -> None:
    assert (
        len(faults("def look(self): return self.name  # unguarded: it never changes").needless) == 1
    )


# --- that one can see from the stack who holds a lock: ``stack.inside`` ---------------------


def test_locks_are_taken_by_an_attribute_of_a_local_name() -> None:
    checker = checked()
    locks = {lock for found in checker.every_class() for lock in found.locks}
    conditions = {name for found in checker.every_class() for name in found.conditions}
    hidden = [
        f"{file}:{item.context_expr.lineno}"
        for file, tree in checker.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Attribute)
        if item.context_expr.attr in locks | conditions
        if not isinstance(item.context_expr.value, ast.Name)
    ]
    assert hidden == []
    assert locks - {"door"} <= set(_NAMES)
