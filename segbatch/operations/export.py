"""``segbatch export``: the masks of an output as files that other tools read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from segbatch.config.base import refuse_blank
from segbatch.config.job import JobSpec
from segbatch.errors import OutputError, SpecError, StorageError
from segbatch.exports import EXPORTS
from segbatch.exports.finish import finish_export
from segbatch.exports.format import Images, PartCounts
from segbatch.exports.options import ExportOptions
from segbatch.exports.part import ExportJob, write_part
from segbatch.exports.plan import identity, join, missing_parts, plan_export, target_folder
from segbatch.logs import LogReporter
from segbatch.output.output import Output
from segbatch.planning.nesting import refuse_target
from segbatch.protocols import Reporter
from segbatch.results.originals import Originals
from segbatch.storage.store import Store

# Fewer images are exported in this process, before Ray would have started.
_MIN_IMAGES_FOR_RAY = 2000


@dataclass(frozen=True)
class ExportResult:
    """An export.

    Attributes:
        output: URI of the output, redacted.
        target: URI of the export, redacted.
        to: Name of the format.
        counts: What it holds, and what it leaves out.
        classes: Names of its classes, in order of their ids.
        usage: How it is loaded.
        is_partial: Whether the run that writes the output is not finished.
    """

    output: str
    target: str
    to: str
    counts: PartCounts
    classes: tuple[str, ...]
    usage: str
    is_partial: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def export(
    output: str,
    *,
    to: str,
    target: str,
    classes: Sequence[str] = (),
    class_map: Mapping[str, str] | None = None,
    min_area: int = 0,
    void_below: float = 0.0,
    images: Images | None = None,
    instances: bool = False,
    split: str = "train",
    image_root: str | None = None,
    image_ids: Collection[str] | None = None,
    inputs: Sequence[str] | None = None,
    address: str | None = None,
    storage_options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> ExportResult:
    """Write the masks of an output in the format of another tool.

    A killed export resumes with the same call, and two at once write the same files. Large exports run on Ray. Error
    rows are in no export: their ids and reasons are in ``errors.jsonl``. ``names.parquet`` has the file name and number
    of each image, ``_export.json`` the options and counts; it is written last.

    Args:
        output: The output of a run, finished or not.
        to: Name of the format, see ``segbatch export --help``.
        target: Folder or prefix for the export, empty or with a part of this export.
        classes: Classes to keep, each alone or several with commas; others become background, or ignored pixels if no
            class is the background.
        class_map: Class -> class that it is merged into, which may be a new name, or ``ignore``; before ``classes``.
        min_area: Areas of fewer pixels become background, or ignored pixels: of a class in an image, with
            ``instances`` of a connected component.
        void_below: Pixels of a class whose mean confidence in the image is lower become ignored pixels.
        images: ``copy`` the photographs, ``link`` those that are files of this machine, or ``none``.
        instances: An annotation is one connected component, instead of a class in an image.
        split: Name of the split, for formats that have splits.
        image_root: Folder or URL below which an annotation tool finds the photographs.
        image_ids: The images to export; all of them unless given.
        inputs: Where the inputs of the run are now, if they were moved: photographs are read from there.
        address: Ray cluster; by default this machine.
        storage_options: Passed to fsspec, for the output, the inputs and the target.
        reporter: Receives messages about the work.

    Raises:
        SpecError: An option is not valid for the output or the format.
        PlanError: ``target`` holds something else, or lies within the output or an input.
    """
    refuse_blank(output=output, target=target, address=address, image_root=image_root)
    options = ExportOptions(
        to, tuple(classes), dict(class_map or {}), min_area, void_below, images, instances, split, image_root
    )
    options.check()
    EXPORTS[to]
    reporter = reporter or LogReporter()
    source, store = Output.open(output, storage_options), Store(target, storage_options)
    refuse_target(target, output, [*(inputs or source.record.inputs)], storage_options)
    reporter.phase("reading image ids")
    try:
        originals = Originals(source, inputs=inputs, storage_options=storage_options)
        wanted = None if image_ids is None else frozenset(image_ids)
        job = _with_available_photographs(plan_export(source, store, options, wanted, originals), reporter)
        requested = identity(job, options)
        done = join(store, requested)
        counts = _export(job, requested, address, reporter) if done is None else _completed(job, done)
    finally:
        reporter.closed()
    form = EXPORTS[to]
    return ExportResult(
        output=source.uri,
        target=store.uri,
        to=to,
        counts=counts,
        classes=job.context.labels.names,
        usage=form.usage(job.context),
        is_partial=source.record.state != "done",
    )


def _with_available_photographs(job: ExportJob, reporter: Reporter) -> ExportJob:
    """Return the job without photographs if the inputs are not available. Raises ``SpecError`` if they are needed."""
    if job.originals is None or not (problem := job.originals.problem):
        return job
    if EXPORTS[job.format].needs_images:
        raise SpecError(f"--to {job.format}: needs the images, and they are not available: {problem}")
    reporter.warning(f"the images are not available, masks are exported alone: {problem}")
    return replace(job, originals=None, context=replace(job.context, images="none"))


def _export(job: ExportJob, requested: dict[str, Any], address: str | None, reporter: Reporter) -> PartCounts:
    """Write the missing parts and finish; also if another process finishes the export meanwhile."""
    try:
        parts = list(missing_parts(job))
        reporter.phase("exporting, files", len(parts))
        for _ in _written(job, parts, address):
            reporter.advanced()
        reporter.phase("joining")
        if (done := join(job.target, requested)) is None:
            return finish_export(job, requested)
    except (OutputError, StorageError):
        if (done := join(job.target, requested)) is None:
            raise
    return _completed(job, done)


def _completed(job: ExportJob, done: dict[str, Any]) -> PartCounts:
    """Return what an export holds that another call has finished, perhaps without removing its state."""
    target_folder(job).remove_state()
    return PartCounts(**done["counts"])


def _written(job: ExportJob, parts: Sequence[int], address: str | None) -> Iterator[object]:
    """Write parts in this process, or in Ray tasks if there are many images or Ray is there."""
    if address is None and (len(parts) < 2 or job.context.total < _MIN_IMAGES_FOR_RAY):
        yield from (write_part(job, i) for i in parts)
        return
    from segbatch.ray_backend.connection import cluster
    from segbatch.ray_backend.tasks import map_tasks, shared

    with cluster(JobSpec.create(inputs=[job.output.uri], address=address)) as hardware:
        common = shared(job)
        yield from map_tasks(write_part, ((common, i) for i in parts), 2 * int(hardware.cpus))
