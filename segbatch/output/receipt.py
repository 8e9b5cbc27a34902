"""What a committed file states: its name, the fingerprint of its job, its totals, its size."""

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

    def to_row(self) -> dict[str, Any]:
        """All of it as plain values of a row: what the footer holds, and what only its writer knows."""
        fields = {"size": self.size, "tag": self.tag, "digest": self.digest}
        return {"footer": self.footer(), "timings": list(self.timings.items()), **fields}

    @staticmethod
    def from_row(row: dict[str, Any]) -> Receipt:
        receipt = Receipt.from_footer(row["footer"], row["size"])
        return replace(receipt, timings=dict(row["timings"]), tag=row["tag"], digest=row["digest"])

    def stored(self) -> StoredReceipt:
        """Return what the footer of its file has of it."""
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
    """A receipt as the footer of a result file has it; ``size`` is in the footers of merged files."""

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
        """Return plain data, without the keys ``skipped`` and ``size`` where there is nothing in them."""
        plain = super().to_json()
        return {k: v for k, v in plain.items() if k not in ("skipped", "size") or v}


def merged_footer(receipts: Sequence[Receipt]) -> bytes:
    """The footer of a file with the rows of many chunks, in this order; each keeps the size of its own file."""
    chunks = [{**receipt.stored().to_json(), "size": receipt.size} for receipt in receipts]
    return json.dumps({VERSION_KEY: FORMAT_VERSION, "chunks": chunks}).encode()


def footer_of(receipts: Sequence[Receipt], merged: bool) -> bytes:
    """The footer of a file of either kind."""
    return merged_footer(receipts) if merged else receipts[0].footer()


def receipts_of(footer: bytes, size: int) -> list[Receipt]:
    """The receipts in a footer of either kind; ``size`` is that of the file."""
    plain = json.loads(footer)
    check_version(plain.get(VERSION_KEY), "a result file")
    if "chunks" in plain:
        stored = [StoredReceipt.parse(chunk, "a result file") for chunk in plain["chunks"]]
        return [chunk.receipt(chunk.size or 0) for chunk in stored]
    return [StoredReceipt.parse(plain, "a result file").receipt(size)]


def digest_of(data: bytes) -> str:
    """128 bits of the bytes of a result file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
