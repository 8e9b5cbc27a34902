"""What a committed file states about a chunk: its name, the fingerprint of its job, its totals, its size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import Field

from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY, StoredRecord, StoredSkipped, check_version
from segbatch.output.totals import SparseTotals, Totals
from segbatch.skipped import Skipped

FOOTER_KEY = b"segbatch"


@dataclass(frozen=True)
class Receipt:
    """What is known of a committed chunk.

    Attributes:
        filename: Name of its file.
        fingerprint: Of the job that wrote it.
        totals: Sums over its rows.
        size: Of its file in bytes.
        timings: Seconds of each stage; only its writer knows them, so that computing it again gives the same bytes.
        skipped: What its part of the shard holds besides records.
        tag: What a listing shows for the file; "" unless this process wrote it.
        digest: Of the file's bytes; "" unless this process wrote it.
    """

    filename: str
    fingerprint: str
    totals: Totals
    size: int
    timings: dict[str, float] = field(compare=False)
    skipped: Skipped = field(default_factory=Skipped)
    tag: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)

    def to_row(self) -> dict[str, Any]:
        """Return the receipt as plain values, to be passed from a worker to the driver."""
        fields = {"size": self.size, "tag": self.tag, "digest": self.digest}
        return {"footer": self.footer(), "timings": list(self.timings.items()), **fields}

    @staticmethod
    def from_row(row: dict[str, Any]) -> Receipt:
        """Inverse of ``to_row``."""
        receipt = Receipt.from_footer(row["footer"], row["size"])
        return replace(receipt, timings=dict(row["timings"]), tag=row["tag"], digest=row["digest"])

    def stored(self) -> StoredReceipt:
        """Return what the footer of its file holds."""
        return StoredReceipt(
            chunk=self.filename,
            fingerprint=self.fingerprint,
            num_classes=self.totals.num_classes,
            totals=self.totals.sparse(),
            skipped=self.skipped,
        )

    def footer(self) -> bytes:
        """Return the footer of a file with this chunk alone."""
        return json.dumps(self.stored().to_json()).encode()

    @staticmethod
    def from_footer(footer: bytes, size: int) -> Receipt:
        """Read the footer of a file with one chunk, of ``size`` bytes."""
        return StoredReceipt.parse(footer, "a result file").receipt(size)


class StoredReceipt(StoredRecord):
    """A receipt as it is stored in the footer of a result file; ``size`` is in footers of merged files."""

    chunk: str
    fingerprint: str
    num_classes: int
    totals: SparseTotals
    skipped: StoredSkipped = Field(default_factory=Skipped)
    size: int | None = None

    def receipt(self, size: int) -> Receipt:
        """Return the receipt of a chunk whose file has, or had before a compaction, ``size`` bytes."""
        return Receipt(self.chunk, self.fingerprint, self.totals.expand(self.num_classes), size, {}, self.skipped)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without ``skipped`` and ``size`` where they are empty."""
        plain = super().to_json()
        return {k: v for k, v in plain.items() if k not in ("skipped", "size") or v}


def merged_footer(receipts: Sequence[Receipt]) -> bytes:
    """Return the footer of a file with the rows of many chunks, in this order."""
    chunks = [{**receipt.stored().to_json(), "size": receipt.size} for receipt in receipts]
    return json.dumps({VERSION_KEY: FORMAT_VERSION, "chunks": chunks}).encode()


def footer_of(receipts: Sequence[Receipt], merged: bool) -> bytes:
    """Return the footer of a file of one chunk, or of a merged one."""
    return merged_footer(receipts) if merged else receipts[0].footer()


def receipts_of(footer: bytes, size: int) -> list[Receipt]:
    """Read the footer of a file of ``size`` bytes: one receipt, or those of all chunks of a merged file."""
    plain = json.loads(footer)
    check_version(plain.get(VERSION_KEY), "a result file")
    if "chunks" in plain:
        stored = [StoredReceipt.parse(chunk, "a result file") for chunk in plain["chunks"]]
        return [chunk.receipt(chunk.size or 0) for chunk in stored]
    return [StoredReceipt.parse(plain, "a result file").receipt(size)]


def digest_of(data: bytes) -> str:
    """Return a 128-bit digest of the bytes of a result file, as 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
