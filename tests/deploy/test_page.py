"""The page about deployment shows each file of the folder."""

from __future__ import annotations

import re

from tests.support.meter import DEPLOY


def test_each_file_is_shown() -> None:
    page = (DEPLOY.parent / "docs" / "deploy.rst").read_text()
    files = {file.name for file in DEPLOY.iterdir() if file.is_file()}
    assert set(re.findall(r"\.\. include:: \.\./deploy/(\S+)", page)) == files
    for name in files:
        assert f"``deploy/{name}``" in page
