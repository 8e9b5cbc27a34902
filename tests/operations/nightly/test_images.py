"""Nights over a folder of loose images: what comes, goes and changes, and nights that stop in the middle."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from segbatch.errors import PlanError
from segbatch.operations.nightly.dataset import Work, prepare, promote
from segbatch.operations.nightly.record import DatasetReport
from segbatch.operations.verify import verify
from segbatch.output.catalog import read_catalog
from segbatch.output.layout import STAGED
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import OutputTaken
from segbatch.planning.claim import establish
from segbatch.planning.inline import execute
from segbatch.storage.lease import Lease
from segbatch.storage.store import Store
from tests import here
from tests.cluster.jobs import rows
from tests.corpus import encode, photograph, write_tar

IMAGES = [encode(photograph(n, 32)) for n in range(6)]


class Nights:
    """A folder, its output, and nights over it in this process, each of which may stop after some chunks."""

    def __init__(self, folder: Path, chunk_size: int = 4) -> None:
        self.input, self.output = folder / "in", folder / "out"
        self.input.mkdir()
        self.spec = here.spec([str(self.input)], self.output, chunk_size=chunk_size)
        self._state, self._dates = Store(str(folder / "state")), itertools.count(1)

    def add(self, names: Iterable[str], version: int = 0) -> None:
        for name in names:
            (self.input / name).write_bytes(IMAGES[len(name) % 6] + b" " * version)

    def prepare(self, max_removed: float = 0.5) -> Work:
        return prepare(self.spec, max_removed)

    def night(self, chunks: int | None = None, max_removed: float = 0.5) -> DatasetReport:
        found = self.prepare(max_removed)
        if not found.plan.is_complete:
            found.plan = establish(found.plan.with_chunk_size(1).with_precision(here.ONE_CORE))
            for receipt in itertools.islice(execute(found.plan), chunks):
                found.receipt_sums.add(receipt)
        with Lease.take(self._state, 1e6, lambda: 0.0, "a night").kept() as lease:
            return promote(found, f"2026-11-{next(self._dates):02}", lease, 1.0)

    def ids(self) -> list[str]:
        return sorted(row["image_id"] for row in rows(self.output))

    def names(self) -> list[str]:
        return sorted(p.name for p in self.input.iterdir())


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def numbered(*numbers: int) -> list[str]:
    return [f"img{n:03}.jpg" for n in numbers]


def test_a_new_photograph_is_done_and_no_shard_is_gone(nights: Nights) -> None:
    nights.add(numbered(*range(12)))
    first = nights.night()
    assert (first.state, first.shards["new"], first.computed or first.totals.records) == ("done", 4, 12)
    for name in ("0000.jpg", "zzz.jpg", "later.jpg"):
        nights.add([name])
        counts = nights.prepare().counts()
        assert 1 <= counts["new"] + counts["changed"] == counts["left"] <= 2
        assert counts["removed"] == 0
        entry = nights.night()
        assert entry.state == "done"
        assert entry.shards == {**counts, "left": 0}
        assert entry.totals.records <= 5
        assert nights.ids() == nights.names()
    assert verify(str(nights.output), read_input=True).problems == []


def test_changed_and_removed_photographs(nights: Nights) -> None:
    nights.add(numbered(*range(40)))
    nights.night()
    nights.add(numbered(7), version=1)
    shards = nights.night().shards
    assert shards == {"total": shards["total"], "new": 0, "changed": 1, "removed": 0, "left": 0}
    for name in numbered(3, 4, 5):
        (nights.input / name).unlink()
    entry = nights.night()
    assert (entry.state, entry.current["records"], entry.current["errors"]) == ("done", 37, 0)
    assert nights.ids() == nights.names()
    retired = sum(len(list(p.glob("*.parquet"))) for p in (nights.output / "retired").iterdir())
    assert retired >= 2
    assert {r.removed for r in read_catalog(Store(str(nights.output))).values()} >= {None}
    assert verify(str(nights.output), read_input=True).problems == []


@pytest.mark.parametrize("chunks", range(5))
def test_a_split_that_the_deadline_stops_is_finished_by_the_next_night(nights: Nights, chunks: int) -> None:
    """Two full leaves become more; until all that take over the images of one are there, the one stays."""
    nights.add(numbered(*range(8)))
    nights.night()
    before = nights.ids()
    nights.add(numbered(*range(100, 112)))
    stopped = nights.night(chunks)
    found = nights.ids()
    assert len(set(found)) == len(found)
    assert set(before) <= set(found)
    assert stopped.state == "stopped"
    assert stopped.shards["left"] > 0
    assert stopped.current["records"] == len(found)
    assert stopped.shards["removed"] == 0
    done = nights.night()
    assert (done.state, done.current["records"], nights.ids()) == ("done", 20, nights.names())
    assert list((nights.output / STAGED).glob("*")) == []
    assert verify(str(nights.output), read_input=True).problems == []


@pytest.mark.parametrize("seed", range(4))
def test_nothing_current_is_lost_or_doubled_however_a_corpus_changes_and_nights_stop(tmp_path: Path, seed: int) -> None:
    """After each night, stopped or not: every image that was current and is in the input still is, and just once."""
    rng, nights = random.Random(seed), Nights(tmp_path, chunk_size=2)
    nights.add(numbered(*range(10)))
    nights.night()
    for _ in range(5):
        present = nights.names()
        for name in rng.sample(present, rng.randint(0, 3)):
            (nights.input / name).unlink()
        nights.add(rng.sample(nights.names(), 1), version=rng.randint(1, 9))
        nights.add(numbered(*rng.sample(range(200), rng.randint(0, 6))))
        before = nights.ids()
        entry = nights.night(rng.choice([None, 0, 1, 2, 3]), max_removed=1)
        found = nights.ids()
        assert len(set(found)) == len(found)
        assert set(before) & set(nights.names()) <= set(found)
        assert entry.current["records"] == len(found)
        assert entry.state == "stopped" or found == nights.names()
    assert nights.night(max_removed=1).state == "done"
    assert nights.ids() == nights.names()
    assert verify(str(nights.output), read_input=True).problems == []


def test_a_folder_that_lost_most_of_its_images_is_not_believed(nights: Nights) -> None:
    nights.add(numbered(*range(20)))
    nights.night()
    masks = nights.ids()
    hidden = {n: (nights.input / n).read_bytes() for n in numbered(*range(11))}
    for name in hidden:
        (nights.input / name).unlink()
    for lost in ("", "shards.parquet"):  # with the catalog and without it
        if lost:
            (nights.output / lost).unlink()
        with pytest.raises(PlanError, match=r"11 of its 20 loose images are gone .* max_removed = 0.5"):
            nights.prepare()
    assert nights.ids() == masks
    assert nights.night(max_removed=0.6).current["records"] == 9


def test_tars_beside_images_are_guarded_as_before(nights: Nights) -> None:
    for n in range(3):
        write_tar(nights.input / "tars" / f"{n}.tar", [("a.jpg", IMAGES[n])])
    (nights.input / "photos").mkdir()
    nights.spec = here.spec([f"{nights.input}/tars", f"{nights.input}/photos"], nights.output)
    nights.add([f"photos/{n}.jpg" for n in range(9)])
    nights.night()
    for n in range(2):
        (nights.input / "tars" / f"{n}.tar").unlink()
    with pytest.raises(PlanError, match=r"2 of its 3 shards are gone"):
        nights.prepare()
    nights.add([f"photos/a{n}.jpg" for n in range(9)])
    with pytest.raises(PlanError, match=r"2 of its 3 shards are gone"):
        nights.prepare()


def test_a_night_goes_on_where_a_plain_run_has_been(nights: Nights) -> None:
    nights.add(numbered(*range(9)))
    here.run(nights.spec)
    nights.add(numbered(50, 51))
    entry = nights.night()
    assert (entry.state, nights.ids()) == ("done", nights.names())
    here.run(nights.spec)
    assert len(Ledger.read(Store(str(nights.output)))) == entry.shards["total"]


def test_a_crash_while_leaves_change_places_is_made_good(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    nights.add(numbered(*range(8)))
    nights.night()
    nights.add(numbered(*range(100, 112)))

    def killed(*names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        nights.night()
    monkeypatch.undo()
    assert nights.night().state == "done"
    assert nights.ids() == nights.names()
    assert verify(str(nights.output), read_input=True).problems == []


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_a_damaged_file_that_waits_for_its_shard_is_computed_again(nights: Nights, content: bytes) -> None:
    write_tar(nights.input / "a.tar", [(name, IMAGES[0]) for name in numbered(*range(12))])
    assert nights.night(chunks=2).state == "stopped"
    damaged = min((nights.output / STAGED).iterdir())
    damaged.write_bytes(content)
    assert nights.night().state == "done"
    assert (nights.output / "set-aside" / damaged.name).read_bytes() == content
    assert len(nights.ids()) == 12
    assert verify(str(nights.output), read_input=True).problems == []


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_a_damaged_current_file_is_computed_again_by_the_next_night(nights: Nights, content: bytes) -> None:
    nights.add(numbered(*range(12)))
    nights.night()
    damaged = min((nights.output / "masks").iterdir())
    before = damaged.read_bytes()
    damaged.write_bytes(content)
    entry = nights.night()
    assert (entry.state, entry.current["records"]) == ("done", 12)
    assert damaged.read_bytes() == before
    assert (nights.output / "set-aside" / damaged.name).read_bytes() == content
    assert verify(str(nights.output), read_input=True).problems == []


def test_a_night_whose_output_is_taken_over_changes_nothing_more(nights: Nights) -> None:
    nights.add(numbered(*range(12)))
    nights.night()
    nights.add(numbered(20, 21))
    found = nights.prepare()
    found.plan = establish(found.plan)
    work = iter(execute(found.plan))
    next(work)
    here.run(nights.spec.model_copy(update={"prune": 0.01, "overwrite": True}))
    with pytest.raises(OutputTaken):
        next(work)
    lease = Lease.take(Store(str(nights.output.parent / "state")), 1e6, lambda: 0.0, "a night")
    with lease.kept(), pytest.raises(OutputTaken):
        promote(found, "2026-11-20", lease, 1.0)
    assert verify(str(nights.output), read_input=True).problems == []
