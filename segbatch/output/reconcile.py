"""Compare the shards of the inputs with the committed chunks: what is missing, what is outdated."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from segbatch.errors import OutputError
from segbatch.leaves import Overlaps
from segbatch.output.layout import key_of
from segbatch.output.ledger import Ledger, ShardState
from segbatch.records import Shard
from segbatch.storage.store import Store
from segbatch.text import counted

MAX_COUNTED = 1024


def missing(shards: Sequence[Shard], ledger: Ledger) -> list[str]:
    """Return the incomplete shards, each with what is missing of it."""
    states = ((s, ledger.committed(s.id)) for s in shards)
    return [f"{s.name}: {_missing_chunks(state)}" for s, state in states if not state.is_complete]


def stale(shards: Sequence[Shard], ledger: Ledger) -> list[str]:
    """Return the committed chunks of shards, or of versions of shards, that are not among ``shards``."""
    outdated = Outdated.of(shards, ledger)
    return outdated.changed + outdated.gone


def others(shards: Sequence[Shard], ledger: Ledger, received: Collection[str]) -> Iterator[str]:
    """Yield the committed chunks of ``shards`` that are not among ``received``."""
    for shard in shards:
        yield from (name for name in ledger.committed(shard.id).filenames(shard.id) if name not in received)


@dataclass(frozen=True)
class Outdated:
    """Committed chunks that a run archives.

    Attributes:
        changed: Chunks of shards that have changed.
        gone: Chunks of shards that are not in the inputs.
    """

    changed: list[str]
    gone: list[str]

    @staticmethod
    def of(shards: Sequence[Shard], ledger: Ledger) -> Outdated:
        """Find the outdated chunks of a ledger."""
        current, overlaps = {s.id for s in shards}, Overlaps(s.key for s in shards)
        outdated = Outdated([], [])
        for shard_id, state in ledger.shards.items():
            if shard_id not in current:
                names = outdated.changed if key_of(shard_id) in overlaps else outdated.gone
                names.extend(state.filenames(shard_id))
        return outdated

    def notices(self, store: Store, ledger: Ledger) -> dict[str, str]:
        """Return what a run does with these chunks, for people, by kind; kinds without chunks are left out."""
        kinds = {
            "again": (self.changed, "of shards that changed are computed again"),
            "retired": (self.gone, "of shards that are no longer in the input will be archived"),
        }
        return {kind: f"{_count(names, store, ledger)} {what}" for kind, (names, what) in kinds.items() if names}


def _count(chunks: list[str], store: Store, ledger: Ledger) -> str:
    """Return ``2 of 7 chunks (12 images)``; images only of few chunks, as a chunk takes two requests."""
    text = f"{len(chunks):,} of {counted(len(ledger), 'chunk')}"
    if len(chunks) > MAX_COUNTED:
        return text
    try:
        return f"{text} ({counted(sum(r.totals.records for r in ledger.receipts(store, chunks)), 'image')})"
    except OutputError:  # a damaged file, which is not needed
        return text


def _missing_chunks(state: ShardState) -> str:
    if state.last is None:
        return f"its last chunk ({len(state.indices)} are committed)"
    gaps = sorted(set(range(state.last + 1)) - state.indices)
    return f"{len(gaps)} of {state.last + 1} chunks, the first is {gaps[0]}"
