"""Complete shards are promoted, and a promotion that is interrupted anywhere is completed."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.errors import OutputError
from segbatch.output.layout import JOURNAL, MASKS, RUN, STAGED, SUCCESS
from segbatch.output.ledger import Ledger
from segbatch.output.promotion import Promotion, apply_promotion, complete_promotion, key_of, plan_promotion
from segbatch.records import ChunkId, Shard
from segbatch.storage.store import Store


def shard(name: str, version: str) -> Shard:
    return Shard(name, name, "webdataset", version)


def files(of: Shard, *indices: int, last: int | None = None) -> list[str]:
    return [ChunkId(of.id, i, i == last).filename for i in indices]


A1, A2, B1, C1 = shard("a.tar", "1"), shard("a.tar", "2"), shard("b.tar", "1"), shard("c.tar", "1")


def planned(shards: list[Shard], masks: list[str], incoming: list[str]) -> Promotion:
    return plan_promotion(shards, Ledger(masks), Ledger(incoming), "2026-11-20")


def test_key_of() -> None:
    assert key_of(A1.id) == A1.key == key_of(A2.id)


def test_a_complete_shard_is_promoted_and_an_incomplete_one_waits() -> None:
    promotion = planned([A1, B1], [], [*files(A1, 0, 1, last=1), *files(B1, 0)])
    assert (promotion.promote, promotion.retire, promotion.drop) == (files(A1, 0, 1, last=1), [], [])
    assert not planned([B1], [], files(B1, 0))


def test_the_old_version_is_archived_when_the_new_one_is_complete() -> None:
    old = files(A1, 0, last=0)
    assert not planned([A2], old, files(A2, 0))
    promotion = planned([A2], old, files(A2, 0, 1, last=1))
    assert (promotion.promote, promotion.retire) == (files(A2, 0, 1, last=1), old)
    assert promotion.folder == "retired/2026-11-20"


def test_shards_gone_from_the_input_are_archived_and_their_staged_chunks_deleted() -> None:
    promotion = planned([B1], [*files(A1, 0, last=0), *files(B1, 0, last=0)], files(C1, 0))
    assert (promotion.promote, promotion.retire, promotion.drop) == ([], files(A1, 0, last=0), files(C1, 0))


def test_a_shard_that_a_plain_run_began_is_completed_by_a_night() -> None:
    assert planned([A1], files(A1, 0), files(A1, 1, last=1)).promote == files(A1, 1, last=1)


@pytest.mark.parametrize("crash", range(7))
def test_a_crash_at_any_step_is_completed_by_the_next_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    """Six requests after the list is written; each in turn, and none, is the last that is done."""
    store = Store(str(tmp_path))
    old, new, other = files(A1, 0, last=0), files(A2, 0, 1, last=1), files(C1, 0)
    for name in old:
        store.write(f"{MASKS}/{name}", b"old")
    for name in (*new, *other):
        store.write(f"{STAGED}/{name}", b"new")
    store.write(SUCCESS, b"")
    store.write(RUN, b'{"fingerprint": "f", "chunk_size": 4, "classes": []}')
    promotion = planned([A2], old, [*new, *other])
    done = 0

    class Killed(BaseException):
        pass

    def count(self: Store, *names: str, how: str) -> None:
        nonlocal done
        if done == crash:
            raise Killed
        done += 1
        plain[how](self, *names)

    plain = {"move": Store.move, "remove": Store.remove}
    with monkeypatch.context() as patched:
        patched.setattr(Store, "move", lambda self, a, b: count(self, a, b, how="move"))
        patched.setattr(Store, "remove", lambda self, a: count(self, a, how="remove"))
        patched.setattr(Store, "remove_all", lambda self, names: [count(self, a, how="remove") for a in names])
        if crash < 6:
            with pytest.raises(Killed):
                apply_promotion(store, promotion)
            present = set(store.names(MASKS)) | set(store.names(STAGED)) | set(store.names(promotion.folder))
            assert present >= {*old, *new}, "nothing is lost"
            assert not (store.exists(SUCCESS) and done), "and there is no _SUCCESS"
        else:
            apply_promotion(store, promotion)
    assert complete_promotion(store) == (crash < 6)
    assert sorted(store.names(MASKS)) == sorted(new)
    assert store.names(promotion.folder) == old
    assert store.names(STAGED) == []
    assert not store.exists(JOURNAL)
    assert not complete_promotion(store)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write(JOURNAL, b"[1]")
    with pytest.raises(OutputError, match=r"switch.json: not a list of renames"):
        complete_promotion(store)
