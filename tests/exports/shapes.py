"""Masks of smooth shapes with holes, and a folder in which a format writes them, without an output."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from segbatch.exports.format import ExportContext, ExportedImage, Format
from segbatch.labels import LabelSet
from segbatch.records import ClassCount
from tests.corpus import encode

HOSTILE = ("background", 'a & "b" <c>', "d'e", "été", "]]>", "\ufffe")
VOID = 255


class Folder:
    """``PartFolder`` and ``ExportFolder`` of one part."""

    name = "00000"

    def __init__(self, root: Path) -> None:
        self._root, self._fragment = root, b""

    def write(self, path: str, data: bytes) -> None:
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).write_bytes(data)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        buffer = io.BytesIO()
        yield buffer
        self.write(path, buffer.getvalue())

    @contextmanager
    def fragment(self) -> Iterator[BinaryIO]:
        buffer = io.BytesIO()
        yield buffer
        self._fragment = buffer.getvalue()

    def lines(self) -> Iterator[bytes]:
        return iter(self._fragment.splitlines())


def context(names: Sequence[str] = HOSTILE, *, background: int | None = 0, total: int = 0) -> ExportContext:
    return ExportContext(
        labels=LabelSet.of(names),
        images="copy",
        split="train",
        instances=False,
        total=total,
        background=background,
        void=VOID,
        source="out",
        target="target",
        fingerprint="0" * 16,
        model="tests",
    )


def masks(classes: int, count: int = 12, *, void: bool = False) -> dict[str, np.ndarray]:
    """Masks by name, uint8 (H, W): every class occurs, with holes, islands in them, and single pixels."""
    rng = np.random.default_rng(0)
    result = {}
    for i in range(count):
        height, width = 90 + 7 * i, 120 - 5 * i
        scores = [cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), s) * s for s in (1.0, 3.0, 8.0)]
        ranks = np.argsort(np.argsort(np.ravel(sum(scores)))).reshape(height, width)
        mask = (ranks * classes // ranks.size).astype(np.uint8)
        mask[rng.random(mask.shape) < 0.002] = classes - 1
        if void:
            mask[:20, :30] = VOID
        # Two components with the same bounding box, of which earlier Ultralytics dropped one.
        mask[-26:-9, -26:-9] = 0
        mask[-25:-10, -25] = mask[-11, -25:-12] = mask[-25, -23:-10] = mask[-25:-12, -11] = classes - 1
        result[f"{'sub/' * (i % 2)}dots.{i}"] = mask
    return result


def write(form: Format, target: Path, masks: dict[str, np.ndarray], context: ExportContext) -> None:
    """Export masks, each with a gray photograph."""
    folder = Folder(target)

    def images() -> Iterator[ExportedImage]:
        for number, (name, mask) in enumerate(masks.items(), 1):
            assert form.image_folder is not None
            path = f"{form.image_folder.format(split=context.split)}/{name}.jpg"
            photograph = encode(np.full((*mask.shape, 3), 90, np.uint8))
            folder.write(path, photograph)
            values, pixels = np.unique(mask[mask != VOID], return_counts=True)
            counts = [ClassCount(int(v), int(n), n / mask.size, 0.5) for v, n in zip(values, pixels, strict=True)]
            classes = tuple(sorted(counts, key=lambda each: -each.pixels))
            yield ExportedImage(number, name, f"{name}.jpg", mask, classes, 0.75, photograph, path)

    form.check(context)
    form.write_part(images(), folder, context)
    form.finish(folder, context)
