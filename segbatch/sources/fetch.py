"""Many small objects, read at once: what loose images and manifests share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from segbatch.chunk import Record
from segbatch.errors import RecordFailure
from segbatch.sources.io import Files

_CONCURRENT = 16


def fetch(
    files: Files, records: Iterable[tuple[int, Record, int | None]], limit: int, concurrent: int = _CONCURRENT
) -> Iterator[tuple[int, Record]]:
    """Numbered records with the bytes at their ``source``, or as error rows, in the order given.

    In: (number, record without bytes, size in bytes if known). At most ``concurrent`` objects are being read or
    wait to be taken. A record that has an error already is passed on. Error rows: see ``Files.read``.
    """

    def read(number: int, record: Record, size: int | None) -> tuple[int, Record]:
        if record.error is not None:
            return number, record
        try:
            return number, replace(record, data=files.read(record.source, limit, size))
        except RecordFailure as e:
            return number, record.failed(e.stage, e.kind, e.message)

    pool = ThreadPoolExecutor(concurrent, thread_name_prefix="segbatch-fetch")
    pending: deque[Future[tuple[int, Record]]] = deque()
    try:
        for item in records:
            if len(pending) == concurrent:
                yield pending.popleft().result()
            pending.append(pool.submit(read, *item))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
