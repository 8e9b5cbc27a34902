"""Promote complete shards from the staging area to ``masks/``, and archive the versions that they replace.

A nightly run commits into the staging area, so ``masks/`` is unchanged while it computes. The promotion is a list of
renames that is written first, as a write-ahead journal: whoever finds it after a crash applies it again, which is
idempotent. Only meanwhile does ``masks/`` hold two versions of a shard, and ``_SUCCESS`` is absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import AliasChoices, Field

from segbatch.errors import OutputError
from segbatch.leaves import Overlaps
from segbatch.output.catalog import ShardRow, enter, mark_removed, sums_of, write_catalog
from segbatch.output.compaction import retire
from segbatch.output.layout import JOURNAL, MASKS, RETIRED, STAGED, SUCCESS, key_of, shard_of
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import Claim
from segbatch.output.stored import StoredRecord
from segbatch.output.sums import ReceiptSums
from segbatch.records import Shard
from segbatch.storage.store import Store

if TYPE_CHECKING:
    from segbatch.output.output import Output

_MOVERS = 16


class Promotion(StoredRecord):
    """The write-ahead journal of a promotion: chunks by what is done with them.

    Attributes:
        folder: Where archived chunks are moved.
        promote: Chunks that are moved from the staging area to ``masks/``.
        retire: Chunks that are moved from ``masks/`` to ``folder``.
        drop: Chunks that are deleted from the staging area.
    """

    folder: str
    promote: list[str] = Field(validation_alias=AliasChoices("promote", "arrive"))  # "arrive" until format 1.0
    retire: list[str] = Field(default_factory=list)
    drop: list[str] = Field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.promote or self.retire or self.drop)


def plan_promotion(shards: Sequence[Shard], masks: Ledger, incoming: Ledger, folder: str) -> Promotion:
    """Plan to promote the shards that are complete in their present version.

    The earlier version of an incomplete shard is kept. So is a leaf of loose images that was split or merged, until
    all leaves that take over its images are complete; these wait for each other.

    Args:
        shards: Those of the inputs.
        masks: The committed chunks in ``masks/``.
        incoming: Those in the staging area.
        folder: Name of the folder for archived chunks.
    """
    both = Ledger([*masks.filenames(), *incoming.filenames()])
    present = {s.id for s in shards}
    complete = {s.id for s in shards if both.committed(s.id).is_complete}
    waiting = Overlaps(s.key for s in shards if s.id not in complete)
    outdated = [i for i in masks.shards if i not in present]
    kept = Overlaps(key_of(i) for i in outdated if key_of(i) in waiting)
    promotion = Promotion(folder=f"{RETIRED}/{folder}", promote=[])
    for shard_id, state in incoming.shards.items():
        if shard_id not in present:
            promotion.drop.extend(state.filenames(shard_id))
        elif shard_id in complete and key_of(shard_id) not in kept:
            promotion.promote.extend(state.filenames(shard_id))
    for shard_id in outdated:
        if key_of(shard_id) not in waiting:
            promotion.retire.extend(masks.shards[shard_id].filenames(shard_id))
    return promotion


def apply_promotion(store: Store, promotion: Promotion) -> None:
    """Write the journal, and apply it; ``complete_promotion`` continues it after a crash."""
    if not promotion:
        return
    store.write(JOURNAL, json.dumps(promotion.to_json()).encode())
    complete_promotion(store)


def complete_promotion(store: Store) -> bool:
    """Apply the journal of a promotion; False if there is none."""
    try:
        promotion = Promotion.parse(store.read(JOURNAL), f"{store.uri}/{JOURNAL}")
    except FileNotFoundError:
        return False
    except (ValueError, TypeError) as e:
        raise OutputError(f"{store.uri}/{JOURNAL}: not a list of renames ({e}); move it out of the output") from None
    claim = Claim.current(store)
    store.remove(SUCCESS)
    with ThreadPoolExecutor(_MOVERS) as pool:
        # New files are in place before old ones are archived: no row is ever lost.
        list(pool.map(lambda n: store.move(f"{STAGED}/{n}", f"{MASKS}/{n}"), promotion.promote))
        ledger = Ledger.read(store)
        committed = set(ledger.filenames())
        retire(store, ledger, [n for n in promotion.retire if n in committed], claim, promotion.folder)
    store.remove_all(f"{STAGED}/{name}" for name in promotion.drop)
    store.remove(JOURNAL)
    return True


@dataclass(frozen=True)
class Promoted:
    """What a promotion did, and the output after it.

    Attributes:
        catalog: All shards that are or were in the output, by name.
        sums: Sums over all promoted shards.
        incomplete: Number of shards of the inputs that are not promoted in their present version.
        is_change: Whether any file was moved or deleted.
    """

    catalog: dict[str, ShardRow]
    sums: ReceiptSums
    incomplete: int
    is_change: bool


def promote(
    output: Output,
    shards: Sequence[Shard],
    date: str,
    receipt_sums: ReceiptSums,
    catalog: dict[str, ShardRow],
    confirm: Callable[[], None],
) -> Promoted:
    """Promote the complete shards of the staging area, and enter them into the catalog.

    Args:
        output: The output that the job has joined, with its staging area loaded.
        shards: Those of the inputs.
        date: The date of the night.
        receipt_sums: Sums over the chunks that this process has committed into the staging area.
        catalog: The catalog as it was read.
        confirm: Called before any change; what it raises ends the promotion.

    Raises:
        OutputTaken: Another job has taken the output over.
        OutputError: The storage fails; the next promotion completes an interrupted one.
    """
    output.refresh()
    output.refresh_staged(receipt_sums.written.table())
    masks, staged = output.files, output.staged
    journal = plan_promotion(shards, masks.ledger, staged.ledger, date)
    after = Ledger([*(set(masks.ledger.filenames()) - set(journal.retire)), *journal.promote])
    complete = [s for s in shards if after.committed(s.id).is_complete]
    promoted = {key_of(shard_of(name)) for name in journal.promote}
    rows = enter(catalog, complete, promoted, (staged, masks), date, receipt_sums.num_classes)
    rows = mark_removed(rows, {s.name for s in shards}, after, date)
    confirm()
    if journal or rows != catalog:
        output.claim.check(output.store)
    # The catalog first: an interrupted promotion is completed by the next run, a missing catalog entry is not.
    if rows != catalog:
        write_catalog(output.store, rows)
    apply_promotion(output.store, journal)
    if journal:
        output.refresh(staged.files.untagged())
    sums = sums_of(rows, output.files, receipt_sums.num_classes)
    sums.timings = receipt_sums.timings
    return Promoted(rows, sums, len(shards) - len(complete), bool(journal))
