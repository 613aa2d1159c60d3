"""Build the site from these documents: ``make docs``.

The documents read as well in a browser of repositories, so their links name files:
``guide/http.rst#cors``. Here such a link becomes one to the page, and a warning, which
ends the build, if there is no such page or section.
"""

from __future__ import annotations

from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "daebus"
author = "the authors of daebus"
release = version = version_of("daebus")

html_theme = "furo"
html_title = f"daebus {release}"
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # it is fetched, which a page opened as a file may not do
html_permalinks_icon = "#"
html_static_path = ["site"]
html_css_files = ["site.css"]
pygments_style = "friendly"
highlight_language = "none"

# Pages that hold a file from above this folder, by that file.
INCLUDED = {
    ROOT / "README.rst": "index",
    ROOT / "CHANGELOG.rst": "project/changelog",
    ROOT / "CONTRIBUTING.rst": "project/contributing",
    ROOT / "SECURITY.rst": "project/security",
}

logger = logging.getLogger(__name__)


class NoContents(Directive):
    """Leave out a page's list of its sections, which stands beside every page of the site."""

    has_content = True
    option_spec: ClassVar = {"local": lambda _: None, "depth": int}

    def run(self) -> list[nodes.Node]:
        """Return nothing in its place."""
        return []


class FileLinks(SphinxPostTransform):
    """Turns links to documents into links to their pages."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        """Go through the links of one page."""
        for node in list(self.document.findall(nodes.reference)):
            link = urlsplit(node.get("refuri", ""))
            if link.path and not link.scheme and not link.netloc:
                self._resolve(node, link.path, link.fragment)

    def _resolve(self, node: nodes.reference, name: str, anchor: str) -> None:
        file = (_source_of(node).parent / name).resolve()
        page = INCLUDED.get(file)
        if page is None and file.suffix == ".rst" and file.is_relative_to(DOCS):
            page = file.relative_to(DOCS).with_suffix("").as_posix()
        if page not in self.env.found_docs:
            logger.warning("no page for the link to %s", name, location=node)
            return
        sections = self.env.get_doctree(page).findall(nodes.section)
        if anchor and not any(anchor in section["ids"] for section in sections):
            logger.warning("%s has no section #%s", name, anchor, location=node)
        uri = self.app.builder.get_relative_uri(self.env.docname, page)
        node["refuri"] = f"{uri}#{anchor}" if anchor else uri


def _source_of(node: nodes.Node | None) -> Path:
    """Return the file in which a node stands, which may be one that its page includes."""
    while node is not None and not node.source:
        node = node.parent
    if node is None:
        raise LookupError("a link in no file")
    return Path(node.source).resolve()


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls it before it reads the documents."""
    app.add_directive("contents", NoContents, override=True)
    app.add_post_transform(FileLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
