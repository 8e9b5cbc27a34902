"""What a worker does with a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from segbatch.protocols import Watch
from segbatch.records import Chunk, Record

Item = TypeVar("Item")


# One item a record, in order, and the seconds of each stage so far.
Items = tuple[list[Item], dict[str, float]]


@dataclass(frozen=True)
class Stage(Generic[Item]):
    """What a worker does with a chunk. ``canary`` is a chunk that cannot be at fault if the stage does not survive it.

    ``refuse`` makes the item of a record that has an ``error``.
    """

    name: str
    run: Callable[[Chunk, Watch], Items[Item]]
    refuse: Callable[[Record], Item]
    canary: Chunk
