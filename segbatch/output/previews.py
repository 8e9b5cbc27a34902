"""Previews: small images and masks of the network for reports, beside the rows and without effect on them.

Each chunk with sampled records has a file of its own, written before its rows. The end of a run merges these files into
one.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import OutputError
from segbatch.logs import event
from segbatch.output.layout import PREVIEWS, SAMPLE, STAGED, is_result
from segbatch.output.run_record import Claim
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY
from segbatch.records import Chunk, Preview, sample_key
from segbatch.storage.store import Store

logger = logging.getLogger(__name__)

_KEY = b"segbatch.previews"
_SCHEMA = pa.schema(
    [("image_id", pa.string()), ("chunk", pa.string()), ("photograph", pa.binary()), ("network", pa.binary())]
)
_READERS, _FILES_PER_BATCH = 16, 256


@dataclass(frozen=True)
class _Row:
    """A preview, and the name of the chunk that has the row of its image."""

    chunk: str
    preview: Preview

    @property
    def key(self) -> tuple[str, str]:
        return sample_key(self.preview.image_id), self.preview.image_id


def write_previews(store: Store, claim: Claim, chunk: Chunk) -> None:
    """Write the previews of a finished chunk, if it has any. The write is idempotent.

    A store that refuses it costs the previews, not the chunk; the log has an event then.

    Raises:
        OutputTaken: Another job has taken the output over.
    """
    rows = [_Row(chunk.id.filename, record.preview) for record in chunk.records if record.preview is not None]
    if rows:
        claim.check(store)
        try:
            store.write(f"{PREVIEWS}/{chunk.id.filename}", _to_parquet(rows, claim))
        except OutputError as e:
            event(logger, logging.WARNING, "previews not written", chunk=chunk.id.filename, error=str(e))


def read(store: Store, claim: Claim, committed: Set[str]) -> list[Preview]:
    """Read the previews of the images in ``committed`` chunks, once each, in the order of their ``sample_key``."""
    rows = _of_chunks(store, claim, committed, _parts(store)) + _read(store, claim, SAMPLE)
    return [row.preview for row in _current(rows, committed)]


def gather(store: Store, claim: Claim, committed: Set[str], count: int) -> None:
    """Merge the previews of all chunks into one file of the ``count`` images with the smallest ``sample_key``.

    Previews of chunks that are no longer committed are removed, but for those in the staging area.

    Raises:
        OutputTaken: Another job has taken the output over.
        OutputError: The storage fails.
    """
    parts = _parts(store)
    rows = _of_chunks(store, claim, committed, parts, count)
    sample = _read(store, claim, SAMPLE)  # after the chunks, because another process may be merging them
    kept = _current(rows + sample, committed)[:count]
    if not parts and len(kept) == len(sample):
        return
    claim.check(store)
    if kept:
        store.write(SAMPLE, _to_parquet(kept, claim))
    else:
        store.remove(SAMPLE)
    staged = set(store.names(STAGED)) - committed
    store.remove_all(f"{PREVIEWS}/{name}" for name in parts if name not in staged)
    store.remove_empty(PREVIEWS)


def is_previews(data: bytes) -> bool:
    """Whether a file was written by ``gather``."""
    try:
        return _KEY in (pq.read_schema(pa.BufferReader(data)).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _parts(store: Store) -> list[str]:
    return sorted(name for name in store.names(PREVIEWS) if is_result(name))


def _of_chunks(
    store: Store, claim: Claim, committed: Set[str], parts: list[str], count: int | None = None
) -> list[_Row]:
    """Read the files of chunks, and return the first ``count`` rows; holds these, and those of one batch of files."""
    rows: list[_Row] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(parts), _FILES_PER_BATCH):
            names = [f"{PREVIEWS}/{name}" for name in parts[start : start + _FILES_PER_BATCH]]
            batch = itertools.chain.from_iterable(pool.map(lambda name: _read(store, claim, name), names))
            rows = _current([*rows, *batch], committed)[:count]
    return rows


def _current(rows: Iterable[_Row], committed: Set[str]) -> list[_Row]:
    """Return the rows of committed chunks in order, the first of each image."""
    by_image: dict[str, _Row] = {}
    for row in rows:
        if row.chunk in committed:
            by_image.setdefault(row.preview.image_id, row)
    return sorted(by_image.values(), key=lambda row: row.key)


def _read(store: Store, claim: Claim, name: str) -> list[_Row]:
    """Read a file; nothing from one that is gone, damaged, or of another job."""
    with suppress(FileNotFoundError):
        data = store.read(name)
        try:
            table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            metadata = json.loads((table.schema.metadata or {})[_KEY])
            if metadata["fingerprint"] == claim.fingerprint:
                return [_Row(row.pop("chunk"), Preview(**row)) for row in table.select(_SCHEMA.names).to_pylist()]
        except (pa.ArrowException, OSError, LookupError, ValueError, TypeError) as e:
            event(logger, logging.WARNING, "previews not readable", file=f"{store.uri}/{name}", error=str(e))
    return []


def _to_parquet(rows: Iterable[_Row], claim: Claim) -> bytes:
    metadata = json.dumps({VERSION_KEY: FORMAT_VERSION, "fingerprint": claim.fingerprint})
    plain = [{"chunk": row.chunk, **vars(row.preview)} for row in rows]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(plain, schema=_SCHEMA.with_metadata({_KEY: metadata}))
    pq.write_table(table, sink, compression="NONE", write_page_checksum=True)
    return sink.getvalue().to_pybytes()
