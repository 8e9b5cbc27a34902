"""Stages in which records of certain widths really crash, hang, and take memory: no exception, no mercy."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from segbatch.codecs.decode import decode
from segbatch.protocols import InFlight
from segbatch.records import Chunk, ChunkId, Record, Scores
from segbatch.refiners.none import NoRefiner
from segbatch.stages import segment as stages
from segbatch.stages.refine import Refine
from tests.networks import LABELS, Brightness

# Widths that no sample image has (models/scores.py), on which the driver tries a network too.
CRASH, HANG, MEMORY = 71, 72, 75


def crash() -> None:
    ctypes.string_at(0)


def hang() -> None:
    """For ever, in C, without giving the GIL back: no thread of Python's runs again."""
    ctypes.PyDLL(None).sleep(10**6)


def take_memory() -> None:
    held = []
    while True:
        held.append(np.ones(2**21))


class Poisoned(Brightness):
    """Brightness, for those who survive."""

    def score(self, image: np.ndarray) -> np.ndarray:
        width = image.shape[1]
        if width == HANG:
            hang()
        if width == MEMORY:
            take_memory()
        return super().score(image)


def _decode(data: bytes, max_pixels: int) -> np.ndarray:
    image = decode(data, max_pixels)
    if image.shape[1] == CRASH:
        crash()
    return image


def poisoned() -> Poisoned:
    """``--model tests.cluster.poisons:poisoned``; in a worker, its decoder crashes as well."""
    if "pytest" not in sys.modules:
        stages.decode = _decode  # type: ignore[attr-defined]
    return Poisoned()


def scored(index: int, width: int = 40) -> Record:
    """A record on its way to refining."""
    values = np.random.default_rng(index).normal(size=(3, 5, -(-width // 4))).astype(np.float16)
    scores = Scores(values, np.arange(3, dtype=np.int16), 20, width, 4)
    return Record(f"s/{index}", "s", index, None, scores, 20, width)


def chunk(*widths: int) -> Chunk:
    return Chunk(ChunkId("s.00000000.000000", 0, True), [scored(i, w) for i, w in enumerate(widths)], {"read": 1.0})


class FatalRefiner(NoRefiner):
    """Crashes on records of one width."""

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        if scores.width == CRASH:
            crash()
        if scores.width == HANG:
            hang()
        return super().refine(image, scores)


@dataclass
class RefineStage:
    """A stage that does ``run``; its canary is ``samples``."""

    run: Callable[[Chunk, InFlight], Chunk]
    samples: Chunk
    name: str = "refine"

    def __call__(self, chunk: Chunk, in_flight: InFlight) -> Chunk:
        return self.run(chunk, in_flight)

    def canary(self) -> Chunk:
        return self.samples


def fatal() -> RefineStage:
    """Refining in which some records crash or hang."""
    return RefineStage(Refine(FatalRefiner(), LABELS, max_pixels=10**8), chunk(8))


def broken() -> RefineStage:
    """Crashes whatever it is given, as on a machine whose GPU is lost."""
    return RefineStage(Refine(FatalRefiner(), LABELS, max_pixels=10**8), chunk(CRASH))


def _unlucky(log: str, times: int, given: Chunk, in_flight: InFlight) -> Chunk:
    path = Path(log)
    if given.records[0].width != 8 and path.stat().st_size < times:
        with path.open("a") as f:
            f.write(".")
        in_flight.begin("refine", [0], 1)
        os.kill(os.getpid(), signal.SIGKILL)
    return Refine(NoRefiner(), LABELS, max_pixels=10**8)(given, in_flight)


def unlucky(log: str, times: int) -> RefineStage:
    """Killed from outside the first ``times`` times, whatever it does."""
    return RefineStage(partial(_unlucky, log, times), chunk(8))


def _sociable(given: Chunk, in_flight: InFlight) -> Chunk:
    if len(given.records) > 2:
        crash()
    return Refine(NoRefiner(), LABELS, max_pixels=10**8)(given, in_flight)


def crowded() -> RefineStage:
    """Crashes over more than two records at once, over none of them alone."""
    return RefineStage(_sociable, chunk(8))


def _cuda(given: Chunk, in_flight: InFlight) -> Chunk:
    for place, record in enumerate(given.records):
        in_flight.begin("refine", [place], 1)
        if record.error is None and record.width == CRASH:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be")
    records = [replace(r, data=None) for r in given.records]
    return Refine(NoRefiner(), LABELS, max_pixels=10**8)(replace(given, records=records), in_flight)


def lost_gpu() -> RefineStage:
    """Raises what torch raises when a kernel has spoilt the context."""
    return RefineStage(_cuda, chunk(8))
