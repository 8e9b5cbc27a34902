"""Read the rows of an output once, without their masks, for its summary and the sample of its images."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from segbatch.output.output import Output
from segbatch.output.result_file import ResultFile
from segbatch.output.row_reader import RowReader
from segbatch.protocols import Reporter
from segbatch.report.sampling import Sampler
from segbatch.report.summary import COLUMNS, Counts, Summary
from segbatch.results.row import MaskRow

_READERS = 8


def scan(output: Output, files: Sequence[ResultFile], summary: Summary, sampler: Sampler, reporter: Reporter) -> None:
    """Add all rows of some files to a summary and a sampler. Holds the columns of ``_READERS`` files at a time."""
    for file, batches in enumerate(_in_order(output, files)):
        start = 0
        for batch in batches:
            counts = Counts.of(batch)
            summary.add(batch, counts)
            sampler.add(batch, counts, file, start)
            start += batch.num_rows
        reporter.advanced()


def read_rows(output: Output, files: Sequence[ResultFile], places: Sequence[tuple[int, int]]) -> list[MaskRow]:
    """Read whole rows by (index of the file, position in it), in the order given."""
    reader, by_file = RowReader(output.store), defaultdict[int, list[int]](list)
    for place, (file, _) in enumerate(places):
        by_file[file].append(place)

    def read(file: int) -> list[dict[str, Any]]:
        return reader.read(files[file], [places[place][1] for place in by_file[file]]).to_pylist()

    with ThreadPoolExecutor(_READERS) as pool:
        of_file = dict(zip(by_file, pool.map(read, by_file), strict=True))
    rows = {place: row for file in by_file for place, row in zip(by_file[file], of_file[file], strict=True)}
    labels = output.record.labels
    return [MaskRow.from_dict(rows[place], labels) for place in range(len(places))]


def _in_order(output: Output, files: Sequence[ResultFile]) -> Iterator[list[pa.RecordBatch]]:
    """Yield the batches of each file in order, while those of the next files are read."""

    def read(file: ResultFile) -> list[pa.RecordBatch]:
        return list(output.batches(COLUMNS, files=[file]))

    waiting: deque[Future[list[pa.RecordBatch]]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        for file in files:
            waiting.append(pool.submit(read, file))
            if len(waiting) == _READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
