"""The rows of an output as a ``pyarrow.dataset``, for query engines."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.output.row_reader import RowReader


def arrow_dataset(output: Output, files: list[ResultFile], schema: pa.Schema) -> pads.Dataset:
    """Return the current rows of ``files`` as a dataset on any store, whose scans push columns and filters down.

    Rows of merged files that a newer file supersedes, which exist while ``compact`` runs or after it was killed, are
    left out: of these files the row groups without such rows are scanned, and the current rows of the others are held
    in memory.
    """
    file_system, format = output.store.arrow_file_system(), pads.ParquetFileFormat()
    fragments, tables = [], []
    reader = RowReader(output.store)
    for file in files:
        fragment = format.make_fragment(output.path_of(file.name), file_system)
        if file.ranges is None:
            fragments.append(fragment)
            continue
        whole, rest = _split(file, reader.row_group_sizes(file))
        if whole:
            fragments.append(fragment.subset(row_group_ids=whole))
        if len(rest):
            tables.append(reader.read(file, rest))
    stored = pads.FileSystemDataset(fragments, schema, format, file_system)
    return pads.dataset([stored, pads.dataset(pa.concat_tables(tables))]) if tables else stored


def _split(file: ResultFile, sizes: list[int]) -> tuple[list[int], np.ndarray]:
    """Return the row groups all of whose rows are current, and the places of the current rows of the others."""
    positions = np.arange(sum(stop - start for start, stop in file.ranges or ()))
    groups = np.searchsorted(np.cumsum(sizes), file.stored(positions), "right")
    whole = np.flatnonzero(np.bincount(groups, minlength=len(sizes)) == sizes)
    return [int(group) for group in whole], positions[~np.isin(groups, whole)]
