"""List an output, and read only the files that differ from stats/files.parquet."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from segbatch.output.check import chunk_problems, counted
from segbatch.output.file_table import DamagedTable, FileRow, FileTable
from segbatch.output.layout import MASKS, SET_ASIDE, generation, is_result
from segbatch.output.ledger import Ledger
from segbatch.output.receipt import Receipt, digest_of, footer_of
from segbatch.output.result_file import gone, parse_file
from segbatch.output.run_record import Claim
from segbatch.storage.base import ObjectInfo
from segbatch.storage.store import Store

logger = logging.getLogger(__name__)

_READERS, _MERGED_READERS = 16, 2
_NAMES_PER_BATCH = 1024


@dataclass
class Inventory:
    """The result files of a folder.

    Attributes:
        ledger: The committed chunks in undamaged files of this job.
        files: These files.
        damaged: Every other result file, with what is wrong with it.
        is_saved: Whether the output has ``files`` in its table.
        folder: ``masks``, or the staging area.
    """

    ledger: Ledger = field(default_factory=lambda: Ledger(()))
    files: FileTable = field(default_factory=FileTable)
    damaged: dict[str, str] = field(default_factory=dict)
    is_saved: bool = True
    folder: str = MASKS

    @staticmethod
    def of_job(store: Store, claim: Claim) -> Inventory:
        """List ``masks/``, and compare it with the table of the output."""
        try:
            known = FileTable.read(store, claim)
        except DamagedTable as e:
            logger.warning("%s; every result file is read", e)
            return Inventory.take(store, claim, FileTable())
        return Inventory.take(store, claim, known, is_saved=True)

    @staticmethod
    def take(store: Store, claim: Claim, known: FileTable, folder: str = MASKS, is_saved: bool = False) -> Inventory:
        """List a folder, and read the files that differ from a table.

        Args:
            store: The root of the output.
            claim: The job that it belongs to.
            known: Files that need not be read unless their size or tag has changed.
            folder: The folder.
            is_saved: Whether the output has ``known`` in its table.

        Raises:
            OutputError: The store fails. A damaged file is in ``damaged``.
        """
        listing = store.files(folder)
        results = {name: stat for name, stat in listing.items() if is_result(name)}
        same, others = known.match(results)
        expected = dict(zip(others, known.digests(others), strict=True))
        rows, damaged = _read_undamaged(store, claim, results, expected, folder)
        files = FileTable.joined(same, FileTable.of(rows)) if rows else same
        is_saved = is_saved and not others and len(same) == len(known)
        merged = {
            name: [(r.filename, r.totals.records) for r in receipts]
            for name, receipts in files.receipts([n for n in files.names() if generation(n)])
        }
        names = itertools.chain(files.names(), (n for n in listing if n not in results))
        return Inventory(Ledger(names, merged), files, damaged, is_saved, folder)

    def refreshed(self, store: Store, claim: Claim, written: FileTable | None = None) -> Inventory:
        """List the same folder again, after this process has ``written`` files there."""
        known = FileTable.joined(written, self.files) if written else self.files
        return Inventory.take(store, claim, known, self.folder, self.is_saved and not written)

    def receipts(self, chunks: Iterable[str]) -> Iterator[Receipt]:
        """Yield the receipts of committed chunks, without reading their files."""
        return self.ledger.receipts_by(self.files.receipts, chunks)

    def save(self, store: Store, claim: Claim) -> None:
        """Write the table, unless the output has it."""
        if not self.is_saved:
            self.files.write(store, claim)
            self.is_saved = True

    def set_aside(self, store: Store) -> None:
        """Move damaged files out of the folder, each with a warning that says why. Nothing is destroyed."""
        for name, target in set_aside(store, list(self.damaged), self.folder).items():
            logger.warning("%s/%s/%s: %s; moved to %s", store.uri, self.folder, name, self.damaged[name], target)
        self.damaged = {}


def set_aside(store: Store, names: Sequence[str], folder: str = MASKS) -> dict[str, str]:
    """Move files to ``set-aside/``, under other names where theirs are taken; return where each is now."""
    taken = set(store.names(SET_ASIDE)) if names else set()
    targets = {}
    for name in names:
        candidates = (name if n == 0 else f"{n}-{name}" for n in range(len(taken) + 1))
        free = next(candidate for candidate in candidates if candidate not in taken)
        taken.add(free)
        targets[name] = f"{SET_ASIDE}/{free}"
        store.move(f"{folder}/{name}", targets[name])
    return targets


def _read_undamaged(
    store: Store, claim: Claim, listing: Mapping[str, ObjectInfo], expected: Mapping[str, str | None], folder: str
) -> tuple[list[FileRow], dict[str, str]]:
    """Read whole files.

    Args:
        store: The root of the output.
        claim: The job that it belongs to.
        listing: Size and tag of each file.
        expected: The files to read, each with the digest of its bytes if that is known.
        folder: The folder.

    Returns:
        The undamaged files, and what is wrong with each of the others.
    """
    rows: list[FileRow] = []
    damaged: dict[str, str] = {}

    def examine(name: str) -> tuple[FileRow | None, str]:
        try:
            return _examine_one(store, claim, name, listing[name], expected[name], folder), ""
        except ValueError as e:
            return None, str(e)
        except FileNotFoundError:
            raise gone(store, name, folder) from None

    own, merged = [n for n in expected if not generation(n)], [n for n in expected if generation(n)]
    for readers, names in ((_READERS, own), (_MERGED_READERS, merged)):
        with ThreadPoolExecutor(readers) as pool:
            for start in range(0, len(names), _NAMES_PER_BATCH):
                batch = names[start : start + _NAMES_PER_BATCH]
                for name, (row, problem) in zip(batch, pool.map(examine, batch), strict=True):
                    if row is None:
                        damaged[name] = problem
                    else:
                        rows.append(row)
    return rows, damaged


def _examine_one(store: Store, claim: Claim, name: str, stat: ObjectInfo, expected: str | None, folder: str) -> FileRow:
    """Read one file. Raises ``ValueError`` that says what is wrong with it."""
    data = store.read(f"{folder}/{name}")
    digest = digest_of(data)
    chunks = parse_file(data)
    for receipt, rows in chunks:
        if not generation(name) and receipt.filename != name:
            raise ValueError(f"holds another chunk than its name says, {receipt.filename}")
        for problem in chunk_problems(receipt, rows, claim):
            raise ValueError(problem)
        if counted(rows, claim.num_classes) != receipt.totals:
            raise ValueError(f"{receipt.filename}: the sums in the footer are not those of the rows")
    if expected is not None and expected != digest:
        raise ValueError(f"its bytes are not those that were committed (digest {digest}, recorded is {expected})")
    # If the file was replaced since it was listed, the next listing differs, and it is read again.
    return FileRow(name, len(data), stat.tag, digest, footer_of([r for r, _ in chunks], generation(name) > 0))
