"""A corpus that grows from night to night, and nights over it on a clock of the test's own."""

from __future__ import annotations

import datetime
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segbatch.config.nightly import NightlySpec
from segbatch.operations.nightly.night import run_night
from segbatch.operations.nightly.record import NightReport
from segbatch.ray_backend import pipeline
from segbatch.ray_backend.datasource import ShardDatasource
from tests.corpus import write_tar
from tests.reporters import Said

MIDNIGHT = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC).timestamp()
DAY, HOUR = 86400.0, 3600.0
JOB = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 10, "num_cpus": 2}


def shard(folder: Path, number: int, images: int = 30, brightness: float = 0.35, seed: int = 0) -> Path:
    """A tar of small pictures, each a ramp around a brightness drawn about ``brightness``."""
    rng = np.random.default_rng([number, seed])
    members = []
    for i in range(images):
        level = rng.normal(brightness, 0.1)
        ramp = np.clip(level + np.linspace(-0.3, 0.3, 32)[None, :] + rng.normal(0, 0.02, (24, 32)), 0, 1)
        out = io.BytesIO()
        Image.fromarray((np.repeat(ramp[..., None], 3, axis=2) * 255).astype(np.uint8)).save(out, "PNG")
        members.append((f"{i:04d}.png", out.getvalue()))
    return write_tar(folder / f"shard-{number:03d}.tar", members)


def spoil(path: Path) -> None:
    """Other bytes, as many, under the same times: whoever opens it finds out, who only lists it does not."""
    found = path.stat()
    path.write_bytes(bytes(found.st_size - 1) + b"x")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@dataclass
class Bench:
    """Runs nights, and notes which shards each has opened."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    options: dict[str, Any] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        opened = self.opened

        class Noted(ShardDatasource):
            def __init__(self, source: Any, slices: Any, *rest: Any) -> None:
                opened.extend(part.shard.name for part in slices)
                super().__init__(source, slices, *rest)

        self.monkeypatch.setattr(pipeline, "ShardDatasource", Noted)
        (self.folder / "in").mkdir(parents=True, exist_ok=True)

    @property
    def input(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def spec(self, **more: Any) -> NightlySpec:
        datasets = {"street": {"inputs": [f"{self.input}/*.tar"], "output": str(self.output)}}
        fields = {
            "state": str(self.state),
            "job": JOB,
            "datasets": datasets,
            "drift": {"min_images": 20, "min_runs": 1},
        }
        return NightlySpec.create(**fields | self.options | more)

    def night(self, number: int, clock: Callable[[], float] | None = None, **more: Any) -> NightReport:
        """The night of 2026-11-20 and ``number`` days, begun at one o'clock."""
        self.opened.clear()
        at = MIDNIGHT + number * DAY + HOUR
        found = run_night(self.spec(**more), clock=clock or (lambda: at), reporter=Said(self.told))
        assert found is not None
        return found
