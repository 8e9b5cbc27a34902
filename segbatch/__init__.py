"""Semantic-segmentation masks for very large image corpora: Ray Data, DeepLab and dense CRFs, written as Parquet.

The public names are those that ``dir(segbatch)`` lists. Each is imported when it is first used, so that
``import segbatch`` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbatch import crf, models
    from segbatch.config.job import JobSpec
    from segbatch.config.training import TrainSpec
    from segbatch.errors import SegbatchError
    from segbatch.operations.compact import compact
    from segbatch.operations.diff import diff
    from segbatch.operations.evaluate import evaluate
    from segbatch.operations.export import export
    from segbatch.operations.query import query
    from segbatch.operations.report import ReportOptions, write_report
    from segbatch.operations.run import run
    from segbatch.operations.select import select
    from segbatch.operations.tune import tune_crf
    from segbatch.operations.verify import verify
    from segbatch.protocols import Reporter
    from segbatch.ray_backend.dataset import build_dataset
    from segbatch.ray_backend.train import train
    from segbatch.results.dataset import MaskDataset
    from segbatch.stages.single import segment

    __version__: str
    open = MaskDataset.open

__all__ = [
    "JobSpec",
    "ReportOptions",
    "Reporter",
    "SegbatchError",
    "TrainSpec",
    "__version__",
    "build_dataset",
    "compact",
    "crf",
    "diff",
    "evaluate",
    "export",
    "models",
    "open",
    "query",
    "run",
    "segment",
    "select",
    "train",
    "tune_crf",
    "verify",
    "write_report",
]

_MODULES = ("crf", "models")
_HOMES = {
    "JobSpec": "segbatch.config.job:JobSpec",
    "ReportOptions": "segbatch.operations.report:ReportOptions",
    "Reporter": "segbatch.protocols:Reporter",
    "SegbatchError": "segbatch.errors:SegbatchError",
    "TrainSpec": "segbatch.config.training:TrainSpec",
    "build_dataset": "segbatch.ray_backend.dataset:build_dataset",
    "compact": "segbatch.operations.compact:compact",
    "diff": "segbatch.operations.diff:diff",
    "evaluate": "segbatch.operations.evaluate:evaluate",
    "export": "segbatch.operations.export:export",
    "open": "segbatch.results.dataset:MaskDataset.open",
    "query": "segbatch.operations.query:query",
    "run": "segbatch.operations.run:run",
    "segment": "segbatch.stages.single:segment",
    "select": "segbatch.operations.select:select",
    "train": "segbatch.ray_backend.train:train",
    "tune_crf": "segbatch.operations.tune:tune_crf",
    "verify": "segbatch.operations.verify:verify",
    "write_report": "segbatch.operations.report:write_report",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("segbatch")
    if name in _MODULES:
        return importlib.import_module(f"segbatch.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'segbatch' has no attribute {name!r}")
    if sys.platform != "linux":  # the modules behind these names use fcntl and Linux's errno
        from segbatch.errors import WRONG_PLATFORM

        raise ImportError(WRONG_PLATFORM)
    module, _, path = _HOMES[name].partition(":")
    try:
        return attrgetter(path)(importlib.import_module(module))
    except ModuleNotFoundError as e:
        from segbatch.packages import missing_package

        if message := missing_package(e, f"segbatch.{name}"):
            raise ImportError(message, name=e.name) from None
        raise


def __dir__() -> list[str]:
    return list(__all__)
