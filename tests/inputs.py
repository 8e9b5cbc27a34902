"""Inputs of tests as sources."""

from __future__ import annotations

from typing import Any

from segbatch.sources import Source
from segbatch.sources.formats import ReadOptions
from segbatch.storage.files import Files


def open_source(inputs: list[str], *, storage_options: dict[str, Any] | None = None, **options: Any) -> Source:
    """Return a source; ``options`` are fields of ``ReadOptions``."""
    return Source(inputs, ReadOptions(Files(storage_options), **options))
