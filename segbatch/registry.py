"""Registries of objects by name; for an unknown name the closest match is suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

from segbatch.errors import SpecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by their public names, in the order of their registration.

    Args:
        kind: What the objects are, for messages: ``model``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.entries: dict[str, T] = {}

    def add(self, name: str, item: T) -> None:
        if name in self.entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self.entries[name] = item

    def __getitem__(self, name: str) -> T:
        if name not in self.entries:
            raise SpecError(f"unknown {self.kind} {name!r}{suggest(name, self.entries)}")
        return self.entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)


def suggest(name: str, known: object) -> str:
    """Return ``; did you mean 'x'? Known: a, b`` for the message about an unknown name."""
    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names)}" if hint else f"; known: {', '.join(names)}"
