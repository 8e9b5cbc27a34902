"""Sums over committed chunks."""

from __future__ import annotations

from dataclasses import dataclass, field

from segbatch.output.file_table import Collected, FileRow
from segbatch.output.receipt import Receipt
from segbatch.output.totals import Totals
from segbatch.skipped import Skipped


@dataclass
class ReceiptSums:
    """Sums over receipts; each chunk counts once, however often its receipt is added.

    Attributes:
        num_classes: Number of classes.
        filenames: The chunks.
        size: Of their files in bytes.
        timings: Seconds of each stage.
        skipped: What their shards hold besides records.
        written: The files that this run has written.
    """

    num_classes: int
    filenames: set[str] = field(default_factory=set)
    size: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    skipped: Skipped = field(default_factory=Skipped)
    written: Collected = field(default_factory=Collected)

    def __post_init__(self) -> None:
        self.totals = Totals(self.num_classes)

    def add(self, receipt: Receipt) -> None:
        """Add a receipt, unless its chunk was added before."""
        if receipt.filename in self.filenames:
            return
        self.filenames.add(receipt.filename)
        if receipt.digest:  # written by this run
            fields = (receipt.filename, receipt.size, receipt.tag, receipt.digest, receipt.footer())
            self.written.add(FileRow(*fields))
        self.add_sums(receipt.totals, receipt.timings, receipt.size, receipt.skipped)

    def add_sums(self, totals: Totals, timings: dict[str, float], size: int, skipped: Skipped) -> None:
        """Add the sums of several files."""
        self.totals.add(totals)
        self.skipped.merge(skipped)
        self.size += size
        for stage, seconds in timings.items():
            self.timings[stage] = self.timings.get(stage, 0.0) + seconds
