"""Kills without processes: what works on an output is ended before each change that it makes to the file system."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segbatch.output.ledger import Ledger
from segbatch.storage.store import Store


class Killed(BaseException):
    """What a kill -9 looks like from within: nothing handles it."""


class Steps:
    """Counts what is done to the file system; at the step numbered ``at``, ``do`` happens first, which may raise."""

    def __init__(self, at: int, do: Callable[[Steps], None]) -> None:
        self.at, self.do, self.count, self.dead = at, do, 0, False

    def __enter__(self) -> Steps:
        self._patch = pytest.MonkeyPatch()
        for module, name in ((os, "replace"), (os, "remove"), (shutil, "rmtree")):
            self._patch.setattr(module, name, self._step(getattr(module, name)))
        return self

    def __exit__(self, *raised: object) -> None:
        self._patch.undo()

    def _step(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if self.dead:  # its other threads
                raise Killed
            self.count += 1
            if self.count - 1 == self.at:
                self.do(self)
            return change(*args, **kwargs)

        return step

    @staticmethod
    def kill(steps: Steps) -> None:
        steps.dead = True
        raise Killed


def every_kill(output: Path, folder: Path, work: Callable[[Path], object]) -> Iterator[Path]:
    """Copies of ``output`` on which ``work`` was killed before its first change, its second, and so on to its last."""
    for step in itertools.count():
        copy = Path(shutil.copytree(output, folder / str(step)))
        with Steps(step, Steps.kill) as steps:
            try:
                work(copy)
            except Killed:
                pass
            else:
                assert steps.count == step > 5
                return
        yield copy


def by_id(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda r: r["image_id"])


def counted(output: Path) -> list[dict[str, Any]]:
    """The rows that segbatch's own commands read."""
    store = Store(str(output))
    tables = [file.read(store) for file in Ledger.read(store).files()]
    return by_id(pa.concat_tables(tables).to_pylist())
