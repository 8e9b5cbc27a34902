"""Merge small result files into large ones, and take chunks out of them; docs/operate.md proves that it is safe."""

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
from segbatch.text import counted

if TYPE_CHECKING:
    from segbatch.output.output import Output

# One row is read with its row group: a mask of 4.5 kB takes 3 ms of 250 rows, 118 ms of 2,000, 590 ms of 20,000.
_ROWS_PER_GROUP = 256


@dataclass(frozen=True)
class Compaction:
    """The result of a compaction.

    Attributes:
        files_before: Number of files in ``masks/`` before it.
        files_after: The same after it.
        bytes_before: Their total size before it.
        bytes_after: The same after it.
        written: Number of merged files that were written.
    """

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    written: int


def compact(output: Output, target_bytes: int, reporter: Reporter) -> Compaction:
    """Merge small result files into files of about ``target_bytes``; the rows stay unchanged.

    Files of less than half of that size are merged. Memory: about four times ``target_bytes``. Killed at any moment, it
    leaves an output that every command reads as before, and the same call resumes; ``_SUCCESS`` is absent from the
    first change to the last.

    Raises:
        OutputError: A run is unfinished, or the sums of the files are not those of run.json.
    """
    output.load()
    _check(output)
    before, written = output.files.files.sizes(), 0
    if output.files.ledger.redundant or output.files.ledger.partial:  # left by a killed compaction or a late worker
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
    output.store.clean_temporary_files()
    after = output.files.files.sizes()
    return Compaction(len(before), len(after), sum(before.values()), sum(after.values()), written)


def remove_superseded(store: Store, ledger: Ledger, claim: Claim) -> list[FileRow]:
    """Remove rows that are also in a newer file, once that file is read and found undamaged.

    Returns:
        The files that were written, of the remaining rows of merged ones.

    Raises:
        OutputError: A newer file is damaged, or written by another job than that of ``claim``. Nothing is removed.
    """
    for name in {newer for file in ledger.redundant + ledger.partial for newer in ledger.files_of(file)}:
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
    """Write the current rows of several files as one merged file.

    The sources are kept; the new file has a later generation, so its rows supersede theirs. It is read back and
    compared before the call returns.

    Args:
        store: The root of the output.
        ledger: The committed chunks.
        names: The files, in the order of their rows in the new one.
        claim: The job that the output belongs to.
        without: Chunks to leave out.

    Returns:
        The new file; nothing if no chunk is left.

    Raises:
        OutputTaken: Another job has taken the output over.
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
    """Archive committed chunks: move each from ``masks/`` to a separate file in ``folder``.

    Returns:
        The files that were written to ``masks/``, of the remaining rows of merged ones.
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
    """Write a result file and read it back, since its sources are deleted next."""
    path, data = f"{folder}/{name}", to_parquet(table, footer, _ROWS_PER_GROUP)
    tag = publish_claimed(store, claim, path, data)
    written = pq.read_table(pa.BufferReader(store.read(path)))
    if not written.replace_schema_metadata().equals(table):
        store.remove(path)
        raise OutputError(
            f"{store.uri}/{path}: differs from what was written when read back; check the disk and the memory"
        )
    return FileRow(name, len(data), tag, digest_of(data), footer)


def _groups(ledger: Ledger, sizes: dict[str, int], target: int) -> Iterator[list[str]]:
    """Yield the small files to merge into one, in order of names."""
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
            f"{output.uri}: a run is unfinished ({counted(totals.records, 'record')} committed); finish it with "
            "the same `segbatch run`, or see what `segbatch verify` finds"
        )


def check_fingerprint(store: Store, file: str, receipt: Receipt, expected: str) -> None:
    """Raise ``OutputError`` that names the file if a receipt in it is of another job than ``expected``."""
    if receipt.fingerprint != expected:
        raise OutputError(
            f"{store.uri}/{MASKS}/{file}: written by another job (fingerprint {receipt.fingerprint}, this one is "
            f"{expected}); it may have been running when --overwrite was given; `segbatch verify --repair` computes "
            "the chunks again"
        )
