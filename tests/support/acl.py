"""The rules of the guide for a user of Redis, as a person would copy them."""

from __future__ import annotations

import re

from tests.support.documents import ROOT

__all__ = ["cluster_rules", "rules"]

_GUIDE = ROOT / "docs" / "guide" / "several.rst"


def rules(name: str, app: str, password: str) -> list[str]:
    """Return the rules for a user of an app, those for topics included."""
    found = re.search(r"ACL SETUSER shop (.*?)\n\n", _GUIDE.read_text(), re.DOTALL)
    assert found is not None
    text = found[1].replace(">password", f">{password}").replace("d:shop:", f"d:{app}:")
    return [name, *text.split()]


def cluster_rules() -> list[str]:
    """Return those that a cluster needs as well."""
    found = re.search(r"``(\+cluster\|slots [^`]*)``", _GUIDE.read_text())
    assert found is not None
    return found[1].split()
