"""Registries of objects by name; for an unknown name the closest match is suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from segbatch.errors import SpecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by their public names, in the order of their registration.

    Args:
        kind: What the objects are, for messages: ``model``.
        command: What lists them all.
    """

    def __init__(self, kind: str, command: str = "") -> None:
        self.kind, self.command = kind, command
        self.entries: dict[str, T] = {}

    def add(self, name: str, item: T) -> None:
        if name in self.entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self.entries[name] = item

    def __getitem__(self, name: str) -> T:
        if name not in self.entries:
            raise SpecError(f"unknown {self.kind} {name!r}{suggest(name, self.entries, self.command)}")
        return self.entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)


def suggest(name: str, known: Iterable[str], command: str = "") -> str:
    """Return ``; did you mean 'x'? Known: a, b`` for the message about an unknown name.

    Args:
        name: What was given.
        known: All names.
        command: Lists the names, if they are too many for a message.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3 if command else 1, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    if command:
        return f"{hint or ';'} `{command}` lists all"
    return f"{hint} Known: {', '.join(names)}" if hint else f"; known: {', '.join(names)}"
