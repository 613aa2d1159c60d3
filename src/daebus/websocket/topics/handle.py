"""What the program holds of a topic of either kind, or of a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .feed import Feed
from .live import Shared
from .spec import Spec, check_topic

__all__ = ["Handle"]

AnyFeed = TypeVar("AnyFeed", bound=Feed[Any])


class Handle(Generic[AnyFeed]):
    """A topic by its name, or a family of topics by its pattern.

    One of a family is given up while it has neither messages nor subscribers, and made again
    when it is needed, so each call looks it up.

    Args:
        spec: the declaration.
        find: returns a topic by its name; made again if need be.
        shared: with the other topics of the component.
    """

    def __init__(self, spec: Spec, find: Callable[[str], AnyFeed], shared: Shared) -> None:
        self._spec = spec
        self._find = find
        self._shared = shared

    @property
    def name(self) -> str:
        """Its name; of a family, the pattern."""
        return self._spec.name

    @property
    def epoch(self) -> str:
        """The count that its offsets belong to; another one after everything was lost."""
        return self._feed().epoch

    @property
    def offset(self) -> int:
        """The number of its newest message or change; 0 before the first."""
        return self._feed().top

    def _feed(self) -> AnyFeed:
        if self._spec.is_family:
            name = self._spec.name.replace("*", "7")
            raise TypeError(
                f"{self._spec.name!r} is a family of topics; write family[{name!r}] for one of them"
            )
        return self._find(self._spec.name)

    def _member(self, name: str) -> Spec:
        """Return the declaration of one topic of this family.

        Raises:
            KeyError: the name does not fit.
        """
        check_topic(name, "family[{}]")
        if not self._spec.fits(name):
            raise KeyError(name)
        return self._spec.member(name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._spec.name!r}>"
