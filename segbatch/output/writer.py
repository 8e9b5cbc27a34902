"""Commits one chunk's rows as one Parquet file, all or nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.output.layout import MASKS
from segbatch.output.receipt import FOOTER_KEY, Receipt, digest_of
from segbatch.output.run_record import Claim, OutputTaken
from segbatch.output.schema import compression, to_table
from segbatch.output.totals import Totals
from segbatch.records import Chunk
from segbatch.storage.store import Store

SEAL_KEY = b"segbatch.digest"
_NO_SEAL = b"?" * 32


class Writer:
    """Publishes chunks of the job that holds ``claim`` into ``folder`` of one output."""

    def __init__(self, store: Store, claim: Claim, folder: str = MASKS) -> None:
        self.store, self.claim, self.folder = store, claim, folder

    def commit(self, chunk: Chunk) -> Receipt:
        """Publish one finished chunk's rows as one Parquet object, all or nothing.

        The name follows from ``chunk.id`` alone, so publishing twice is harmless: this is what makes a retry
        after a lost worker safe. Raises ``OutputError`` if the store refuses the write, and ``OutputTaken`` if
        another job has the output, before the write or after it; this chunk is then not in the output.
        """
        totals = Totals(self.claim.num_classes)
        for record in chunk.records:
            if record.mask is not None:
                totals.add_image(record.classes)
            elif record.error is not None:
                totals.add_error(record.error.stage, record.error.type)
            else:
                raise ValueError(f"{record.image_id}: neither a mask nor an error")
        receipt = Receipt(chunk.id.filename, self.claim.fingerprint, totals, 0, chunk.timings, chunk.skipped)
        data = to_parquet(to_table(chunk.records, has_marginal=self.claim.has_marginal), receipt.footer())
        self.claim.check(self.store)
        tag = publish_claimed(self.store, self.claim, f"{self.folder}/{chunk.id.filename}", data)
        return replace(receipt, size=len(data), tag=tag, digest=digest_of(data))


def publish_claimed(store: Store, claim: Claim, name: str, data: bytes) -> str:
    """Write an object, and take it back if another job has taken the output over meanwhile. Raises ``OutputTaken``.

    What that job has written under the same name since stays. Returns the tag as ``Store.write`` does.
    """
    tag = store.write(name, data)
    try:
        claim.check(store)
    except OutputTaken:
        with suppress(FileNotFoundError):
            if store.read(name) == data:
                store.remove(name)
        raise
    return tag


def to_parquet(table: pa.Table, footer: bytes, row_group_size: int | None = None) -> bytes:
    """A result file: rows of ``output.schema.schema`` with the receipts of their chunks in its footer.

    It also holds the digest of all its bytes, as of a file that has ``_NO_SEAL`` in the place of it.
    """
    table = table.replace_schema_metadata({FOOTER_KEY: footer})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        write_page_checksum=True,  # so that a damaged page is an error for other readers too
        compression=compression(table.schema),
    ) as writer:
        writer.write_table(table, row_group_size)
        writer.add_key_value_metadata({SEAL_KEY.decode(): _NO_SEAL.decode()})
    data = sink.getvalue().to_pybytes()
    return _with_seal(data, data.rindex(_NO_SEAL), digest_of(data).encode())


def check_seal(data: bytes, seal: bytes) -> None:
    """Raise ``ValueError`` unless ``seal``, as found in the footer of a file, is the digest of its bytes."""
    at = data.rfind(seal)
    if len(seal) != len(_NO_SEAL) or at < 0 or digest_of(_with_seal(data, at, _NO_SEAL)).encode() != seal:
        raise ValueError("its bytes are not those that were written, by the digest in its footer")


def _with_seal(data: bytes, at: int, seal: bytes) -> bytes:
    return b"".join((data[:at], seal, data[at + len(seal) :]))
