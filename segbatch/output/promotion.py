"""From ``incoming/`` to ``masks/``: shards become current as wholes, and the version they replace leaves with them.

A night commits into ``incoming/``, so that ``masks/`` stays what it was for as long as the night computes. The switch
is then a list of renames that is written down first: whoever finds the list, after a crash, carries it out again,
which is harmless. ``masks/`` holds two versions of a shard for no longer than that, and ``_SUCCESS`` is away meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from segbatch.errors import OutputError
from segbatch.leaves import Overlaps
from segbatch.output.compaction import retire
from segbatch.output.layout import INCOMING, MASKS, RETIRED, SUCCESS, SWITCH
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import Claim
from segbatch.records import Shard
from segbatch.storage.store import Store

_MOVERS = 16


@dataclass(frozen=True)
class Switch:
    """Chunks that ``arrive`` in ``masks/``, that are ``retired`` from it, that are ``dropped`` from ``incoming/``.

    ``folder`` is where the retired ones go.
    """

    folder: str
    arrive: list[str] = field(default_factory=list)
    retire: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.arrive or self.retire or self.drop)


def plan_switch(shards: Sequence[Shard], masks: Ledger, incoming: Ledger, folder: str) -> Switch:
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
    switch = Switch(f"{RETIRED}/{folder}")
    for shard_id, state in incoming.shards.items():
        if shard_id not in present:
            switch.drop.extend(state.filenames(shard_id))
        elif shard_id in whole and key_of(shard_id) not in staying:
            switch.arrive.extend(state.filenames(shard_id))
    for shard_id in outdated:
        if key_of(shard_id) not in waiting:
            switch.retire.extend(masks.shards[shard_id].filenames(shard_id))
    return switch


def carry_out(store: Store, switch: Switch) -> None:
    """Do what ``switch`` says, so that a crash in the middle is made good by ``complete_switch``."""
    if not switch:
        return
    store.write(SWITCH, json.dumps(asdict(switch)).encode())
    complete_switch(store)


def complete_switch(store: Store) -> bool:
    """Carry out the switch that is written down, if one is; False if none is."""
    try:
        switch = Switch(**json.loads(store.read(SWITCH)))
    except FileNotFoundError:
        return False
    except (ValueError, TypeError) as e:
        raise OutputError(f"{store.uri}/{SWITCH}: not a list of renames ({e}); move it out of the output") from None
    claim = Claim.current(store)
    store.remove(SUCCESS)
    with ThreadPoolExecutor(_MOVERS) as pool:
        # New masks are in before old ones leave: nothing is ever lost.
        list(pool.map(lambda n: store.move(f"{INCOMING}/{n}", f"{MASKS}/{n}"), switch.arrive))
        ledger = Ledger.read(store)
        there = set(ledger.filenames())
        retire(store, ledger, [n for n in switch.retire if n in there], claim, switch.folder)
    store.remove_all(f"{INCOMING}/{name}" for name in switch.drop)
    store.remove(SWITCH)
    return True


def key_of(shard_id: str) -> str:
    """``Shard.key`` behind a ``Shard.id``."""
    return shard_id.rpartition(".")[0]
