"""What a committed file states: its name, the fingerprint of its job, its totals, its size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from segbatch.output.totals import Totals
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


def digest_of(data: bytes) -> str:
    """128 bits of the bytes of a result file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
