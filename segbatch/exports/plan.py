"""Plan an export: its parts, names and numbers; what it is compared with when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError, SpecError
from segbatch.exports import EXPORTS
from segbatch.exports.folder import DONE, PLAN, TargetFolder
from segbatch.exports.format import ExportContext, Format
from segbatch.exports.names import Names, name_hashes
from segbatch.exports.options import ExportOptions
from segbatch.exports.part import ExportJob, Part
from segbatch.exports.selection import Selection
from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.output.run_record import differences
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY, check_version
from segbatch.records import digest
from segbatch.results.originals import Originals
from segbatch.storage.store import Store
from segbatch.text import escape_control_characters

_READERS = 16
_MAX_NAMED = 3
_HAS_MASK = pc.field("error").is_null()


@dataclass(frozen=True)
class _Ids:
    """The exported images of one file: their number, and their name hashes."""

    count: int
    hashes: np.ndarray


def plan_export(
    output: Output, target: Store, options: ExportOptions, image_ids: frozenset[str] | None, originals: Originals
) -> ExportJob:
    """List what is exported, and give each image a number and a name.

    Reads the column of ids once; holds 16 bytes per image.

    Raises:
        SpecError: The format cannot hold this, or a class or an image does not exist.
    """
    form = EXPORTS[options.to]
    selection = Selection.of(output.record.labels, options)
    files = output.ledger().files()
    with ThreadPoolExecutor(_READERS) as pool:
        ids = list(pool.map(lambda file: _ids(output, file, image_ids, form.reserved_folders), files))
    firsts = np.cumsum([1, *(each.count for each in ids)]).tolist()
    if image_ids is not None and firsts[-1] <= len(image_ids):
        raise SpecError(_unknown(output, files, image_ids))
    context = _context(output, target, options, selection, firsts[-1] - 1)
    _check(form, context)
    if context.images == "link" and not target.local:
        raise SpecError(f"--images link: {target.uri} is not a folder of this machine; give --images copy or none")
    return ExportJob(
        output=output,
        target=target,
        format=options.to,
        context=context,
        selection=selection,
        names=Names.of((each.hashes for each in ids), form.reserved_folders),
        parts=tuple(Part(f"{i:05d}", file, firsts[i]) for i, file in enumerate(files)),
        originals=None if context.images == "none" else originals,
        image_ids=image_ids,
        max_pixels=int(output.record.spec.get("max_pixels", JobSpec.model_fields["max_pixels"].default)),
    )


def _ids(output: Output, file: ResultFile, image_ids: frozenset[str] | None, reserved: frozenset[str]) -> _Ids:
    hashes = [np.zeros((0, 2), np.uint64)]
    for batch in output.batches(["image_id", "error"], _HAS_MASK, files=[file]):
        names = batch["image_id"].to_pylist()
        hashes.append(name_hashes((name for name in names if image_ids is None or name in image_ids), reserved))
    joined = np.concatenate(hashes)
    return _Ids(len(joined), joined)


def _unknown(output: Output, files: Sequence[ResultFile], image_ids: frozenset[str]) -> str:
    unknown = set(image_ids)
    for batch in output.batches(["image_id", "error"], _HAS_MASK, files=files):
        unknown.difference_update(batch["image_id"].to_pylist())
    others = f", and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
    return (
        f"--image-ids: {min(unknown)!r} is in no row with a mask of {output.uri}{others}; `segbatch errors` lists the "
        "error rows"
    )


def _context(output: Output, target: Store, options: ExportOptions, selection: Selection, total: int) -> ExportContext:
    record = output.record
    return ExportContext(
        labels=selection.labels,
        images=options.images or EXPORTS[options.to].default_images,
        split=options.split,
        instances=options.instances,
        total=total,
        background=selection.background,
        void=selection.void,
        source=output.uri,
        target=target.uri,
        fingerprint=record.fingerprint,
        image_root=options.image_root or "",
        model=str(record.spec.get("model", "")),
    )


def _check(form: Format, context: ExportContext) -> None:
    if len(context.labels) > form.max_classes:
        raise SpecError(
            f"--to {form.name}: holds at most {form.max_classes} classes, the export has {len(context.labels)}; select "
            "some with --classes, or merge them with --class-map"
        )
    if context.instances and not form.has_instances:
        with_instances = [name for name in EXPORTS if EXPORTS[name].has_instances]
        raise SpecError(f"--instances: {form.name} has no instances; formats that do: {', '.join(with_instances)}")
    if context.image_root and not form.has_image_urls:
        with_urls = [name for name in EXPORTS if EXPORTS[name].has_image_urls]
        raise SpecError(f"--image-root: {form.name} has no URLs of images; formats that do: {', '.join(with_urls)}")
    if context.images == "none" and form.needs_images:
        raise SpecError(f"--images none: readers of {form.name} need the images; give --images copy or link")
    if context.images == "link" and form.image_folder is None:
        raise SpecError(f"--images link: {form.name} holds images in its own files; give --images copy or none")
    form.check(context)


def identity(job: ExportJob, options: ExportOptions) -> dict[str, Any]:
    """Return all that decides the content of an export."""
    given = options.to_json()
    return {
        "output": {
            "uri": job.output.uri,
            "fingerprint": job.output.record.fingerprint,
            "files": len(job.parts),
            "content": digest(*(f"{part.file.name} {part.file.ranges}" for part in job.parts), length=16),
        },
        "images": job.context.total,
        "options": {**given, "images": job.context.images},
        "image_ids": "all" if job.image_ids is None else digest(*sorted(job.image_ids), length=16),
    }


def join(target: Store, requested: dict[str, Any]) -> dict[str, Any] | None:
    """Begin an export in a folder, or resume it there.

    Returns:
        The content of ``_export.json`` if this export is complete there.

    Raises:
        PlanError: The folder holds another export, or files that are not an export.
    """
    existing = _read(target, DONE) or _read(target, PLAN)
    if existing is None:
        if names := TargetFolder(target).foreign():
            shown = ", ".join(map(escape_control_characters, names[:_MAX_NAMED]))
            others = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            raise PlanError(f"{target.uri}: is not empty ({shown}{others}); choose another --output for the export")
        plain: dict[str, Any] = {VERSION_KEY: FORMAT_VERSION, "export": requested}
        if target.create(PLAN, json.dumps(plain, indent=1).encode()):
            return None
        existing = _read(target, DONE) or _read(target, PLAN) or plain
    if different := differences(existing["export"], requested):
        if existing["export"]["output"].get("content") != requested["output"]["content"]:
            different.append("a run or `segbatch compact` has changed the output since, or it is another one")
        raise PlanError(
            f"{target.uri}: holds another export: {'; '.join(different)}; choose another --output for this one"
        )
    return existing if "counts" in existing else None


def _read(target: Store, name: str) -> dict[str, Any] | None:
    try:
        plain = json.loads(target.read(name))
        check_version(plain.get(VERSION_KEY), f"{target.uri}/{name}")
        if not isinstance(plain["export"]["options"], dict):
            raise ValueError("its options are not a mapping")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise PlanError(
            f"{target.uri}/{name}: not the record of an export ({type(e).__name__}: {e}); choose another --output"
        ) from None
    return dict(plain)


def missing_parts(job: ExportJob) -> Iterator[int]:
    """Yield the positions of the parts that are not complete."""
    complete = target_folder(job).complete_parts()
    return (i for i, part in enumerate(job.parts) if part.name not in complete)


def target_folder(job: ExportJob) -> TargetFolder:
    """Return the folder in which the export is finished."""
    names: Sequence[str] = [part.name for part in job.parts]
    return TargetFolder(job.target, names)
