"""The project's documents as docutils reads them: blocks of code, tables and links."""

from __future__ import annotations

import functools
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from docutils.core import publish_doctree

ROOT = Path(__file__).resolve().parents[2]
SITE = {ROOT / "docs" / "index.rst", *(ROOT / "docs" / "project").glob("*.rst")}
"""Pages of the site that hold nothing of their own: lists of pages, and files from above."""

DOCUMENTS = sorted({*ROOT.glob("*.rst"), *(ROOT / "docs").rglob("*.rst")} - SITE)


@dataclass(frozen=True)
class Block:
    """One ``code-block``.

    Attributes:
        line: of the document, the one before the block's first.
        language: such as ``"python"``.
        name: the file that the reader saves it as; empty for a snippet.
        text: as it stands, with a free port in the place of 8080 and the like.
        others: it is written for another library, which is not installed.
    """

    document: Path
    line: int
    language: str
    name: str
    text: str
    others: bool

    def __str__(self) -> str:
        return self.name or f"{self.document.name}:{self.line}"


@functools.cache
def parse(path: Path) -> nodes.document:
    """Parse a document; a warning of docutils is an error."""
    return publish_doctree(
        path.read_text(),
        source_path=str(path),
        settings_overrides={
            "_disable_config": True,
            "halt_level": 2,
            "report_level": 2,
            "syntax_highlight": "none",
        },
    )


@functools.cache
def blocks(path: Path) -> list[Block]:
    """Return the blocks of code of a document, in order.

    Every run collects tests from all of them, which with docutils would take seconds;
    ``blocks_of_docutils`` says whether these are right.
    """
    found: list[Block] = []
    lines = path.read_text().splitlines()
    at = 0
    while at < len(lines):
        directive = re.fullmatch(r"( *)\.\. code-block:: (\w+)", lines[at])
        at += 1
        if directive is None:
            continue
        options: dict[str, str] = {}
        while option := re.fullmatch(r" +:(\w+): (.+)", lines[at]):
            options[option[1]] = option[2]
            at += 1
        assert not lines[at], f"{path.name}:{at + 1} belongs to no block"
        first = at = at + 1
        indented = directive[1] + " "
        while at < len(lines) and (not lines[at] or lines[at].startswith(indented)):
            at += 1
        text = textwrap.dedent("\n".join(lines[first:at])).rstrip("\n")
        text = re.sub(r"port=80\d\d\b", "port=0", text) + "\n"
        others = "others" in options.get("class", "").split()
        found.append(Block(path, first, directive[2], options.get("name", ""), text, others))
    return found


def blocks_of_docutils(path: Path) -> list[tuple[str, str, str, bool]]:
    """Return language, name, text and ``others`` of the blocks as docutils finds them."""
    return [
        (
            next((name for name in node["classes"] if name not in ("code", "others")), ""),
            node["names"][0] if node["names"] else "",
            re.sub(r"port=80\d\d\b", "port=0", node.astext()) + "\n",
            "others" in node["classes"],
        )
        for node in parse(path).findall(nodes.literal_block)
        if "code" in node["classes"]
    ]


def table(path: Path, title: str) -> list[list[str]]:
    """Return the cells of the first table in the section of that title, without the heading."""
    for section in parse(path).findall(nodes.section):
        if section[0].astext() == title:
            body = next(section.findall(nodes.tbody))
            return [[cell.astext() for cell in row] for row in body]  # type: ignore[attr-defined]
    raise AssertionError(f"{path.name} has no section {title!r}")


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """Return what a link may name behind ``#``: the sections of a document."""
    return frozenset(name for node in parse(path).findall(nodes.section) for name in node["ids"])


def links(path: Path) -> list[str]:
    """Return the targets of links and images that are no URLs."""
    document = parse(path)
    found = [str(node.get("refuri", "")) for node in document.findall(nodes.reference)]
    found += [str(node["uri"]) for node in document.findall(nodes.image)]
    return [target for target in found if target and "://" not in target]


def is_test(name: str) -> bool:
    """Tell whether there is such a folder of tests, a file, or a test as ``path::test_name``."""
    path, _, function = name.partition("::")
    file = ROOT / path
    if not path.startswith("tests/") or not file.exists():
        return False
    return not function or f"\ndef {function}(" in file.read_text()
