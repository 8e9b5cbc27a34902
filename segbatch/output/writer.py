"""Commit the rows of one chunk as one Parquet file, by one atomic write."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.output.layout import MASKS
from segbatch.output.previews import write_previews
from segbatch.output.receipt import FOOTER_KEY, Receipt, digest_of
from segbatch.output.run_record import Claim, OutputTaken
from segbatch.output.schema import compression, to_table
from segbatch.output.totals import Totals
from segbatch.records import Chunk
from segbatch.storage.store import Store

SEAL_KEY = b"segbatch.digest"
_NO_SEAL = b"?" * 32


class Writer:
    """Commits chunks of the job that holds ``claim`` into one folder of its output. Picklable."""

    def __init__(self, store: Store, claim: Claim, folder: str = MASKS) -> None:
        self.store, self.claim, self.folder = store, claim, folder

    def commit(self, chunk: Chunk) -> Receipt:
        """Publish the rows of a finished chunk as one Parquet object, which appears whole or not at all.

        The name follows from ``chunk.id`` alone, so the write is idempotent: a retry after a lost worker is safe.

        Raises:
            OutputError: The store refuses the write.
            OutputTaken: Another job has taken the output over, before or during the write. The chunk is not in it.
        """
        totals = Totals(self.claim.num_classes)
        for record in chunk.records:
            if record.mask is not None:
                totals.add_image(record.classes)
            elif record.error is not None:
                totals.add_error(record.error.stage, record.error.type)
            else:
                raise ValueError(f"{record.image_id}: has neither a mask nor an error")
        receipt = Receipt(chunk.id.filename, self.claim.fingerprint, totals, 0, chunk.timings, chunk.skipped)
        data = to_parquet(to_table(chunk.records, has_marginal=self.claim.has_marginal), receipt.footer())
        write_previews(self.store, self.claim, chunk)
        self.claim.check(self.store)
        tag = publish_claimed(self.store, self.claim, f"{self.folder}/{chunk.id.filename}", data)
        return replace(receipt, size=len(data), tag=tag, digest=digest_of(data))


def publish_claimed(store: Store, claim: Claim, name: str, data: bytes) -> str:
    """Write an object, and delete it again if another job has taken the output over meanwhile.

    What that job has written under the same name since then is kept.

    Returns:
        The tag, as ``Store.write`` does.

    Raises:
        OutputTaken: Another job has taken the output over.
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
    """Return a result file: rows of ``output.schema``, with the receipts of their chunks and a digest in its footer.

    The digest is that of the file with ``_NO_SEAL`` in the digest's place.
    """
    table = table.replace_schema_metadata({FOOTER_KEY: footer})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        write_page_checksum=True,  # other readers detect a damaged page, too
        compression=compression(table.schema),
    ) as writer:
        writer.write_table(table, row_group_size)
        writer.add_key_value_metadata({SEAL_KEY.decode(): _NO_SEAL.decode()})
    data = sink.getvalue().to_pybytes()
    return _with_seal(data, data.rindex(_NO_SEAL), digest_of(data).encode())


def check_seal(data: bytes, seal: bytes) -> None:
    """Raise ``ValueError`` unless ``seal``, from the footer of a file, is the digest of its bytes."""
    at = data.rfind(seal)
    if len(seal) != len(_NO_SEAL) or at < 0 or digest_of(_with_seal(data, at, _NO_SEAL)).encode() != seal:
        raise ValueError("its bytes are not those that were written, by the digest in its footer")


def _with_seal(data: bytes, at: int, seal: bytes) -> bytes:
    return b"".join((data[:at], seal, data[at + len(seal) :]))
