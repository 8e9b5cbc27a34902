"""An output held against labels: every figure with its interval, and all that could not be compared, by name."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbatch.config.job import JobSpec
from segbatch.errors import SpecError
from segbatch.evaluation.bootstrap import ConfidenceInterval
from segbatch.evaluation.compare import MAX_EXAMPLES, Finding, Part, Truth, compare_files
from segbatch.evaluation.label_images import list_labels, open_labels
from segbatch.evaluation.labeled_rows import LabeledRows
from segbatch.evaluation.pairing import Suffix
from segbatch.evaluation.survey import LabelSurvey
from segbatch.labels import IGNORE_INDEX, LabelOptions
from segbatch.logs import LogReporter
from segbatch.output.result_file import ResultFile
from segbatch.output.run_record import RunRecord
from segbatch.protocols import Reporter
from segbatch.ray_backend.connection import cluster
from segbatch.ray_backend.tasks import map_tasks, shared
from segbatch.storage.files import Files, shown_uri
from segbatch.storage.store import Store

_TASKS_A_CORE = 4
_FILES_A_TASK = 16


@dataclass(frozen=True)
class OutputEvaluation:
    """One output: ``images`` were compared; ``findings`` says what was not, and what else to know, kind by kind.

    ``figures`` holds those of ``Tally.figures``; ``confusion`` int64 (C, C) counts pixels of true class i given j.
    """

    output: str
    run: dict[str, str]
    images: int
    findings: dict[str, Finding]
    figures: dict[str, ConfidenceInterval]
    confusion: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """One output, or two on the same labels with the ``difference`` of their figures (the first minus the second)."""

    labels: str
    ignore: tuple[int, ...]
    survey: LabelSurvey
    classes: tuple[str, ...]
    resamples: int
    seed: int
    outputs: tuple[OutputEvaluation, ...]
    difference: dict[str, ConfidenceInterval] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; figures are fractions as ``{"value", "low", "high"}``, None where there is none."""
        return {
            "labels": self.labels,
            "ignore": list(self.ignore),
            "survey": self.survey.to_json(),
            "classes": list(self.classes),
            "bootstrap": {"resamples": self.resamples, "seed": self.seed, "interval": 0.95},
            "outputs": [
                {
                    "output": e.output,
                    "run": e.run,
                    "images": e.images,
                    "findings": {kind: vars(f) for kind, f in e.findings.items()},
                    "figures": {name: _plain(f) for name, f in e.figures.items()},
                    "confusion": e.confusion.tolist(),
                }
                for e in self.outputs
            ],
            "difference": self.difference and {name: _plain(f) for name, f in self.difference.items()},
        }


def evaluate(
    output: str,
    *,
    labels: str,
    against: str | None = None,
    ignore: Sequence[int] = (IGNORE_INDEX,),
    class_map: Mapping[Any, Any] | None = None,
    label_suffix: str = "",
    label_colors: str | None = None,
    reduce_zero_label: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    address: str | None = None,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Compare the masks of ``output``, and of ``against``, with label images.

    ``labels`` is a folder, prefix or glob, paired with the rows by ``pairing.pair``; ``options`` say how they are read.
    They are looked at before any work: see ``evaluation.survey``. An output has no confidence of a single pixel: the
    unit of calibration is the region, all pixels of a class in an image. Its mean confidence is held against the share
    of its labeled pixels that are right, and counts by these pixels; the confidence of a class is also that of the
    class it is merged into.

    Result files are read by Ray tasks, on this machine or on the cluster at ``address``; what comes back are sums, and
    two numbers for each of up to 10,000 images. Raises ``SpecError`` if nothing can be compared, for labels that cannot
    be meant so, or if the two outputs have different classes; ``OutputError`` for a result file that cannot be read.
    """
    reporter = reporter or LogReporter()
    options = LabelOptions(tuple(ignore), class_map, label_suffix, label_colors, reduce_zero_label)
    stores = [Store(uri, storage_options) for uri in (output, against) if uri is not None]
    records = [RunRecord.need(store) for store in stores]
    classes = [record.labels.names for record in records]
    if classes[-1] != classes[0]:
        raise SpecError(
            f"against: {stores[1].uri} has the classes {', '.join(classes[1])}; {stores[0].uri} has "
            f"{', '.join(classes[0])}; only outputs with the same classes can be compared"
        )
    files = Files(storage_options)
    reader, classes_of = open_labels(options, records[0].labels, files)
    truths = list_labels(files, labels)
    paired = [LabeledRows.of(store, truths, labels, Suffix.of(options.suffix)) for store in stores]
    surveyed = paired[0].survey(reader, classes_of, records[0].labels, options)
    for line in surveyed.lines():
        reporter.message(line)
    with cluster(JobSpec.create(inputs=[output], address=address)) as hardware:
        parts = []
        for store, rows in zip(stores, paired, strict=True):
            truth = Truth(truths, rows.places, classes_of, reader, resamples, seed)
            parts.append(_gather(store, rows.files, truth, int(hardware.cpus), reporter))
    for store, record, part, rows in zip(stores, records, parts, paired, strict=True):
        _conclude(store, record, part, rows)
        for name in surveyed.absent:
            part.found("classes in no inspected label", name)
    _tell_apart(parts, [label.name for label in truths])
    figures = [part.tally.figures() for part in parts]
    return Evaluation(
        labels=shown_uri(labels),
        ignore=tuple(options.ignore),
        survey=surveyed,
        classes=classes_of.names,
        resamples=resamples,
        seed=seed,
        outputs=tuple(
            OutputEvaluation(
                store.uri,
                {key: str(record.spec.get(key)) for key in ("model", "weights", "refiner")},
                part.tally.images,
                dict(sorted(part.findings.items())),
                {name: ConfidenceInterval.of(f) for name, f in found.items()},
                part.tally.confusion,
            )
            for store, record, part, found in zip(stores, records, parts, figures, strict=True)
        ),
        difference={n: ConfidenceInterval.of(figures[0][n] - figures[1][n]) for n in figures[0]} if against else None,
    )


def _gather(store: Store, files: Sequence[ResultFile], truth: Truth, cores: int, reporter: Reporter) -> Part:
    """All committed files of one output: tasks of a few files, of which only so many are pending."""
    total, common = truth.part(), shared(truth)
    size = min(-(-len(files) // (_TASKS_A_CORE * cores)), _FILES_A_TASK)
    groups = [files[i : i + size] for i in range(0, len(files), size)]
    told = time.monotonic()
    reporter.message(f"{store.uri}: {len(files)} files")
    for done, (_, part) in enumerate(map_tasks(compare_files, ((store, g, common) for g in groups), 2 * cores), 1):
        total += part
        if time.monotonic() - told > 10:
            told = time.monotonic()
            reporter.message(f"{total.tally.images:,} images compared, {done / len(groups):.0%} of the files")
    return total


def _conclude(store: Store, record: RunRecord, part: Part, rows: LabeledRows) -> None:
    """What is known of an output only when all of it was read."""
    if record.state != "done":
        part.found("the run is not finished", "this is what is committed so far")
    if record.confidence_name != "confidence":
        part.found(
            f"its confidence is the refiner's {record.confidence_name}, not the network's probability",
            f"rows version {record.rows_version}",
        )
    if part.unknown:
        pixels = sum(count for count, _ in part.unknown.values())
        kind = "pixels of label values that are no class"
        part.findings[kind] = Finding(pixels, part.unknown.lines()[:MAX_EXAMPLES])
    for name in rows.labels_without:
        part.found("labels without an image", name)
    if not part.tally.images:
        why = "; ".join(f"{kind}: {f.times:,} ({f.examples[0]})" for kind, f in part.findings.items())
        raise SpecError(f"labels: no mask of {store.uri} could be compared with its label; {why}")


def _tell_apart(parts: Sequence[Part], names: Sequence[str]) -> None:
    """Say of two outputs which labels only one of them was compared with: their difference is then no fair one."""
    for part, other in itertools.permutations(parts, 2):
        for i in np.flatnonzero((part.compared > 0) & (other.compared == 0)).tolist():
            part.found("images compared here and not in the other output", names[i])


def _plain(figure: ConfidenceInterval) -> Any:
    """One figure as ``{"value", "low", "high"}``, several as lists of them; None for NaN."""
    if figure.value.ndim:
        return [_plain(ConfidenceInterval(*each)) for each in zip(figure.value, figure.low, figure.high, strict=True)]
    return {k: None if np.isnan(v) else float(v) for k, v in vars(figure).items()}
