"""Merges small result files into large ones; takes chunks out of them again. docs/operate.md says why this is safe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from segbatch.errors import OutputError
from segbatch.output.file_table import FileRow, FileTable
from segbatch.output.layout import MASKS, RETIRED, SUCCESS, generation
from segbatch.output.ledger import Ledger
from segbatch.output.receipt import Receipt, digest_of, merged_footer
from segbatch.output.result_file import read_file
from segbatch.output.run_record import Claim
from segbatch.output.totals import Totals
from segbatch.output.writer import publish_claimed, to_parquet
from segbatch.protocols import Reporter
from segbatch.records import digest
from segbatch.storage.store import Store

if TYPE_CHECKING:
    from segbatch.output.output import Output

# Small enough that a reader of some rows does not read the whole file, large enough to compress.
_ROWS_A_GROUP = 4096


@dataclass(frozen=True)
class Compaction:
    """What a compaction came to: files and bytes below ``masks/`` before and after, files that were written."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    written: int


def compact(output: Output, target_bytes: int, reporter: Reporter) -> Compaction:
    """Merge files of less than half of ``target_bytes`` into files of about that size; the rows stay as they are.

    For outputs of finished runs. Killed at any moment, it leaves an output that every command reads as before, and the
    same call resumes; ``_SUCCESS`` is absent from the first change to the last. Memory: about four times the target.

    Raises:
        OutputError: A run is unfinished, or what the files hold is not what run.json records.
    """
    output.load()
    _check(output)
    before, written = output.files.files.sizes(), 0
    if output.files.ledger.redundant or output.files.ledger.partial:  # of a killed compaction, or of a late worker
        output.unpublish()
        rows = remove_superseded(output.store, output.files.ledger, output.claim)
        output.refresh(FileTable.of(rows))
        _check(output)
    while groups := list(_groups(output.files.ledger, output.files.files.sizes(), target_bytes)):
        output.unpublish()
        rows = []
        for names in groups:
            rows += merge(output.store, output.files.ledger, names, output.claim)
            _delete(output.store, names)
            written += 1
            reporter.message(f"{len(names):,} files merged into one, {written:,} of {len(groups):,}")
        output.refresh(FileTable.of(rows))
        _check(output)
    output.files.save(output.store, output.claim)
    if not output.record.sums().failed_shards and not output.is_finished:
        publish_claimed(output.store, output.claim, SUCCESS, b"")
    output.store.sweep()
    after = output.files.files.sizes()
    return Compaction(len(before), len(after), sum(before.values()), sum(after.values()), written)


def remove_superseded(store: Store, ledger: Ledger, claim: Claim) -> list[FileRow]:
    """Remove rows that do not count, once the files with those that do are read and found whole; what was written.

    Raises ``OutputError`` if one is damaged, or is of another job than that of ``claim``; nothing is removed then.
    """
    for name in {holder for file in ledger.redundant + ledger.partial for holder in ledger.files_of(file)}:
        for receipt, _ in read_file(store, name):
            check_fingerprint(store, name, receipt, claim.fingerprint)
    _delete(store, ledger.redundant)
    rows = []
    for name in ledger.partial:
        rows += merge(store, ledger, [name], claim)
        _delete(store, [name])
    return rows


def _delete(store: Store, names: Sequence[str]) -> None:
    store.remove_all(f"{MASKS}/{name}" for name in names)


def merge(
    store: Store, ledger: Ledger, names: Iterable[str], claim: Claim, without: frozenset[str] = frozenset()
) -> list[FileRow]:
    """Write the rows that count of files ``names`` as one new merged file, except chunks ``without``; what it is.

    The sources stay; the new file is of a later generation than they are, so its rows are now those that count.
    Nothing, and no file, if no chunk is left. When this returns, the file was read back and is what it should be, and
    the output still belongs to ``claim``; raises ``OutputTaken`` otherwise.
    """
    chunks = [
        (receipt, rows)
        for name in names
        for receipt, rows in read_file(store, name)
        if ledger.file_of(receipt.filename) == name and receipt.filename not in without
    ]
    if not chunks:
        return []
    receipts, table = [r for r, _ in chunks], pa.concat_tables([rows for _, rows in chunks])
    later = 1 + max(generation(name) for name in names)
    name = f"merged-{later}-{digest(receipts[0].fingerprint, *(r.filename for r in receipts), length=16)}.parquet"
    return [_publish(store, MASKS, name, table, merged_footer(receipts), claim)]


def retire(store: Store, ledger: Ledger, chunks: Sequence[str], claim: Claim, folder: str = RETIRED) -> list[FileRow]:
    """Move committed chunks from ``masks/`` to files of their own below ``folder``: nothing is destroyed.

    Returns the files that were written to ``masks/``, of what is left of merged ones.
    """
    merged: dict[str, set[str]] = {}
    for chunk in chunks:
        if ledger.file_of(chunk) == chunk:
            store.move(f"{MASKS}/{chunk}", f"{folder}/{chunk}")
        else:
            merged.setdefault(ledger.file_of(chunk), set()).add(chunk)
    written = []
    for name, gone in merged.items():
        for receipt, rows in read_file(store, name):
            if receipt.filename in gone:
                _publish(store, folder, receipt.filename, rows, receipt.footer(), claim)
        written += merge(store, ledger, [name], claim, without=frozenset(gone))
        store.remove(f"{MASKS}/{name}")
    return written


def _publish(store: Store, folder: str, name: str, table: pa.Table, footer: bytes, claim: Claim) -> FileRow:
    """Write a result file, and read it back: its sources are removed next."""
    path, data = f"{folder}/{name}", to_parquet(table, footer, _ROWS_A_GROUP)
    tag = publish_claimed(store, claim, path, data)
    there = pq.read_table(pa.BufferReader(store.read(path)))
    if not there.replace_schema_metadata().equals(table):
        store.remove(path)
        raise OutputError(f"{store.uri}/{path}: was read back otherwise than written; is the disk or the memory bad?")
    return FileRow(name, len(data), tag, digest_of(data), footer)


def _groups(ledger: Ledger, sizes: dict[str, int], target: int) -> Iterator[list[str]]:
    """Small files that are to be merged into one, in order of names."""
    group: list[str] = []
    held = 0
    for file in ledger.files():
        size = sizes.get(file.name, 0)
        if size >= target / 2:
            continue
        if group and held + size > target:
            if len(group) > 1:
                yield group
            group, held = [], 0
        group.append(file.name)
        held += size
    if len(group) > 1:
        yield group


def _check(output: Output) -> None:
    """Raise ``OutputError`` if a file is damaged, or if the sums of all are not those of run.json."""
    record, files = output.record, output.files
    for name, problem in files.damaged.items():
        raise OutputError(
            f"{output.uri}/{MASKS}/{name}: {problem}; the same `segbatch run`, or `segbatch verify --repair`, computes "
            "it again"
        )
    totals = Totals(len(record.classes))
    for receipt in files.receipts(files.ledger.filenames()):
        totals.add(receipt.totals)
    if record.state != "done" or totals != record.sums():
        raise OutputError(
            f"{output.uri}: a run is unfinished ({totals.records:,} records are committed); compact it when the same "
            "`segbatch run` has finished, or see what `segbatch verify` finds"
        )


def check_fingerprint(store: Store, file: str, receipt: Receipt, expected: str) -> None:
    """Raises ``OutputError`` that names the file if a receipt in it is not of the job ``expected``."""
    if receipt.fingerprint != expected:
        raise OutputError(
            f"{store.uri}/{MASKS}/{file}: written by another job (fingerprint {receipt.fingerprint}, this one is "
            f"{expected}); was one still running when --overwrite was given? `segbatch verify --repair` puts it right"
        )
