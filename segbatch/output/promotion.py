"""From ``incoming/`` to ``masks/``: shards become current as wholes, and the version they replace leaves with them.

A night commits into ``incoming/``, so that ``masks/`` stays what it was for as long as the night computes. The
promotion is a list of renames that is written first: whoever finds it after a crash applies it again, which is
idempotent. ``masks/`` holds two versions of a shard for no longer than that; ``_SUCCESS`` is absent meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import AliasChoices, Field

from segbatch.errors import OutputError
from segbatch.leaves import Overlaps
from segbatch.output.compaction import retire
from segbatch.output.layout import INCOMING, MASKS, RETIRED, SUCCESS, SWITCH
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import Claim
from segbatch.output.stored import StoredRecord
from segbatch.records import Shard
from segbatch.storage.store import Store

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
    whole = {s.id for s in shards if both.committed(s.id).complete}
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
    store.write(SWITCH, json.dumps(promotion.to_json()).encode())
    complete_promotion(store)


def complete_promotion(store: Store) -> bool:
    """Carry out the promotion that is written down, if one is; False if none is."""
    try:
        promotion = Promotion.parse(store.read(SWITCH), f"{store.uri}/{SWITCH}")
    except FileNotFoundError:
        return False
    except (ValueError, TypeError) as e:
        raise OutputError(f"{store.uri}/{SWITCH}: not a list of renames ({e}); move it out of the output") from None
    claim = Claim.current(store)
    store.remove(SUCCESS)
    with ThreadPoolExecutor(_MOVERS) as pool:
        # New masks are in before old ones leave: nothing is ever lost.
        list(pool.map(lambda n: store.move(f"{INCOMING}/{n}", f"{MASKS}/{n}"), promotion.promote))
        ledger = Ledger.read(store)
        there = set(ledger.filenames())
        retire(store, ledger, [n for n in promotion.retire if n in there], claim, promotion.folder)
    store.remove_all(f"{INCOMING}/{name}" for name in promotion.drop)
    store.remove(SWITCH)
    return True


def key_of(shard_id: str) -> str:
    """``Shard.key`` behind a ``Shard.id``."""
    return shard_id.rpartition(".")[0]
