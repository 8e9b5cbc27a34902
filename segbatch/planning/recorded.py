"""The job that run.json of an output keeps, and its inputs as they are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segbatch.config.job import JobSpec
from segbatch.output.run_record import RunRecord
from segbatch.planning.job import open_inputs
from segbatch.records import Corpus
from segbatch.sources import OutsideRoot, Source

SHARD_NAMES_SINCE = 3  # rows version: shards of earlier outputs have other names


def recorded_spec(
    record: RunRecord,
    inputs: Sequence[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> JobSpec:
    """Return the job that run.json keeps, without settings of the machine that ran it."""
    fields = {name: value for name, value in record.spec.items() if name in JobSpec.names("rows", "limit")}
    where = list(inputs or record.inputs)  # absolute, unlike those of the spec
    return JobSpec.create(**{**fields, "inputs": where, "storage_options": dict(storage_options or {}), **overrides})


def list_recorded(
    record: RunRecord, inputs: Sequence[str] | None = None, storage_options: Mapping[str, Any] | None = None
) -> tuple[Source, Corpus]:
    """List the inputs of an output again.

    Args:
        inputs: Where the inputs are now; None for those of the run.
        storage_options: Options for fsspec.

    Raises:
        SegbatchError: The inputs cannot be listed.
    """
    source = open_inputs(recorded_spec(record, inputs, storage_options), is_resumed=True)
    try:
        return source, source.corpus(record.identity["root"])
    except OutsideRoot:
        if inputs is None:
            raise
        return source, source.corpus()  # the whole corpus was moved
