"""Commits one chunk's rows as one Parquet file, all or nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.chunk import ChunkId
from segbatch.metrics.pixels import Totals
from segbatch.output.schema import Result, to_table
from segbatch.output.store import Store

MASKS = "masks"
FOOTER_KEY = b"segbatch"


@dataclass(frozen=True)
class Receipt:
    """What a committed file says of itself: its name, the job's fingerprint, its sums, its size, its seconds."""

    filename: str
    fingerprint: str
    totals: Totals
    size: int
    timings: dict[str, float]

    def footer(self) -> bytes:
        return json.dumps(
            {
                "chunk": self.filename,
                "fingerprint": self.fingerprint,
                "num_classes": self.totals.num_classes,
                "totals": self.totals.to_json(),
                "timings": {k: round(v, 4) for k, v in self.timings.items()},
            }
        ).encode()

    @staticmethod
    def from_footer(footer: bytes, size: int) -> Receipt:
        plain = json.loads(footer)
        totals = Totals.from_json(plain["totals"], plain["num_classes"])
        return Receipt(plain["chunk"], plain["fingerprint"], totals, size, plain["timings"])


class Writer:
    """Publishes chunks of one job, told by its fingerprint, into one output."""

    def __init__(self, store: Store, fingerprint: str, num_classes: int) -> None:
        self.store, self.fingerprint, self.num_classes = store, fingerprint, num_classes

    def commit(self, chunk: ChunkId, results: list[Result], timings: dict[str, float]) -> Receipt:
        """Publish one chunk's rows as one Parquet object, all or nothing.

        The name follows from ``chunk`` alone, so publishing twice is harmless: this is what makes a retry
        after a lost worker safe. Raises ``OutputError`` if the store refuses the write; nothing is then
        visible under the name.
        """
        totals = Totals(self.num_classes)
        for r in results:
            if r.classes is None:
                error = r.record.error
                if error is None:
                    raise ValueError(f"{r.record.image_id}: neither a mask nor an error")
                totals.add_error(error.stage, error.type)
            else:
                totals.add_image(r.classes)
        receipt = Receipt(chunk.filename, self.fingerprint, totals, 0, timings)
        table = to_table(results)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), FOOTER_KEY: receipt.footer()})
        data = _to_parquet(table)
        self.store.write(f"{MASKS}/{chunk.filename}", data)
        return Receipt(chunk.filename, self.fingerprint, totals, len(data), timings)


def _to_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # PNG does not compress further; everything else does.
    pq.write_table(
        table,
        sink,
        compression={name: "NONE" if name == "mask" else "ZSTD" for name in _leaves(table.schema)},
    )
    return sink.getvalue().to_pybytes()


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's names of the leaf columns of the result schema."""
    nested = {
        "classes": [f"classes.list.element.{f.name}" for f in schema.field("classes").type.value_type],
        "error": [f"error.{f.name}" for f in schema.field("error").type],
    }
    return [leaf for name in schema.names for leaf in nested.get(name, [name])]
