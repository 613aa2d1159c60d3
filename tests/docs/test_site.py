"""The site that ``make docs`` builds: without a warning, and of use without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import DOCUMENTS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
SIZES = {"desktop": (1300, 900), "phone": (390, 800)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (find_spec("sphinx") and find_spec("furo")):
        problem = "the extra `docs` is not installed"
        if os.environ.get("DAEBUS_REQUIRE_BROWSER"):
            pytest.fail(problem)
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("site")
    build(ROOT / "docs", folder)
    return folder


def build(source: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, str(source), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def page_of(document: Path) -> str:
    """Return where the site has a document."""
    if document.name == "README.rst":
        return "index.html"
    if document.parent == ROOT:
        return f"project/{document.stem.lower()}.html"
    return document.relative_to(ROOT / "docs").with_suffix(".html").as_posix()


def test_every_document_has_a_page_that_the_sidebar_names(site: Path) -> None:
    sidebar = (site / "index.html").read_text().partition("sidebar-tree")[2]
    for page in map(page_of, DOCUMENTS):
        assert (site / page).exists(), page
        assert page == "index.html" or f'href="{page}"' in sidebar, page


def test_pages_link_to_pages_and_not_to_sources(site: Path) -> None:
    assert not [page for page in site.rglob("*.html") if ".rst" in "".join(hrefs(page))]
    assert "guide/http.html#http-routes" in hrefs(site / "index.html")
    assert "../guide/running.html#behind-a-reverse-proxy" in hrefs(site / "project/security.html")


def hrefs(page: Path) -> list[str]:
    return [part.partition('"')[0] for part in page.read_text().split('href="')[1:]]


@pytest.mark.parametrize("size", SIZES)
def test_pages_fit_and_are_searched_without_a_network(site: Path, browser: Any, size: str) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        for file in sorted(site.rglob("*.html")):
            page.goto(file.as_uri(), wait_until="domcontentloaded")
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, file.relative_to(site)
        page.goto(f"{(site / 'search.html').as_uri()}?q=nginx")
        found = page.locator("#search-results li a", has_text="Running it")
        found.click(timeout=10_000)
        page.locator("h1", has_text="Running it").wait_for()
        assert not [url for url in asked if not url.startswith(("file:", "data:"))]
    finally:
        page.close()
