"""Many small objects, read at once: what loose images and manifests share."""

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
    """What reads one object: ``Files``, or what knows more of where the objects lie."""

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        """See ``Files.read``."""
        ...


def fetch(
    files: Reader, wanted: Iterable[tuple[Record, str, int | None]], limit: int, concurrent: int = CONCURRENT
) -> Iterator[tuple[int, Record]]:
    """(index, record with its bytes or as an error row), in the order given.

    In: (record without bytes, URI of its bytes, their size if known). At most ``concurrent`` objects are being read or
    wait to be taken. A record that has its bytes or an error already is passed on. Error rows: see ``Files.read``.
    """

    def read(record: Record, uri: str, size: int | None) -> tuple[int, Record]:
        if _is_complete(record):
            return record.index, record
        try:
            return record.index, replace(record, data=files.read(uri, limit, size))
        except RecordFailure as e:
            return record.index, record.failed(e.stage, e.type, e.message)

    pool = ThreadPoolExecutor(concurrent, thread_name_prefix="segbatch-fetch")
    pending: deque[Future[tuple[int, Record]]] = deque()
    try:
        for item in wanted:
            if not pending and _is_complete(item[0]):  # held by nobody
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
    with ThreadPoolExecutor(min(len(names), CONCURRENT) or 1) as pool:
        for _ in pool.map(change, names):
            pass


def _is_complete(record: Record) -> bool:
    return record.data is not None or record.error is not None
