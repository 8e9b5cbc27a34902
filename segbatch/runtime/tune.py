"""Dense CRF parameters chosen on labelled images: coarse to fine, as DeepLab does (Chen et al. 2015, sec. 4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import yaml

from segbatch import refiners
from segbatch.chunk import Chunk, ChunkId, Record
from segbatch.errors import SpecError
from segbatch.metrics.confusion import Confusion
from segbatch.runtime.attempts import RayAttempts
from segbatch.runtime.cluster import cluster
from segbatch.runtime.failures import failure
from segbatch.runtime.log import Logs
from segbatch.runtime.pipeline import SegmentWorker
from segbatch.runtime.planning import Job, resolve
from segbatch.runtime.resources import Pools, plan_pools
from segbatch.sources.decode import decode
from segbatch.sources.io import Files, shown_uri
from segbatch.sources.labels import list_labels, read_label, stem
from segbatch.spec import CRFSpec, JobSpec

# DeepLab searches w1 in [5, 10], theta_alpha in [50, 100], theta_beta in [3, 10], with a spatial kernel. Scores of
# stride 4, sharper than its 8, want smaller ones, and no spatial kernel, which wears thin things away.
_COARSE = {
    "w_bilateral": (2.0, 5.0, 8.0),
    "theta_alpha": (10.0, 30.0, 80.0),
    "theta_beta": (3.0, 5.0, 9.0),
    "w_spatial": (0.0, 3.0),
}
_STEPS = {"w_bilateral": 1.0, "theta_alpha": 10.0, "theta_beta": 1.0}
_BATCH = 8


@dataclass(frozen=True)
class Setting:
    """One set of parameters and what it reached. ``crf`` is None for the network alone."""

    crf: CRFSpec | None
    mean_iou: float
    pixel_accuracy: float


@dataclass(frozen=True)
class Tuning:
    """What was tried, best first; ``images`` were compared, ``failed`` gave no scores."""

    settings: list[Setting]
    network: Setting
    images: int
    failed: int

    @property
    def best(self) -> CRFSpec:
        """The parameters of the highest mean IoU."""
        crf = self.settings[0].crf
        assert crf is not None
        return crf

    def to_yaml(self) -> str:
        """The best parameters as a configuration that ``segbatch run --config`` takes."""
        comment = f"# mean IoU {self.settings[0].mean_iou:.4f} on {self.images} images; network alone {self.network.mean_iou:.4f}\n"  # noqa: E501
        return comment + yaml.safe_dump({"refiner": "densecrf", "crf": self.best.model_dump()}, sort_keys=False)


def tune(
    spec: JobSpec,
    labels: str,
    *,
    images: int = 100,
    ignore_index: int = 255,
    rounds: int = 2,
    tell: Callable[[str], None] = lambda text: None,
) -> Tuning:
    """Search over (w_bilateral, theta_alpha, theta_beta, w_spatial) for the highest mean IoU; all else stays.

    ``labels`` is a folder, prefix or glob of images of class ids, paired with the input's images by file name without
    extension. The network runs once over the first ``images`` that have a label; each round then tries the neighbours
    of the best setting at half the step. Raises ``SpecError`` if nothing can be paired.
    """
    job = resolve(spec)
    truths = list_labels(Files(spec.storage_options), labels)
    records = list(itertools.islice(_labelled(job, set(truths)), images))
    if not records:
        raise SpecError(
            f"labels: none of the images has a label in {shown_uri(labels)}; labels are paired by file name without "
            f"extension, such as {next(iter(truths))!r}"
        )
    with cluster(spec) as hardware:
        pools = plan_pools(spec, hardware, -(-len(records) // _BATCH))
        tell(f"scoring {len(records)} images with {job.model.name}")
        try:
            scored, failed = _score(job, pools, records)
            batches = [ray.put((part, [truths[stem(r.image_id)] for r in part])) for part in scored]
            (network,) = _measure(job, [None], batches, ignore_index)
            tell(f"the network alone: mean IoU {network.mean_iou:.4f}")
            settings = _search(job, batches, ignore_index, rounds, tell)
        except ray.exceptions.RayError as e:
            raise failure(e) from e
    return Tuning(settings, network, len(records) - failed, failed)


def _search(job: Job, batches: list[Any], ignore_index: int, rounds: int, tell: Callable[[str], None]) -> list[Setting]:
    base = job.spec.crf
    grid = [
        base,
        *(base.model_copy(update=dict(zip(_COARSE, p, strict=True))) for p in itertools.product(*_COARSE.values())),
    ]
    tried: dict[CRFSpec, Setting] = {}
    steps = dict(_STEPS)
    for turn in range(rounds + 1):
        new = [crf for crf in dict.fromkeys(grid) if crf not in tried]
        tried |= {s.crf: s for s in _measure(job, new, batches, ignore_index) if s.crf is not None}
        best = max(tried.values(), key=lambda s: s.mean_iou)
        assert best.crf is not None
        tell(f"round {turn + 1} of {rounds + 1}: {len(new)} settings, best mean IoU {best.mean_iou:.4f}")
        grid = list(_neighbours(best.crf, steps))
        steps = {name: step / 2 for name, step in steps.items()}
    return sorted(tried.values(), key=lambda s: -s.mean_iou)


def _neighbours(crf: CRFSpec, steps: dict[str, float]) -> Iterator[CRFSpec]:
    """One step up and down of each parameter, and of all combinations."""
    for signs in itertools.product((-1, 0, 1), repeat=len(steps)):
        moved = {n: getattr(crf, n) + s * step for s, (n, step) in zip(signs, steps.items(), strict=True)}
        if all(value > 0 for value in moved.values()):
            yield crf.model_copy(update=moved)


def _measure(job: Job, crfs: Sequence[CRFSpec | None], batches: list[Any], ignore_index: int) -> Iterator[Setting]:
    """A setting for each of ``crfs``, in order; a task for each and each batch of images."""
    classes = len(job.model.labels)
    task = ray.remote(num_cpus=1)(_confusion)
    files = Files(job.spec.storage_options)
    pending = [[task.remote(batch, job.spec, crf, classes, ignore_index, files) for batch in batches] for crf in crfs]
    for crf, parts in zip(crfs, pending, strict=True):
        total = Confusion(classes, ignore_index)
        for part in ray.get(parts):
            total += part
        yield Setting(crf, total.mean_iou, total.pixel_accuracy)


def _confusion(
    batch: tuple[list[Record], list[str]], spec: JobSpec, crf: CRFSpec | None, classes: int, ignore: int, files: Files
) -> Confusion:
    """What a task runs: refine a batch of scored records, and compare."""
    chosen = {"refiner": "none"} if crf is None else {"refiner": "densecrf", "crf": crf}
    refiner = refiners.build(spec.model_copy(update={**chosen, "refiner_weights": None}))
    total = Confusion(classes, ignore)
    for record, uri in zip(*batch, strict=True):
        assert record.data is not None
        assert record.scores is not None
        mask, _ = refiner.refine(decode(record.data, spec.max_pixels), record.scores)
        truth = read_label(files, uri)
        if truth.shape != mask.shape:
            raise SpecError(f"labels: {shown_uri(uri)} is {truth.shape}, its image {record.image_id} is {mask.shape}")
        total.add(truth, mask)
    return total


def _labelled(job: Job, stems: set[str]) -> Iterator[Record]:
    """The input's readable records that have a label, in order."""
    for shard in job.shards:
        for chunk in job.source.chunks(shard, _BATCH):
            yield from (r for r in chunk.records if r.data is not None and stem(r.image_id) in stems)


def _score(job: Job, pools: Pools, records: list[Record]) -> tuple[list[list[Record]], int]:
    """The records with their scores, in batches; how many failed."""
    worker: Any = ray.remote(SegmentWorker)
    worker = worker.options(num_cpus=pools.segment_cpus, num_gpus=pools.segment_gpus)
    attempts = RayAttempts()
    workers = [worker.remote(job, pools, attempts, Logs.of(job.spec)) for _ in range(pools.segment_actors)]
    pending = []
    for n, i in enumerate(range(0, len(records), _BATCH)):
        chunk = Chunk(ChunkId("tuning", n, False), records[i : i + _BATCH])
        pending.append(workers[n % len(workers)].__call__.remote(chunk.to_row()))
    batches = [[r for r in Chunk.from_row(row).records if r.scores is not None] for row in ray.get(pending)]
    return batches, len(records) - sum(map(len, batches))


def rows(tuning: Tuning, most: int = 10) -> Iterable[tuple[str, ...]]:
    """The table: the parameters that were searched, mean IoU, pixel accuracy; the network alone comes first."""
    for setting in (tuning.network, *tuning.settings[:most]):
        crf = setting.crf
        named = [f"{getattr(crf, name):g}" for name in _COARSE] if crf else ["no CRF", *[""] * (len(_COARSE) - 1)]
        yield (*named, f"{setting.mean_iou:.4f}", f"{setting.pixel_accuracy:.4f}")
