"""``segbatch select``: which images to label next, from the columns of an output alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.config.base import refuse_blank
from segbatch.errors import SpecError
from segbatch.evaluation.agreement import CommonClasses, mean_iou
from segbatch.evaluation.selection import STRATEGIES, Candidates, Choice
from segbatch.logs import LogReporter
from segbatch.protocols import Reporter
from segbatch.registry import suggest
from segbatch.report.encoding import background_of
from segbatch.results.dataset import MaskDataset
from segbatch.results.join import Join
from segbatch.sources.unique_ids import id_hashes
from segbatch.text import counted

_COLUMNS = ["image_id", "source", "classes", "error"]
_STEP = 100  # images per progress step
_SCHEMA = pa.schema(
    [
        ("rank", pa.int64()),
        ("image_id", pa.string()),
        ("source", pa.string()),
        ("strategy", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Selection:
    """Images to label next.

    Attributes:
        table: rank, image_id, source, strategy, score, reason; best first within each strategy.
        candidates: Number of images that could have been chosen.
        notes: What was left out and what fell short, one line each.
    """

    table: pa.Table
    candidates: int
    notes: tuple[str, ...]

    @property
    def image_ids(self) -> list[str]:
        """Ids of the images, in order of their ranks."""
        return [str(image_id) for image_id in self.table["image_id"].to_pylist()]


def select(
    output: str,
    *,
    strategy: str | Mapping[str, int] = "least-confident",
    n: int | None = None,
    other: str | None = None,
    exclude: Sequence[str] = (),
    per_source: int | None = None,
    seed: int = 0,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Selection:
    """Choose the images of an output that are most worth labeling.

    Only the classes of the rows are read, and the masks for ``disagreement``. Memory: about 200 bytes for each image,
    and 8 more for each class. The same arguments choose the same images, also after a compaction.

    Args:
        output: The folder or prefix that was ``--output`` of a run, finished or not.
        strategy: ``least-confident``, ``rare-class``, ``disagreement`` or ``diverse``; or several with the number of
            each, as a mapping or as ``least-confident=500,diverse=500``.
        n: Number of images, of one strategy 1,000 by default; of several without numbers an equal part of each.
        other: Another output of the same images, for ``disagreement``.
        exclude: Ids of images that are not chosen, such as labeled ones.
        per_source: Maximum number of images of one ``source``, such as a tar.
        seed: Decides ties, and the first image of ``diverse``.
        storage_options: Passed to fsspec.
        reporter: Receives messages about the work.

    Raises:
        SpecError: The strategies or numbers are not valid, or no image can be chosen.
        OutputError: A result file cannot be read.
    """
    refuse_blank(output=output, other=other)
    numbers = quotas(strategy, n)
    if ("disagreement" in numbers) != (other is not None):
        raise SpecError("strategy disagreement and --other need each other: give both, or neither")
    reporter = reporter or LogReporter()
    dataset = MaskDataset.open(output, storage_options=storage_options)
    reporter.phase("reading classes")
    try:
        images = _Images.read(dataset, seed)
        disagreement = None
        if other is not None:
            disagreement = images.disagreement(
                dataset, MaskDataset.open(other, storage_options=storage_options), reporter
            )
        reporter.phase("choosing images")
        chosen = _choose(images, images.candidates(dataset, disagreement), numbers, exclude, per_source)
    finally:
        reporter.closed()
    if dataset.is_complete:
        return chosen
    unfinished = "the run is not finished: the images are those of the committed chunks"
    return replace(chosen, notes=(unfinished, *chosen.notes))


def quotas(strategy: str | Mapping[str, int], n: int | None = None) -> dict[str, int]:
    """Return the number of images of each strategy. Raises ``SpecError``, see ``select``."""
    if isinstance(strategy, str):
        parts = [part.partition("=") for part in strategy.split(",")]
        given = {name.strip(): number.strip() if equals else None for name, equals, number in parts}
        if len(given) < len(parts):
            raise SpecError(f"strategy {strategy!r}: a strategy is given twice; give each once, with one number")
    else:
        given = {name: str(number) for name, number in strategy.items()}
    for name, number in given.items():
        if name not in STRATEGIES:
            raise SpecError(f"unknown strategy {name!r}{suggest(name, STRATEGIES)}")
        if number is not None and not (number.isdecimal() and int(number)):
            raise SpecError(f"strategy {name}={number}: the number of images is an integer of at least 1")
    numbers = {name: int(number) for name, number in given.items() if number is not None}
    if not numbers:
        return _equal_parts(list(given), 1000 if n is None else n)
    if len(numbers) < len(given):
        raise SpecError(f"strategy {strategy!r}: give all strategies a number, or none and their sum by -n")
    if n is not None and n != sum(numbers.values()):
        raise SpecError(f"n is {n}, the numbers of the strategies add up to {sum(numbers.values())}; leave out -n")
    return numbers


def _equal_parts(names: Sequence[str], n: int) -> dict[str, int]:
    if n < len(names):
        raise SpecError(f"n is {n}; choose at least one image for each strategy")
    return {name: n // len(names) + (i < n % len(names)) for i, name in enumerate(names)}


@dataclass(frozen=True)
class _Images:
    """The images with a mask, in an order that depends on their ids and the seed alone.

    Attributes:
        image_ids, sources: Strings (N,).
        fractions, confidences: float32 (N, C), see ``Candidates``.
        pixels: Of each class, int64 (C,).
        failed: Number of error rows.
    """

    image_ids: pa.Array
    sources: pa.Array
    fractions: np.ndarray
    confidences: np.ndarray
    pixels: np.ndarray
    failed: int

    @staticmethod
    def read(dataset: MaskDataset, seed: int) -> _Images:
        """Read the classes of all rows."""
        num_classes, failed = len(dataset.classes), 0
        pixels = np.zeros(num_classes, np.int64)
        parts: list[tuple[pa.RecordBatch, np.ndarray, np.ndarray]] = []
        for batch in dataset.batches(_COLUMNS):
            rows = batch.filter(batch["error"].is_null())
            failed += batch.num_rows - rows.num_rows
            row, counts = pc.list_parent_indices(rows["classes"]), pc.list_flatten(rows["classes"])
            class_id = counts.field("class_id").to_numpy()
            fractions, confidences = np.zeros((2, rows.num_rows, num_classes), np.float32)
            fractions[row, class_id] = counts.field("fraction")
            confidences[row, class_id] = counts.field("confidence")
            np.add.at(pixels, class_id, counts.field("pixels").to_numpy())
            parts.append((rows.select(["image_id", "source"]), fractions, confidences))
        if not any(rows.num_rows for rows, _, _ in parts):
            raise SpecError(f"{dataset.output.uri}: has no masks to choose from; run the same `segbatch run` first")
        names = pa.Table.from_batches([rows for rows, _, _ in parts]).combine_chunks()
        ids = names["image_id"].to_pylist()
        order = np.argsort(id_hashes(f"{seed}/{i}" for i in ids), kind="stable")
        names = names.take(order).combine_chunks()
        return _Images(
            names["image_id"].combine_chunks(),
            names["source"].combine_chunks(),
            np.concatenate([part for _, part, _ in parts])[order],
            np.concatenate([part for _, _, part in parts])[order],
            pixels,
            failed,
        )

    def candidates(self, dataset: MaskDataset, disagreement: np.ndarray | None) -> Candidates:
        names = dataset.classes.names
        return Candidates(
            names,
            self.pixels / max(1, self.pixels.sum()),
            self.fractions,
            self.confidences,
            background_of(dataset.classes),
            disagreement,
        )

    def disagreement(self, dataset: MaskDataset, other: MaskDataset, reporter: Reporter) -> np.ndarray:
        """Return 1 - mean IoU with ``other`` of each image, NaN where one of the two has no mask."""
        classes = CommonClasses(dataset.classes, other.classes)
        if not classes.are_equal:
            raise SpecError(
                f"other: {other.output.uri} has other classes than {dataset.output.uri}; disagreement compares outputs "
                "with the same classes, `segbatch diff` matches classes by name"
            )
        position = {name: i for i, name in enumerate(self.image_ids.to_pylist())}
        values = np.full(len(position), np.nan)
        reporter.phase("comparing images", len(position))
        for count, (a, b) in enumerate(Join(dataset, other), 1):
            if a.png is not None and b.png is not None:
                values[position[a.image_id]] = 1 - mean_iou(a.png, b.png)
            if count % _STEP == 0:
                reporter.advanced(_STEP)
        return values


def _choose(
    images: _Images, candidates: Candidates, numbers: Mapping[str, int], exclude: Sequence[str], per_source: int | None
) -> Selection:
    available = ~pc.is_in(images.image_ids, pa.array(exclude, pa.string())).to_numpy(zero_copy_only=False)
    count = int(available.sum())
    notes = []
    if images.failed:
        notes.append(f"{counted(images.failed, 'error row')} cannot be chosen")
    if exclude:
        others = len(set(exclude)) - (len(available) - count)
        notes.append(
            f"{counted(len(available) - count, 'image')} excluded"
            + (f"; {counted(others, 'excluded id')} without a mask in the output" if others else "")
        )
    if "least-confident" in numbers and (unranked := int((candidates.foreground().sum(axis=1) == 0).sum())):
        notes.append(f"least-confident does not rank {counted(unranked, 'image')} of background alone")
    if candidates.disagreement is not None and (missing := int(np.isnan(candidates.disagreement).sum())):
        notes.append(f"disagreement does not rank {counted(missing, 'image')} without a mask in the other output")
    cap = _SourceCap(images.sources, per_source)
    taken: list[tuple[str, Choice]] = []
    for name, number in numbers.items():
        chosen = list(
            cap.limited(STRATEGIES[name](candidates, available, [c.position for _, c in taken]), available, number)
        )
        taken += [(name, choice) for choice in chosen]
        if len(chosen) < number:
            notes.append(f"{name}: {len(chosen):,} of {number:,}: no other image can be chosen")
    positions = pa.array([choice.position for _, choice in taken], pa.int64())
    columns = [
        pa.array(range(1, len(taken) + 1), pa.int64()),
        images.image_ids.take(positions),
        images.sources.take(positions),
        pa.array([name for name, _ in taken], pa.string()),
        pa.array([choice.score for _, choice in taken], pa.float64()),
        pa.array([choice.reason for _, choice in taken], pa.string()),
    ]
    return Selection(pa.table(columns, schema=_SCHEMA), count, tuple(notes))


class _SourceCap:
    """At most ``limit`` images of one source, over all strategies."""

    def __init__(self, sources: pa.Array, limit: int | None) -> None:
        self._codes = sources.dictionary_encode().indices.to_numpy()
        self._limit = limit
        self._counts = np.zeros(int(self._codes.max(initial=-1)) + 1, np.int64)

    def limited(self, choices: Iterator[Choice], available: np.ndarray, number: int) -> Iterator[Choice]:
        """Yield up to ``number`` choices; clears a source in ``available`` once it has its limit."""
        for _, choice in zip(range(number), choices, strict=False):
            source = self._codes[choice.position]
            self._counts[source] += 1
            if self._counts[source] == self._limit:
                available[self._codes == source] = False
            yield choice
