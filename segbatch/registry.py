"""Names to builders. An unknown name lists the known ones and suggests the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from segbatch.errors import SpecError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from a public name to what it builds."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> None:
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._items[name] = item

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise SpecError(f"unknown {self.kind} {name!r}{suggest(name, self._items)}")
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)


def suggest(name: str, known: object) -> str:
    """``; did you mean 'x'? known: a, b`` for an error message about an unknown name."""
    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names)}" if hint else f"; known: {', '.join(names)}"
