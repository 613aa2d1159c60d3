"""No example puts what a client sent into a page unescaped: examples are what people copy."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, ROOT, blocks

TEXTS = [
    *(
        (str(path.name), block.text)
        for path in DOCUMENTS
        for block in blocks(path)
        if block.language == "python"
    ),
    *((path.name, path.read_text()) for path in (ROOT / "samples").glob("*.py")),
]


def unescaped(text: str) -> list[str]:
    """Return what is put into markup without ``escape``."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            fixed = "".join(str(p.value) for p in node.values if isinstance(p, ast.Constant))
            values = [p.value for p in node.values if isinstance(p, ast.FormattedValue)]
        elif isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant):
            fixed, values = str(node.left.value), [node.right]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".format"):
            fixed, values = ast.unparse(node.func), [*node.args, *(k.value for k in node.keywords)]
        else:
            continue
        if "<" in fixed:
            found += [
                ast.unparse(value)
                for value in values
                if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "escape")
            ]
    return found


def test_examples_escape_what_they_put_into_pages() -> None:
    assert len(TEXTS) > 30
    assert {name: found for name, text in TEXTS if (found := unescaped(text))} == {}


def test_pages_of_the_samples_set_text_alone() -> None:
    scripts = list(Path(ROOT / "samples").glob("*/*.js"))
    assert len(scripts) > 3
    for script in scripts:
        code = "\n".join(line.partition("//")[0] for line in script.read_text().splitlines())
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in code, script


@pytest.mark.parametrize(
    "text",
    [
        'f"<h1>{req.path}</h1>"',
        '"<h1>%s</h1>" % req.path',
        '"<h1>" + req.path',
        '"<b>{}".format(x)',
    ],
)
def test_what_is_not_escaped_is_found(text: str) -> None:
    assert len(unescaped(text)) == 1
    assert unescaped('f"<h1>{escape(req.path)}</h1>"') == []
    assert unescaped('f"{req.path}"') == []
