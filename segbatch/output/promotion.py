"""From ``incoming/`` to ``masks/``: shards become current as wholes, and the version they replace leaves with them.

A night commits into ``incoming/``, so that ``masks/`` stays what it was for as long as the night computes. The
promotion is a list of renames that is written first: whoever finds it after a crash applies it again, which is
idempotent. ``masks/`` holds two versions of a shard for no longer than that; ``_SUCCESS`` is absent meanwhile.
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
from segbatch.output.sums import Tally
from segbatch.records import Shard
from segbatch.storage.store import Store

if TYPE_CHECKING:
    from segbatch.output.output import Output

_MOVERS = 16


class Promotion(StoredRecord):
    """The write-ahead journal of a promotion: chunks by what is done with each.

    Attributes:
        folder: Where the retired chunks are moved.
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
    """What makes ``shards`` current as far as they are whole. Pure.

    Of a shard that is in the input and not whole in its present version, the earlier one stays. So does a leaf of loose
    images that was split or merged while one of those that take over its images is not whole; the others wait with it.
    """
    both = Ledger([*masks.filenames(), *incoming.filenames()])
    present = {s.id for s in shards}
    whole = {s.id for s in shards if both.committed(s.id).is_complete}
    waiting = Overlaps(s.key for s in shards if s.id not in whole)
    outdated = [i for i in masks.shards if i not in present]
    staying = Overlaps(key_of(i) for i in outdated if key_of(i) in waiting)
    promotion = Promotion(folder=f"{RETIRED}/{folder}", promote=[])
    for shard_id, state in incoming.shards.items():
        if shard_id not in present:
            promotion.drop.extend(state.filenames(shard_id))
        elif shard_id in whole and key_of(shard_id) not in staying:
            promotion.promote.extend(state.filenames(shard_id))
    for shard_id in outdated:
        if key_of(shard_id) not in waiting:
            promotion.retire.extend(masks.shards[shard_id].filenames(shard_id))
    return promotion


def apply_promotion(store: Store, promotion: Promotion) -> None:
    """Do what ``promotion`` says, so that a crash in the middle is made good by ``complete_promotion``."""
    if not promotion:
        return
    store.write(JOURNAL, json.dumps(promotion.to_json()).encode())
    complete_promotion(store)


def complete_promotion(store: Store) -> bool:
    """Carry out the promotion that is written down, if one is; False if none is."""
    try:
        promotion = Promotion.parse(store.read(JOURNAL), f"{store.uri}/{JOURNAL}")
    except FileNotFoundError:
        return False
    except (ValueError, TypeError) as e:
        raise OutputError(f"{store.uri}/{JOURNAL}: not a list of renames ({e}); move it out of the output") from None
    claim = Claim.current(store)
    store.remove(SUCCESS)
    with ThreadPoolExecutor(_MOVERS) as pool:
        # New masks are in before old ones leave: nothing is ever lost.
        list(pool.map(lambda n: store.move(f"{STAGED}/{n}", f"{MASKS}/{n}"), promotion.promote))
        ledger = Ledger.read(store)
        there = set(ledger.filenames())
        retire(store, ledger, [n for n in promotion.retire if n in there], claim, promotion.folder)
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
    sums: Tally
    incomplete: int
    is_change: bool


def promote(
    output: Output,
    shards: Sequence[Shard],
    date: str,
    tally: Tally,
    catalog: dict[str, ShardRow],
    confirm: Callable[[], None],
) -> Promoted:
    """Promote the complete shards of the staging area, and enter them into the catalog.

    Args:
        output: The output that the job has joined, with its staging area loaded.
        shards: Those of the inputs.
        date: The date of the night.
        tally: Sums over the chunks that this process has committed into the staging area.
        catalog: The catalog as it was read.
        confirm: Called before any change; what it raises ends the promotion.

    Raises:
        OutputTaken: Another job has taken the output over.
        OutputError: The storage fails; the next promotion completes an interrupted one.
    """
    output.refresh()
    output.refresh_staged(tally.written.table())
    masks, staged = output.files, output.staged
    journal = plan_promotion(shards, masks.ledger, staged.ledger, date)
    after = Ledger([*(set(masks.ledger.filenames()) - set(journal.retire)), *journal.promote])
    complete = [s for s in shards if after.committed(s.id).is_complete]
    promoted = {key_of(shard_of(name)) for name in journal.promote}
    rows = enter(catalog, complete, promoted, (staged, masks), date, tally.num_classes)
    rows = mark_removed(rows, {s.name for s in shards}, after, date)
    confirm()
    if journal or rows != catalog:
        output.claim.check(output.store)
    # The catalog first: an interrupted promotion is completed, while shards that are not entered would be lost to it.
    if rows != catalog:
        write_catalog(output.store, rows)
    apply_promotion(output.store, journal)
    if journal:
        output.refresh(staged.files.untagged())
    sums = sums_of(rows, output.files, tally.num_classes)
    sums.timings = tally.timings
    return Promoted(rows, sums, len(shards) - len(complete), bool(journal))
