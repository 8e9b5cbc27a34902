"""Check the rows of a committed chunk without decoding masks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segbatch.output.receipt import Receipt
from segbatch.output.run_record import Claim
from segbatch.output.schema import schema
from segbatch.output.totals import CONFIDENCE_UNIT, Totals
from segbatch.records import ChunkId


def chunk_problems(receipt: Receipt, rows: pa.Table, claim: Claim) -> list[str]:
    """Return what is wrong with the identity, number or order of a chunk's rows, or with the job that wrote them."""
    chunk, count = ChunkId.parse(receipt.filename), rows.num_rows
    if chunk is None:
        return [f"{receipt.filename}: not a name that segbatch gives to a chunk"]
    problems = []
    if receipt.fingerprint != claim.fingerprint:
        problems.append(f"written by another job (fingerprint {receipt.fingerprint})")
    if not rows.schema.equals(schema(has_marginal=claim.has_marginal)):
        problems.append(f"{receipt.filename}: its columns are not those of this job")
    first, full = chunk.index * claim.chunk_size, claim.chunk_size
    if not (1 <= count <= full if chunk.last and chunk.index else count <= full if chunk.last else count == full):
        problems.append(f"{receipt.filename}: {count} rows instead of {full}")
    if rows["index"].to_pylist() != list(range(first, first + count)):
        problems.append(f"{receipt.filename}: the indices of its rows are not {first} to {first + count - 1}")
    return problems


def counted(rows: pa.Table, num_classes: int) -> Totals:
    """Sum result rows from their columns of counts.

    Raises:
        ValueError: A row counts a class id that is not a class.
    """
    totals = Totals(num_classes, rows.num_rows)
    for error in rows.filter(pc.is_valid(rows["error"]))["error"].to_pylist():
        key = f"{error['stage']}/{error['type']}"
        totals.errors[key] = totals.errors.get(key, 0) + 1
    counts = pc.list_flatten(rows["classes"]).combine_chunks()
    ids, pixels, confidence = (pc.struct_field(counts, n).to_numpy(False) for n in ("class_id", "pixels", "confidence"))
    if len(ids) and not 0 <= ids.min() <= ids.max() < num_classes:
        raise ValueError(f"it counts class {ids.max()}, of {num_classes} classes")
    for name, values in (
        ("images", np.ones(len(ids), np.int64)),
        ("pixels", pixels.astype(np.int64)),
        ("confidence", np.rint(confidence.astype(np.float64) * pixels * CONFIDENCE_UNIT).astype(np.int64)),
    ):
        sums = np.zeros(num_classes, np.int64)
        np.add.at(sums, ids, values)
        setattr(totals, name, sums.tolist())
    return totals
