"""shards.parquet: each shard that is or was in an output, the night it came, its sums. Readable by any Parquet tool.

It holds nothing that cannot be had from the files again, but for the nights; it saves reading every footer every night.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from segbatch.errors import OutputError
from segbatch.output.layout import SHARDS
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY, StoredSkipped, check_version
from segbatch.output.totals import SparseTotals
from segbatch.skipped import Skipped
from segbatch.storage.store import Store

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
    """What the files of a shard hold: totals of their rows, their size in bytes, what they skipped."""

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
    """The rows by shard name; none if there is no catalog. Raises ``OutputError`` for a file that is not one."""
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
    """Whether a file is one that ``write_catalog`` wrote."""
    try:
        return bool(pq.read_schema(pa.BufferReader(data)).equals(_SCHEMA))
    except (pa.ArrowException, OSError):
        return False


def write_catalog(store: Store, rows: dict[str, ShardRow]) -> None:
    plain = [{**row.model_dump(), "sums": row.sums.model_dump_json()} for _, row in sorted(rows.items())]
    table = pa.Table.from_pylist(plain, schema=_SCHEMA).replace_schema_metadata({_VERSION: FORMAT_VERSION})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="ZSTD")
    store.write(SHARDS, sink.getvalue().to_pybytes())
