"""shards.parquet: every shard that is or was in an output, the night that promoted it, its sums.

Everything but the nights can be computed again from the files; the table saves reading every footer every night.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from segbatch.errors import OutputError
from segbatch.leaves import Overlaps
from segbatch.output.inventory import Inventory
from segbatch.output.layout import SHARDS, key_of, shard_of
from segbatch.output.ledger import Ledger
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY, StoredSkipped, check_version
from segbatch.output.sums import ReceiptSums
from segbatch.output.totals import SparseTotals
from segbatch.records import Shard
from segbatch.skipped import Skipped
from segbatch.storage.store import Store
from segbatch.text import escape_invalid_utf8, redact

_VERSION = VERSION_KEY.encode()
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("uri", pa.string()),
        ("shard_id", pa.string()),
        ("night", pa.string()),
        ("change", pa.string()),
        ("removed", pa.string()),
        ("records", pa.int64()),
        ("errors", pa.int64()),
        ("sums", pa.string()),
    ]
)


class ShardSums(BaseModel):
    """Sums over the files of a shard.

    Attributes:
        totals: Of their rows.
        bytes: Their size.
        skipped: What the shard holds besides records.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    totals: SparseTotals
    bytes: int
    skipped: StoredSkipped = Field(default_factory=Skipped)


class ShardRow(BaseModel):
    """One shard.

    Attributes:
        name: Its path relative to the corpus root.
        uri: Redacted.
        shard_id: Key and version; begins the names of its files.
        night: Date on which this version was promoted; "" for one that a plain run has computed.
        change: ``new`` or ``changed``, of that night.
        removed: Date on which it was gone from the input, or None.
        records: Number of its rows.
        errors: Number of its error rows.
        sums: Sums over its files.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    uri: str
    shard_id: str
    night: str
    change: str
    removed: str | None = None
    records: int = 0
    errors: int = 0
    sums: ShardSums


def read_catalog(store: Store) -> dict[str, ShardRow]:
    """Read the rows by shard name; none without a catalog. Raises ``OutputError`` for another file."""
    try:
        table = pq.read_table(pa.BufferReader(store.read(SHARDS)))
        check_version((table.schema.metadata or {}).get(_VERSION, b"1").decode(), f"{store.uri}/{SHARDS}")
        rows = [ShardRow(**{**row, "sums": json.loads(row["sums"])}) for row in table.to_pylist()]
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, ValueError, TypeError, KeyError) as e:
        raise OutputError(
            f"{store.uri}/{SHARDS}: not a catalog of shards ({e}); move it out of the output: a new one is then "
            "written, without the dates of earlier nights"
        ) from None
    return {row.name: row for row in rows}


def is_catalog(data: bytes) -> bool:
    """Whether a file was written by ``write_catalog``."""
    try:
        return bool(pq.read_schema(pa.BufferReader(data)).equals(_SCHEMA))
    except (pa.ArrowException, OSError):
        return False


def write_catalog(store: Store, rows: dict[str, ShardRow]) -> None:
    """Write the catalog, in order of names."""
    plain = [{**row.model_dump(), "sums": row.sums.model_dump_json()} for _, row in sorted(rows.items())]
    table = pa.Table.from_pylist(plain, schema=_SCHEMA).replace_schema_metadata({_VERSION: FORMAT_VERSION})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="ZSTD")
    store.write(SHARDS, sink.getvalue().to_pybytes())


def enter(
    rows: Mapping[str, ShardRow],
    complete: Iterable[Shard],
    promoted: set[str],
    folders: Sequence[Inventory],
    date: str,
    num_classes: int,
) -> dict[str, ShardRow]:
    """Add complete shards to the catalog that it lacks in their present version.

    Args:
        rows: The catalog.
        complete: Shards that are complete after the promotion of ``date``.
        promoted: Keys of the shards with chunks that this promotion promotes.
        folders: The files that hold them: those of the staging area, then those in ``masks/`` before the promotion.
        date: The date of the night.
        num_classes: Number of classes of the output.
    """
    news = [shard for shard in complete if _is_news(shard, rows.get(shard.name))]
    earlier_ids = folders[-1].ledger.shards
    earlier_keys = Overlaps(map(key_of, earlier_ids))
    sums, entered = _read_sums({shard.id for shard in news}, folders, num_classes), dict(rows)
    for shard in news:
        row, of_shard = rows.get(shard.name), sums[shard.id]
        is_known = row is not None and row.removed is None
        is_change = is_known or (shard.key in earlier_keys and shard.id not in earlier_ids)
        entered[shard.name] = ShardRow(
            name=shard.name,
            uri=escape_invalid_utf8(redact(shard.uri)),
            shard_id=shard.id,
            # Shards that a plain `segbatch run` has computed belong to no night.
            night=date if shard.key in promoted or row is not None else "",
            change="changed" if is_change else "new",
            records=of_shard.totals.records,
            errors=of_shard.totals.failed,
            sums=ShardSums(totals=of_shard.totals.sparse(), bytes=of_shard.size, skipped=of_shard.skipped),
        )
    return entered


def mark_removed(rows: Mapping[str, ShardRow], names: set[str], ledger: Ledger, date: str) -> dict[str, ShardRow]:
    """Mark shards as removed on ``date`` that are neither among ``names`` nor in the ledger."""
    gone = {n: r for n, r in rows.items() if n not in names and r.shard_id not in ledger.shards and r.removed is None}
    return {**rows, **{name: row.model_copy(update={"removed": date}) for name, row in gone.items()}}


def sums_of(rows: Mapping[str, ShardRow], files: Inventory, num_classes: int) -> ReceiptSums:
    """Sum over all files: by the catalog, and by receipts for shards that it lacks."""
    current = set(files.ledger.shards)
    by_id = {row.shard_id: row.sums for row in rows.values() if row.removed is None}
    total = ReceiptSums(num_classes)
    for of_shard in _read_sums(current - by_id.keys(), [files], num_classes).values():
        total.add_sums(of_shard.totals, {}, of_shard.size, of_shard.skipped)
    for shard_id in current & by_id.keys():
        sums = by_id[shard_id]
        total.add_sums(sums.totals.expand(num_classes), {}, sums.bytes, sums.skipped)
    total.filenames.update(files.ledger.filenames())
    return total


def _is_news(shard: Shard, row: ShardRow | None) -> bool:
    return row is None or row.removed is not None or row.shard_id != shard.id


def _read_sums(ids: set[str], folders: Sequence[Inventory], num_classes: int) -> dict[str, ReceiptSums]:
    """Sum over the files of shards by their receipts, in whichever folder these are."""
    sums = {shard_id: ReceiptSums(num_classes) for shard_id in ids}
    for folder in folders:
        chunks = [name for i in sorted(ids) for name in folder.ledger.committed(i).filenames(i)]
        for receipt in folder.receipts(chunks):
            sums[shard_of(receipt.filename)].add(receipt)
    return sums
