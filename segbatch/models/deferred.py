"""Functions of modules that import torch, named without importing them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Deferred:
    """A function or class that is imported when it is first called. Picklable.

    Args:
        path: ``package.module:name``.
    """

    path: str

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return imported(self.path)(*args, **keywords)


def imported(path: str) -> Any:
    """Return the attribute of a module that ``package.module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
