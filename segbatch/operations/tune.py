"""``segbatch tune-crf``: search for dense CRF parameters on labeled images."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from segbatch.codecs.decode import decode
from segbatch.config.base import refuse_blank, spec_of
from segbatch.config.crf_mapping import crf_settings
from segbatch.config.job import JobSpec
from segbatch.crf.params import CRFSettings
from segbatch.errors import RecordFailure, SpecError
from segbatch.evaluation.class_map import ClassMap, UnknownValues
from segbatch.evaluation.confusion import Confusion
from segbatch.evaluation.crf_search import Trial, Tuning, max_trials, search
from segbatch.evaluation.label_counts import InspectedLabel
from segbatch.evaluation.label_images import LabelFile, LabelReader, list_labels, open_labels
from segbatch.evaluation.pairing import ImageName, Suffix, has_name, pair, refusal
from segbatch.evaluation.survey import LabelSurvey, survey
from segbatch.labels import IGNORE_INDEX, LabelOptions
from segbatch.logs import LogReporter, Logs
from segbatch.planning.job import Job, resolve
from segbatch.planning.pools import Pools, plan_pools
from segbatch.protocols import Refiner, Reporter
from segbatch.ray_backend.connection import cluster
from segbatch.ray_backend.tasks import map_tasks, segment_chunks, shared
from segbatch.records import Chunk, ChunkId, Record
from segbatch.refiners.densecrf import DenseCRFRefiner
from segbatch.refiners.none import NoRefiner
from segbatch.sources.images import image_names
from segbatch.storage.files import Files
from segbatch.text import counted, redact

_BATCH = 8
_MAX_DECODED = 64  # images whose size is compared with their label's before any work


def tune_crf(
    spec: JobSpec | None = None,
    /,
    *,
    labels: str,
    images: int = 100,
    rounds: int = 2,
    ignore: Sequence[int] = (IGNORE_INDEX,),
    class_map: Mapping[Any, Any] | None = None,
    label_suffix: str = "",
    label_colors: str | None = None,
    reduce_zero_label: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Tuning:
    """Search the parameters of the dense CRF with the highest mean IoU on labeled images.

    These are w_bilateral, theta_alpha, theta_beta and w_spatial. The network runs once; each set of parameters refines
    its scores. The first set is that of the job, completed by the parameters of the weights.

    Args:
        spec: The job: its inputs, network and dense CRF; or give the fields of ``JobSpec`` as ``settings``.
        labels: Folder, URI prefix or glob of label images, paired with the inputs by ``evaluation.pairing.pair``.
        images: Maximum number of labeled images, the first ones of the inputs.
        rounds: Refinements of the search after the coarse grid.
        ignore: Label values that do not count.
        class_map: Label value -> class or ``ignore``, and class -> class it is merged into; see ``ClassMap``.
        label_suffix: What the names of labels end in, or ``IMAGE=LABEL``; see ``LabelOptions``.
        label_colors: ``classes``, ``indices`` or the URI of a table of colors; see ``LabelOptions``.
        reduce_zero_label: Label value 0 is ignored, and value v is class v - 1.
        reporter: Receives messages about the work.

    Raises:
        SpecError: No image has a label, or the labels are unusable, see ``evaluation.survey``.
    """
    spec = spec_of(JobSpec, spec, settings)
    refuse_blank(labels=labels, label_colors=label_colors)
    reporter = reporter or LogReporter()
    options = LabelOptions(tuple(ignore), class_map, label_suffix, label_colors, reduce_zero_label)
    try:
        return _tune(spec, labels, images, options, rounds, reporter)
    finally:
        reporter.closed()


def _tune(spec: JobSpec, labels: str, images: int, options: LabelOptions, rounds: int, reporter: Reporter) -> Tuning:
    job = resolve(spec.model_copy(update={"refiner": "densecrf", "refiner_weights": None}))
    job.source.check(job.shards)
    files = Files(spec.storage_options)
    reader, class_map = open_labels(options, job.model.labels, files)
    records, label_of = _pair(job, labels, list_labels(files, labels), Suffix.of(options.suffix), images)
    survey = _survey(job, records, label_of, reader, class_map, options)
    for line in survey.lines():
        reporter.message(line)
    reporter.phase("starting Ray")
    with cluster(spec) as hardware:
        job = job.with_precision(hardware)
        pools = plan_pools(spec, hardware, -(-len(records) // _BATCH))
        reporter.message(f"scoring {counted(len(records), 'image')} with {job.model.name}, weights {job.model.weights}")
        scored = _score(job, pools, records, reporter)
        if not any(scored):
            raise SpecError(
                f"inputs: the network scored none of the {len(records)} images; `segbatch run` tells the reasons"
            )
        batches = [(shared((part, [label_of[r.image_id].uri for r in part])), len(part)) for part in scored]
        measurement = _Measurement(job, batches, class_map, reader, reporter)
        reporter.phase("comparing the network's masks, images", len(records))
        network, unknown = measurement.network()
        for text in unknown.lines():
            reporter.message(f"label {text}, do not count; the value is neither a class nor one to --ignore")
        if not network.pixel_accuracy >= 0:  # NaN
            raise SpecError(f"labels: no pixel in {redact(labels)} counts; give other labels, or another --ignore")
        reporter.message(f"the network alone: mean IoU {network.mean_iou:.4f}")
        reporter.phase("searching, images refined", max_trials(rounds) * len(records))
        trials = search(crf_settings(job.refiner.request.values), rounds, measurement.trials, reporter)
    compared = sum(count for _, count in batches)
    return Tuning(spec, trials, network, compared, len(records) - compared, survey)


def _pair(
    job: Job, given: str, labels: Sequence[LabelFile], suffix: Suffix, max_images: int
) -> tuple[list[Record], dict[str, LabelFile]]:
    """The first records that have a label, and the labels by image id; ``SpecError`` without any."""
    records = list(itertools.islice(_labeled(job, labels, suffix), max_images))
    paired = pair([ImageName(r.image_id, r.source) for r in records], labels, suffix)
    if not paired.labels:
        names = [ImageName(r.image_id, r.source) for r in itertools.islice(_records(job), 100)]
        raise SpecError(refusal(names, labels, suffix, given, "the inputs"))
    label_of = {records[i].image_id: label for i, label in paired.labels.items()}
    return [record for record in records if record.image_id in label_of], label_of


class _Measurement:
    """Refines batches of scored records in Ray tasks, and compares the masks with labels."""

    def __init__(
        self, job: Job, batches: list[tuple[Any, int]], class_map: ClassMap, reader: LabelReader, reporter: Reporter
    ) -> None:
        self._job, self._batches, self._reporter = job, batches, reporter
        self._class_map, self._reader = class_map, reader

    def network(self) -> tuple[Trial, UnknownValues]:
        """Measure the network alone; also return the label values that are neither a class nor ignored."""
        (trial,), unknown = self._measure([None])
        return trial, unknown

    def trials(self, crfs: Sequence[CRFSettings]) -> list[Trial]:
        """Measure each set of parameters, in order."""
        return self._measure(crfs)[0]

    def _measure(self, crfs: Sequence[CRFSettings | None]) -> tuple[list[Trial], UnknownValues]:
        tasks = [(crf, batch, count) for crf in crfs for batch, count in self._batches]
        arguments = ((batch, self._job.spec, crf, self._class_map, self._reader) for crf, batch, _ in tasks)
        totals = {crf: Confusion(len(self._class_map.names)) for crf in crfs}
        unknown = UnknownValues()
        for position, (confusion, values) in map_tasks(_compare, arguments):
            crf, _, count = tasks[position]
            totals[crf] += confusion
            unknown.merge(values)
            self._reporter.advanced(count)
        return [Trial(crf, total.mean_iou, total.pixel_accuracy) for crf, total in totals.items()], unknown


def _compare(
    batch: tuple[list[Record], list[str]],
    spec: JobSpec,
    crf: CRFSettings | None,
    class_map: ClassMap,
    reader: LabelReader,
) -> tuple[Confusion, UnknownValues]:
    """Refine a batch of scored records and compare the masks with their labels, in a Ray task."""
    refiner: Refiner = NoRefiner() if crf is None else DenseCRFRefiner(crf)
    total, unknown = Confusion(len(class_map.names)), UnknownValues()
    for record, uri in zip(*batch, strict=True):
        assert record.data is not None
        assert record.scores is not None
        mask, _ = refiner.refine(decode(record.data, spec.max_pixels), record.scores)
        truth, values = class_map.truth(reader.read(uri).values)
        if truth.shape != mask.shape:
            raise SpecError(f"labels: {redact(uri)} is {truth.shape}, its image {record.image_id} is {mask.shape}")
        total.add(truth, class_map.mask(mask))
        for value, pixels in values.items():
            unknown.add(value, pixels, record.image_id)
    return total, unknown


def _records(job: Job) -> Iterator[Record]:
    """The readable records of the inputs, in order."""
    for shard in job.shards:
        for chunk in job.source.chunks(shard, _BATCH):
            yield from (record for record in chunk.records if record.data is not None)


def _labeled(job: Job, labels: Sequence[LabelFile], suffix: Suffix) -> Iterator[Record]:
    """The records that may have a label; of loose images, whose names are known, those that do."""
    named = has_name(labels, suffix)
    loose = (name for shard in job.shards if shard.format == "images" for name in image_names(shard))
    known = [name for name in (ImageName(*pair) for pair in loose) if named(name)]
    chosen = {known[i].name for i in pair(known, labels, suffix).labels}
    unlabeled = {name.name for name in known} - chosen
    for record in _records(job):
        if named(ImageName(record.image_id)) and record.image_id not in unlabeled:
            yield record


def _survey(
    job: Job,
    records: Sequence[Record],
    label_of: Mapping[str, LabelFile],
    reader: LabelReader,
    class_map: ClassMap,
    options: LabelOptions,
) -> LabelSurvey:
    def inspect(index: int) -> InspectedLabel:
        record = records[index]
        file, label = label_of[record.image_id], reader.read(label_of[record.image_id].uri)
        size = None
        if index < _MAX_DECODED and record.data is not None:
            with suppress(RecordFailure):  # becomes an error row of the network's stage
                size = decode(record.data, job.spec.max_pixels).shape[:2]
        return InspectedLabel(file.name, label.values, label.palette, size)

    return survey(
        len(records), inspect, class_map, job.model.labels, strict=True, check_palettes=options.checks_palettes
    )


def _score(job: Job, pools: Pools, records: list[Record], reporter: Reporter) -> list[list[Record]]:
    """The records with their scores, in batches; those that failed are left out."""
    chunks = [
        Chunk(ChunkId("tuning", n, False), records[i : i + _BATCH])
        for n, i in enumerate(range(0, len(records), _BATCH))
    ]
    reporter.phase("running the network, images", len(records))
    batches: list[list[Record]] = [[] for _ in chunks]
    logs = Logs.of(job.spec.log_format, job.spec.storage_options)
    for position, chunk in segment_chunks(job, pools, logs, chunks):
        batches[position] = [record for record in chunk.records if record.scores is not None]
        reporter.advanced(len(chunk.records))
    return batches
