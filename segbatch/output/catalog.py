"""shards.parquet: each shard that is or was in an output, the night it came, its sums. Readable by any Parquet tool.

It holds nothing that cannot be had from the files again, but for the nights; it saves reading every footer every night.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import OutputError
from segbatch.output.layout import SHARDS
from segbatch.storage.store import Store

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


@dataclass
class ShardRow:
    """One shard. ``shard_id`` begins the names of its files in ``masks/``.

    ``night`` is when this version of it became current, as a ``change`` that is ``new`` or ``changed``; ``removed`` the
    night on which it was gone from the input, or None. ``sums`` are the totals and bytes of its files.
    """

    name: str
    uri: str
    shard_id: str
    night: str
    change: str
    removed: str | None = None
    records: int = 0
    errors: int = 0
    sums: dict[str, Any] = field(default_factory=dict)


def read_catalog(store: Store) -> dict[str, ShardRow]:
    """The rows by shard name; none if there is no catalog. Raises ``OutputError`` for a file that is not one."""
    try:
        table = pq.read_table(pa.BufferReader(store.read(SHARDS)))
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
    plain = [{**vars(row), "sums": json.dumps(row.sums)} for _, row in sorted(rows.items())]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(plain, schema=_SCHEMA), sink, compression="ZSTD")
    store.write(SHARDS, sink.getvalue().to_pybytes())
