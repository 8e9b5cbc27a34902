"""Commits one chunk's rows as one Parquet file, all or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.output.run_record import Claim, OutputTaken
from segbatch.output.schema import to_table
from segbatch.output.totals import Totals
from segbatch.records import Chunk
from segbatch.skipped import Skipped
from segbatch.storage.store import Store

MASKS = "masks"
FOOTER_KEY = b"segbatch"
SEAL_KEY = b"segbatch.digest"
_NO_SEAL = b"?" * 32


@dataclass(frozen=True)
class Receipt:
    """What a committed file says of itself: its name, the job's fingerprint, its sums, its size.

    ``skipped`` is what its part of the input holds besides records. Who has just written the file knows also the
    seconds that it took, its tag in the store and the digest of its bytes; the file does not tell these, so that a
    chunk which is computed again has the same bytes.
    """

    filename: str
    fingerprint: str
    totals: Totals
    size: int
    timings: dict[str, float] = field(compare=False)
    skipped: Skipped = field(default_factory=Skipped)
    tag: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a footer. Without the key ``skipped``, as in earlier versions, nothing was skipped."""
        skipped = {"skipped": self.skipped.to_json()} if self.skipped else {}
        return {
            "chunk": self.filename,
            "fingerprint": self.fingerprint,
            "num_classes": self.totals.num_classes,
            "totals": self.totals.to_json(),
            **skipped,
        }

    @staticmethod
    def from_json(plain: dict[str, Any], size: int) -> Receipt:
        totals = Totals.from_json(plain["totals"], plain["num_classes"])
        skipped = Skipped.from_json(plain.get("skipped", {}))
        return Receipt(plain["chunk"], plain["fingerprint"], totals, size, {}, skipped)

    def to_row(self) -> dict[str, Any]:
        """All of it as plain values of a row: what the footer holds, and what only its writer knows."""
        fields = {"size": self.size, "tag": self.tag, "digest": self.digest}
        return {"footer": self.footer(), "timings": list(self.timings.items()), **fields}

    @staticmethod
    def from_row(row: dict[str, Any]) -> Receipt:
        receipt = Receipt.from_footer(row["footer"], row["size"])
        return replace(receipt, timings=dict(row["timings"]), tag=row["tag"], digest=row["digest"])

    def footer(self) -> bytes:
        return json.dumps(self.to_json()).encode()

    @staticmethod
    def from_footer(footer: bytes, size: int) -> Receipt:
        return Receipt.from_json(json.loads(footer), size)


def merged_footer(receipts: Sequence[Receipt]) -> bytes:
    """The footer of a file with the rows of many chunks, in this order; each keeps the size of its own file."""
    return json.dumps({"chunks": [{**r.to_json(), "size": r.size} for r in receipts]}).encode()


def footer_of(receipts: Sequence[Receipt], merged: bool) -> bytes:
    """The footer of a file of either kind."""
    return merged_footer(receipts) if merged else receipts[0].footer()


def receipts_of(footer: bytes, size: int) -> list[Receipt]:
    """The receipts in a footer of either kind; ``size`` is that of the file."""
    plain = json.loads(footer)
    if "chunks" in plain:
        return [Receipt.from_json(chunk, chunk["size"]) for chunk in plain["chunks"]]
    return [Receipt.from_json(plain, size)]


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


def digest_of(data: bytes) -> str:
    """128 bits of the bytes of a result file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


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
        # PNG does not compress further; everything else does.
        compression={name: "NONE" if name == "mask" else "ZSTD" for name in _leaves(table.schema)},
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


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the leaf columns of the result schema."""
    nested = {
        "classes": [f"classes.list.element.{f.name}" for f in schema.field("classes").type.value_type],
        "error": [f"error.{f.name}" for f in schema.field("error").type],
    }
    return [leaf for name in schema.names for leaf in nested.get(name, [name])]
