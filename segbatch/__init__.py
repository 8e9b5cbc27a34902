"""Semantic-segmentation masks for very large image corpora: Ray Data, DeepLab and dense CRFs, written as Parquet.

The public names are ``run``, ``build_dataset`` and ``JobSpec``; ``segbatch.models`` and ``segbatch.crf`` are useful
on their own. They are imported when first used, so that ``import segbatch`` costs nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbatch.config.job import JobSpec
    from segbatch.operations.finish import Outcome
    from segbatch.operations.run import run
    from segbatch.ray_backend.pipeline import build_dataset

__all__ = ["JobSpec", "Outcome", "build_dataset", "run"]

_HOMES = {
    "JobSpec": "segbatch.config.job",
    "Outcome": "segbatch.operations.finish",
    "build_dataset": "segbatch.ray_backend.pipeline",
    "run": "segbatch.operations.run",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOMES:
        if sys.platform != "linux":  # the modules behind these names use fcntl and Linux's errno
            from segbatch.errors import WRONG_PLATFORM

            raise ImportError(WRONG_PLATFORM)
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("crf", "models"):
        return importlib.import_module(f"segbatch.{name}")
    raise AttributeError(f"module 'segbatch' has no attribute {name!r}")
