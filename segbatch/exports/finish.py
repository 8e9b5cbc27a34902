"""Finish an export: what belongs to all images, errors, names, and the record that it is complete."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segbatch.exports import EXPORTS
from segbatch.exports.folder import DONE, ERRORS, NAMES, ROWS, TargetFolder
from segbatch.exports.format import PartCounts
from segbatch.exports.part import ExportJob
from segbatch.exports.plan import target_folder
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY

_NAME_COLUMNS = ["image_id", "file", "number", "image"]
_ERROR_COLUMNS = ["image_id", "stage", "type", "message"]


def finish_export(job: ExportJob, identity: dict[str, Any]) -> PartCounts:
    """Write the rest of an export whose parts are complete; ``_export.json`` comes last.

    Streams: holds one part.

    Raises:
        OutputError: Another process has finished this export meanwhile, or the store fails.
    """
    folder = target_folder(job)
    counts = folder.counts()
    EXPORTS[job.format].finish(folder, job.context)
    _write_names(folder)
    _write_errors(folder, counts.errors + counts.left_out)
    plain = {VERSION_KEY: FORMAT_VERSION, "export": identity, "counts": vars(counts)}
    folder.write(DONE, json.dumps(plain, indent=1).encode())
    folder.remove_state()
    return counts


def _write_names(folder: TargetFolder) -> None:
    schema = pa.schema([ROWS.field(name) for name in _NAME_COLUMNS])
    with folder.open(NAMES) as f, pq.ParquetWriter(f, schema, compression="zstd") as writer:
        for rows in folder.rows():
            writer.write_table(rows.filter(pc.field("file").is_valid()).select(_NAME_COLUMNS))


def _write_errors(folder: TargetFolder, count: int) -> None:
    if not count:
        return
    with folder.open(ERRORS) as f:
        for rows in folder.rows():
            for row in rows.filter(pc.field("file").is_null()).select(_ERROR_COLUMNS).to_pylist():
                f.write(json.dumps(row).encode() + b"\n")
