"""Checks of arguments, each with an answer that says which one makes no sense."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["positive", "positive_or_none"]

Number = TypeVar("Number", int, float)


def positive(name: str, value: Number) -> Number:
    """Return a number that must be greater than 0."""
    if not value > 0:
        raise ValueError(f"{name} must be greater than 0, not {value!r}")
    return value


def positive_or_none(name: str, value: Number | None) -> Number | None:
    """Return a number that must be greater than 0, or None."""
    return None if value is None else positive(name, value)
