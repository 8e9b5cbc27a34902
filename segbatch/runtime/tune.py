"""Dense CRF parameters chosen on labelled images: scores once, then Ray tasks that refine and compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray

from segbatch import refiners
from segbatch.chunk import Chunk, ChunkId, Record
from segbatch.errors import SpecError
from segbatch.labels import IGNORE_INDEX
from segbatch.metrics.class_map import ClassMap, UnknownValues
from segbatch.metrics.confusion import Confusion
from segbatch.runtime.attempts import RayAttempts
from segbatch.runtime.cluster import cluster
from segbatch.runtime.crf_search import Setting, Tuning, search, settings_at_most
from segbatch.runtime.failures import failure
from segbatch.runtime.log import Logs
from segbatch.runtime.pipeline import SegmentWorker
from segbatch.runtime.planning import Job, resolve
from segbatch.runtime.resources import Pools, plan_pools
from segbatch.runtime.steps import Steps
from segbatch.sources.decode import decode
from segbatch.sources.io import Files, shown_uri
from segbatch.sources.labels import list_labels, read_label, stem
from segbatch.spec import CRFSpec, JobSpec

_BATCH = 8


def tune(
    spec: JobSpec,
    labels: str,
    *,
    images: int = 100,
    ignore: Sequence[int] = (IGNORE_INDEX,),
    mapping: Mapping[Any, Any] | None = None,
    rounds: int = 2,
    tell: Callable[[str], None] = lambda text: None,
    steps: Steps | None = None,
) -> Tuning:
    """Search over (w_bilateral, theta_alpha, theta_beta, w_spatial) for the highest mean IoU; all else stays.

    ``labels`` is a folder, prefix or glob of images of class ids, paired with the input's images by file name without
    extension; ``ignore`` and ``mapping`` are those of ``ClassMap``. The network runs once over the first ``images``
    that have a label. The first setting has the parameters of ``spec``, completed by those of the weights. Raises
    ``SpecError`` if nothing can be paired, or no pixel of the labels counts.
    """
    steps = steps or Steps()
    job = resolve(spec.model_copy(update={"refiner": "densecrf", "refiner_weights": None}))
    job.source.check(job.shards)
    class_map = ClassMap(job.model.labels.names, ignore, mapping)
    truths = list_labels(Files(spec.storage_options), labels)
    records = list(itertools.islice(_labelled(job, set(truths)), images))
    if not records:
        raise SpecError(
            f"labels: none of the images has a label in {shown_uri(labels)}; labels are paired by file name without "
            f"extension, such as {next(iter(truths))!r}"
        )
    steps.begin("starting Ray")
    with cluster(spec) as hardware:
        pools = plan_pools(spec, hardware, -(-len(records) // _BATCH))
        tell(f"scoring {len(records)} images with {job.model.name}, weights {job.model.weights}")
        try:
            scored = _score(job, pools, records, steps)
            if not any(scored):
                raise SpecError(
                    f"inputs: the network scored none of the {len(records)} images; `segbatch run` tells the reasons"
                )
            batches = [(ray.put((part, [truths[stem(r.image_id)] for r in part])), len(part)) for part in scored]
            comparison = _Comparison(job, batches, class_map, steps)
            steps.begin("comparing the network's masks, images", len(records))
            network, unknown = comparison.network()
            for text in unknown.lines():
                tell(f"label {text}, count as nothing; the value is no class, and not one to --ignore")
            if not network.pixel_accuracy >= 0:  # NaN
                raise SpecError(
                    f"labels: no pixel in {shown_uri(labels)} counts; give other labels, or another --ignore"
                )
            tell(f"the network alone: mean IoU {network.mean_iou:.4f}")
            steps.begin("searching, images refined", settings_at_most(rounds) * len(records))
            settings = search(job.spec.crf, rounds, comparison.settings, tell)
        except ray.exceptions.RayError as e:
            raise failure(e) from e
    compared = sum(count for _, count in batches)
    return Tuning(spec, settings, network, compared, len(records) - compared)


class _Comparison:
    """Refines batches of scored records in Ray tasks, and compares the masks with labels."""

    def __init__(self, job: Job, batches: list[tuple[Any, int]], class_map: ClassMap, steps: Steps) -> None:
        self._job, self._batches, self._class_map, self._steps = job, batches, class_map, steps

    def network(self) -> tuple[Setting, UnknownValues]:
        """The network alone, and the label values that count as nothing."""
        (setting,), unknown = self._measure([None])
        return setting, unknown

    def settings(self, crfs: Sequence[CRFSpec]) -> list[Setting]:
        """A setting for each of ``crfs``, in order."""
        return self._measure(crfs)[0]

    def _measure(self, crfs: Sequence[CRFSpec | None]) -> tuple[list[Setting], UnknownValues]:
        """A task for each of ``crfs`` and each batch of images."""
        task = ray.remote(num_cpus=1)(_compare)
        files = Files(self._job.spec.storage_options)
        pending = {
            task.remote(batch, self._job.spec, crf, self._class_map, files): (crf, count)
            for crf in crfs
            for batch, count in self._batches
        }
        totals = {crf: Confusion(len(self._class_map.names)) for crf in crfs}
        unknown = UnknownValues()
        while pending:
            for ref in ray.wait(list(pending))[0]:
                crf, count = pending.pop(ref)
                confusion, values = ray.get(ref)
                totals[crf] += confusion
                unknown.merge(values)
                self._steps.advance(count)
        return [Setting(crf, total.mean_iou, total.pixel_accuracy) for crf, total in totals.items()], unknown


def _compare(
    batch: tuple[list[Record], list[str]], spec: JobSpec, crf: CRFSpec | None, class_map: ClassMap, files: Files
) -> tuple[Confusion, UnknownValues]:
    """What a task runs: refine a batch of scored records, and compare."""
    chosen = {"refiner": "none"} if crf is None else {"refiner": "densecrf", "crf": crf}
    refiner = refiners.build(spec.model_copy(update=chosen))
    total, unknown = Confusion(len(class_map.names)), UnknownValues()
    for record, uri in zip(*batch, strict=True):
        assert record.data is not None
        assert record.scores is not None
        mask, _ = refiner.refine(decode(record.data, spec.max_pixels), record.scores)
        truth, values = class_map.truth(read_label(files, uri))
        if truth.shape != mask.shape:
            raise SpecError(f"labels: {shown_uri(uri)} is {truth.shape}, its image {record.image_id} is {mask.shape}")
        total.add(truth, class_map.mask(mask))
        for value, pixels in values.items():
            unknown.add(value, pixels, record.image_id)
    return total, unknown


def _labelled(job: Job, stems: set[str]) -> Iterator[Record]:
    """The input's readable records that have a label, in order."""
    for shard in job.shards:
        for chunk in job.source.chunks(shard, _BATCH):
            yield from (r for r in chunk.records if r.data is not None and stem(r.image_id) in stems)


def _score(job: Job, pools: Pools, records: list[Record], steps: Steps) -> list[list[Record]]:
    """The records with their scores, in batches; those that failed are left out."""
    worker: Any = ray.remote(SegmentWorker)
    worker = worker.options(num_cpus=pools.segment_cpus, num_gpus=pools.segment_gpus)
    attempts = RayAttempts()
    workers = [worker.remote(job, pools, attempts, Logs.of(job.spec)) for _ in range(pools.segment_actors)]
    steps.begin("running the network, images", len(records))
    pending = {}
    for n, i in enumerate(range(0, len(records), _BATCH)):
        chunk = Chunk(ChunkId("tuning", n, False), records[i : i + _BATCH])
        pending[workers[n % len(workers)].__call__.remote(chunk.to_row())] = n
    batches: dict[int, list[Record]] = {}
    while pending:
        for ref in ray.wait(list(pending))[0]:
            scored = Chunk.from_row(ray.get(ref)).records
            batches[pending.pop(ref)] = [r for r in scored if r.scores is not None]
            steps.advance(len(scored))
    return [batches[n] for n in sorted(batches)]
