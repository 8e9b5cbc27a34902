"""``segbatch eval``: metrics of one or two outputs against label images, with confidence intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbatch.config.base import refuse_blank
from segbatch.config.job import JobSpec
from segbatch.errors import SpecError
from segbatch.evaluation.bootstrap import ConfidenceInterval
from segbatch.evaluation.compare import MAX_EXAMPLES, Finding, GroundTruth, PartialEvaluation, compare_files
from segbatch.evaluation.label_images import list_labels, open_labels
from segbatch.evaluation.labeled_rows import LabeledRows
from segbatch.evaluation.pairing import Suffix
from segbatch.evaluation.survey import LabelSurvey
from segbatch.labels import IGNORE_INDEX, LabelOptions, LabelSet
from segbatch.logs import LogReporter
from segbatch.output.result_file import ResultFile
from segbatch.output.run_record import RunRecord
from segbatch.protocols import Reporter
from segbatch.ray_backend.connection import cluster
from segbatch.ray_backend.tasks import map_tasks, shared
from segbatch.storage.files import Files
from segbatch.storage.store import Store
from segbatch.text import redact

_TASKS_PER_CORE = 4
_FILES_PER_TASK = 16


@dataclass(frozen=True)
class OutputEvaluation:
    """The metrics of one output.

    Attributes:
        run: ``model``, ``weights`` and ``refiner`` of the run that wrote it.
        images: Number of images that were compared with a label.
        findings: What could not be compared, and what else should be known, by kind.
        metrics: As ``BootstrapAccumulator.metrics`` names them.
        confusion: int64 (C, C), pixels of true class i that were predicted as class j.
    """

    output: str
    run: dict[str, str]
    images: int
    findings: dict[str, Finding]
    metrics: dict[str, ConfidenceInterval]
    confusion: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return plain data; NaN is None."""
        return {
            "output": self.output,
            "run": self.run,
            "images": self.images,
            "findings": {kind: vars(f) for kind, f in self.findings.items()},
            "metrics": {name: m.to_json() for name, m in self.metrics.items()},
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True)
class Evaluation:
    """One output, or two on the same labels.

    Attributes:
        labels: URI of the labels.
        ignore: Label values that were ignored.
        survey: What the labels contain.
        resamples: Bootstrap replicates behind the intervals.
        difference: Metrics of the first output minus those of the second, with intervals of the differences.
    """

    labels: str
    ignore: tuple[int, ...]
    survey: LabelSurvey
    classes: tuple[str, ...]
    resamples: int
    seed: int
    outputs: tuple[OutputEvaluation, ...]
    difference: dict[str, ConfidenceInterval] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data; metrics are fractions as ``{"value", "low", "high"}``, or lists of these."""
        return {
            "labels": self.labels,
            "ignore": list(self.ignore),
            "survey": self.survey.to_json(),
            "classes": list(self.classes),
            "bootstrap": {"resamples": self.resamples, "seed": self.seed, "interval": 0.95},
            "outputs": [output.to_json() for output in self.outputs],
            "difference": self.difference and {name: m.to_json() for name, m in self.difference.items()},
        }


@dataclass(frozen=True)
class _LabeledOutput:
    """An output whose rows were paired with labels."""

    store: Store
    record: RunRecord
    rows: LabeledRows


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
    """Compare the masks of an output with label images.

    The labels are surveyed first, see ``evaluation.survey``. Result files are read by Ray tasks, which return sums, and
    two numbers for each of up to 10,000 images. An output has no confidence per pixel: the unit of calibration is the
    region, all pixels of a class in an image. Its mean confidence is compared with the accuracy of its labeled pixels,
    and weighted by their number; the confidence of a class is also that of the class it is merged into.

    Args:
        output: Folder or URI prefix of the output.
        labels: Folder, URI prefix or glob of label images, paired with the rows by ``evaluation.pairing.pair``.
        against: Another output, compared with the same labels.
        ignore: Label values that do not count.
        class_map: Label value -> class or ``ignore``, and class -> class it is merged into; see ``ClassMap``.
        label_suffix: What the names of labels end in, or ``IMAGE=LABEL``; see ``LabelOptions``.
        label_colors: ``classes``, ``indices`` or the URI of a table of colors; see ``LabelOptions``.
        reduce_zero_label: Label value 0 is ignored, and value v is class v - 1.
        resamples: Bootstrap replicates behind the 95 % intervals.
        seed: Of the bootstrap.
        address: Ray cluster; by default this machine.
        storage_options: Passed to fsspec.
        reporter: Receives messages about the work.

    Raises:
        SpecError: No row has a label, the labels are unusable, or the two outputs have different classes.
        OutputError: A result file cannot be read.
    """
    refuse_blank(output=output, labels=labels, against=against, label_colors=label_colors, address=address)
    reporter = reporter or LogReporter()
    options = LabelOptions(tuple(ignore), class_map, label_suffix, label_colors, reduce_zero_label)
    files = Files(storage_options)
    records = [
        (store, RunRecord.need(store))
        for store in (Store(u, storage_options) for u in (output, against) if u is not None)
    ]
    names = _same_classes(records)
    reporter.phase("reading labels")
    try:
        reader, classes = open_labels(options, names, files)
        truths = list_labels(files, labels)
        suffix = Suffix.of(options.suffix)
        outputs = [_LabeledOutput(store, run, LabeledRows.of(store, truths, labels, suffix)) for store, run in records]
        survey = outputs[0].rows.survey(reader, classes, names, options)
        for line in survey.lines():
            reporter.message(line)
        reporter.phase("starting Ray")
        with cluster(JobSpec.create(inputs=[output], address=address)) as hardware:
            parts = []
            for labeled in outputs:
                truth = GroundTruth(truths, labeled.rows.places, classes, reader, resamples, seed)
                parts.append(_compare(labeled.store, labeled.rows.files, truth, int(hardware.cpus), reporter))
    finally:
        reporter.closed()
    for labeled, part in zip(outputs, parts, strict=True):
        _add_findings(labeled, part, survey)
    _add_unequal(parts, [label.name for label in truths])
    metrics = [part.sums.metrics() for part in parts]
    return Evaluation(
        labels=redact(labels),
        ignore=options.ignore,
        survey=survey,
        classes=classes.names,
        resamples=resamples,
        seed=seed,
        outputs=tuple(_result(*each) for each in zip(outputs, parts, metrics, strict=True)),
        difference={n: ConfidenceInterval.of(metrics[0][n] - metrics[1][n]) for n in metrics[0]}
        if against is not None
        else None,
    )


def _same_classes(records: Sequence[tuple[Store, RunRecord]]) -> LabelSet:
    """The classes of all outputs. Raises ``SpecError`` if they differ."""
    (first, record), (other, other_record) = records[0], records[-1]
    if record.labels.names != other_record.labels.names:
        raise SpecError(
            f"against: {other.uri} has the classes {', '.join(other_record.labels.names)}; {first.uri} has "
            f"{', '.join(record.labels.names)}; only outputs with the same classes can be compared"
        )
    return record.labels


def _compare(
    store: Store, files: Sequence[ResultFile], truth: GroundTruth, cores: int, reporter: Reporter
) -> PartialEvaluation:
    """Compare all result files of an output in tasks of a few files, of which a limited number is pending."""
    total, common = truth.no_rows(), shared(truth)
    size = min(-(-len(files) // (_TASKS_PER_CORE * cores)), _FILES_PER_TASK)
    groups = [files[i : i + size] for i in range(0, len(files), size)]
    reporter.phase(f"comparing {store.uri}, files", len(files))
    for task, part in map_tasks(compare_files, ((store, g, common) for g in groups), 2 * cores):
        total += part
        reporter.advanced(len(groups[task]))
    return total


def _add_findings(output: _LabeledOutput, part: PartialEvaluation, survey: LabelSurvey) -> None:
    """Add what is known once all rows of an output were compared. Raises ``SpecError`` if none could be."""
    record = output.record
    if record.state != "done":
        part.add_finding("the run is not finished", "this is what is committed so far")
    if record.confidence_name != "confidence":
        part.add_finding(
            f"its confidence is the refiner's {record.confidence_name}, not the network's probability",
            f"rows version {record.rows_version}",
        )
    if part.unknown:
        pixels = sum(count for count, _ in part.unknown.values())
        kind = "pixels of label values that are not a class"
        part.findings[kind] = Finding(pixels, part.unknown.lines()[:MAX_EXAMPLES])
    for name in output.rows.labels_without:
        part.add_finding("labels without an image", name)
    if not part.sums.images:
        why = "; ".join(f"{kind}: {f.times:,} ({f.examples[0]})" for kind, f in part.findings.items())
        raise SpecError(f"labels: no mask of {output.store.uri} could be compared with its label; {why}")
    for name in survey.absent:
        part.add_finding("classes in no inspected label", name)


def _add_unequal(parts: Sequence[PartialEvaluation], names: Sequence[str]) -> None:
    """Add which labels only one of two outputs was compared with: they bias the difference."""
    for part, other in itertools.permutations(parts, 2):
        for i in np.flatnonzero((part.compared > 0) & (other.compared == 0)).tolist():
            part.add_finding("images compared here and not in the other output", names[i])


def _result(output: _LabeledOutput, part: PartialEvaluation, metrics: Mapping[str, np.ndarray]) -> OutputEvaluation:
    return OutputEvaluation(
        output=output.store.uri,
        run={key: str(output.record.spec.get(key)) for key in ("model", "weights", "refiner")},
        images=part.sums.images,
        findings=dict(sorted(part.findings.items())),
        metrics={name: ConfidenceInterval.of(replicates) for name, replicates in metrics.items()},
        confusion=part.sums.confusion,
    )
