"""stats/files.parquet: the result files as they were when last verified, so that they need not be read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from segbatch.errors import OutputError
from segbatch.output.layout import FILES
from segbatch.output.receipt import Receipt, receipts_of
from segbatch.output.run_record import Claim
from segbatch.output.stored import FORMAT_VERSION, VERSION_KEY, check_version
from segbatch.storage.base import ObjectInfo
from segbatch.storage.store import Store

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.int64()),
        ("tag", pa.string()),
        ("digest", pa.string()),
        ("footer", pa.large_binary()),
    ]
)
_CLAIM = (b"fingerprint", b"chunk_size")
_VERSION = VERSION_KEY.encode()
_ROWS_PER_BATCH = 1024


class FileRow(NamedTuple):
    """A result file.

    Attributes:
        name: Its name.
        size: In bytes.
        tag: The tag that a listing shows (ETag, or times of modification and change); "" if not known yet.
        digest: Of its bytes.
        footer: Holds its receipts.
    """

    name: str
    size: int
    tag: str
    digest: str
    footer: bytes


class DamagedTable(OutputError):
    """The file is not a table of result files."""


def is_file_table(data: bytes) -> bool:
    """Whether a file was written by ``FileTable.write``."""
    try:
        return bool(pq.read_schema(pa.BufferReader(data)).equals(_SCHEMA))
    except (pa.ArrowException, OSError):
        return False


class FileTable:
    """Undamaged result files, by name, in columns."""

    def __init__(self, rows: pa.Table | None = None) -> None:
        self.rows = _SCHEMA.empty_table() if rows is None else rows

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @staticmethod
    def of(rows: Iterable[FileRow]) -> FileTable:
        """Make a table of rows."""
        return FileTable(pa.Table.from_pylist([row._asdict() for row in rows], schema=_SCHEMA))

    @staticmethod
    def joined(*tables: FileTable) -> FileTable:
        """Concatenate tables; of two rows with one name the earlier counts."""
        return FileTable(pa.concat_tables([t.rows for t in tables]))

    @staticmethod
    def read(store: Store, claim: Claim) -> FileTable:
        """Read the table of the job that holds ``claim``; without rows if there is none.

        Raises:
            DamagedTable: The file is something else.
            NewerFormat: A later version of segbatch wrote it.
        """
        try:
            data = store.read(FILES)
        except FileNotFoundError:
            return FileTable()
        try:
            rows = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            metadata = rows.schema.metadata or {}
            check_version(metadata.get(_VERSION, b"1").decode(), f"{store.uri}/{FILES}")
            if _claimed(claim).items() - metadata.items():
                return FileTable()
            return FileTable(rows.replace_schema_metadata().select(_SCHEMA.names).cast(_SCHEMA))
        except (pa.ArrowException, OSError, ValueError, KeyError) as e:
            reason = " ".join(str(e).split())
            raise DamagedTable(f"{store.uri}/{FILES}: cannot be read ({reason}); run the job again") from None

    def write(self, store: Store, claim: Claim) -> None:
        """Write the table into the output of the job that holds ``claim``."""
        sink = pa.BufferOutputStream()
        rows = self.rows.sort_by("name").replace_schema_metadata({**_claimed(claim), _VERSION: FORMAT_VERSION.encode()})
        pq.write_table(rows, sink, compression="ZSTD", write_page_checksum=True)
        store.write(FILES, sink.getvalue().to_pybytes())

    def match(self, listing: Mapping[str, ObjectInfo]) -> tuple[FileTable, list[str]]:
        """Compare the table with a listing.

        Returns:
            The rows of listed files that are unchanged, with the tags of the listing; the names of all other files.
        """
        listed = pa.table(
            {
                "name": pa.array(listing, pa.string()),
                "size": pa.array([stat.size for stat in listing.values()], pa.int64()),
                "tag": pa.array([stat.tag for stat in listing.values()], pa.string()),
            }
        )
        places = self._places(listed["name"])
        sizes, tags = (self.rows[column].take(places) for column in ("size", "tag"))
        is_same_tag = pc.or_(pc.equal(tags, listed["tag"]), pc.equal(tags, ""))
        is_same = pc.fill_null(pc.and_(pc.equal(sizes, listed["size"]), is_same_tag), False)
        same = FileTable(self.rows.take(places.filter(is_same))).with_tags(listed["tag"].filter(is_same))
        return same, listed["name"].filter(pc.invert(is_same)).to_pylist()

    def untagged(self) -> FileTable:
        """Return the rows for files that this process moved: they get the tags that are listed next."""
        return self.with_tags(pa.array([""] * len(self), pa.string()))

    def with_tags(self, tags: pa.Array | pa.ChunkedArray) -> FileTable:
        """Return the rows with other tags."""
        return FileTable(self.rows.set_column(_SCHEMA.get_field_index("tag"), _SCHEMA.field("tag"), tags))

    def names(self) -> list[str]:
        """Return the names of all files."""
        return list(self.rows["name"].to_pylist())

    def sizes(self) -> dict[str, int]:
        """Return the size of each file in bytes."""
        return dict(zip(self.names(), self.rows["size"].to_pylist(), strict=True))

    def digests(self, names: Sequence[str]) -> list[str | None]:
        """Return the digest of each name; None for a file that is not in the table."""
        return list(self.rows["digest"].take(self._places(pa.array(names, pa.string()))).to_pylist())

    def receipts(self, names: Sequence[str]) -> Iterator[tuple[str, list[Receipt]]]:
        """Yield (name, receipts) of files that are in the table, in order."""
        places = self._places(pa.array(names, pa.string()))
        for start in range(0, len(names), _ROWS_PER_BATCH):
            batch = self.rows.take(places.slice(start, _ROWS_PER_BATCH))
            for name, size, footer in zip(*(batch[c].to_pylist() for c in ("name", "size", "footer")), strict=True):
                yield name, receipts_of(footer, size)

    def _places(self, names: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        return pc.index_in(names, self.rows["name"].combine_chunks())


class Collected:
    """Collects the rows of files as they are committed, in columns: a commit costs the size of its footer."""

    def __init__(self) -> None:
        self._batches: list[pa.Table] = []
        self._rows: list[FileRow] = []

    def add(self, row: FileRow) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS_PER_BATCH:
            self._flush()

    def table(self) -> FileTable:
        self._flush()
        return FileTable(pa.concat_tables(self._batches)) if self._batches else FileTable()

    def _flush(self) -> None:
        if self._rows:
            self._batches.append(FileTable.of(self._rows).rows)
            self._rows = []


def _claimed(claim: Claim) -> dict[bytes, bytes]:
    return dict(zip(_CLAIM, (claim.fingerprint.encode(), str(claim.chunk_size).encode()), strict=True))
