"""Concurrent reads of many small objects, for loose images and manifests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from segbatch.errors import RecordFailure
from segbatch.records import Record

CONCURRENT = 16


class Reader(Protocol):
    """Reads one object: ``Files``, or a reader that knows more about where the objects are."""

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        """See ``Files.read``."""
        ...


def fetch(
    files: Reader, wanted: Iterable[tuple[Record, str, int | None]], limit: int, concurrent: int = CONCURRENT
) -> Iterator[tuple[int, Record]]:
    """Yield (index, record with its bytes or an error), in the order given.

    Args:
        files: Reads one object; its ``RecordFailure`` becomes the record's error.
        wanted: (record without bytes, URI of its bytes, their size if known). A record that already has its bytes or
            an error is yielded unchanged.
        limit: Maximum size of an object in bytes.
        concurrent: Maximum number of objects that are being read or have not been consumed yet.
    """

    def read(record: Record, uri: str, size: int | None) -> tuple[int, Record]:
        if _is_finished(record):
            return record.index, record
        try:
            return record.index, replace(record, data=files.read(uri, limit, size))
        except RecordFailure as e:
            return record.index, record.failed(e.stage, e.type, e.message)

    pool = ThreadPoolExecutor(concurrent, thread_name_prefix="segbatch-fetch")
    pending: deque[Future[tuple[int, Record]]] = deque()
    try:
        for item in wanted:
            if not pending and _is_finished(item[0]):  # nothing precedes it
                yield item[0].index, item[0]
                continue
            if len(pending) == concurrent:
                yield pending.popleft().result()
            pending.append(pool.submit(read, *item))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def for_each(change: Callable[[str], None], names: Sequence[str]) -> None:
    """Call ``change`` with each of ``names``, several at once."""
    if len(names) == 1:
        change(names[0])
        return
    with ThreadPoolExecutor(min(len(names), CONCURRENT) or 1) as pool:
        for _ in pool.map(change, names):
            pass


def _is_finished(record: Record) -> bool:
    return record.data is not None or record.error is not None
