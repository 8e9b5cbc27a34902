"""Nights over a corpus that grows, changes, shrinks and shifts, on real Ray."""

from __future__ import annotations

import datetime
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pytest

from segbatch.errors import SpecError
from segbatch.operations.nightly.night import run_night
from segbatch.operations.nightly.record import NightReport
from segbatch.operations.nightly.summary import to_markdown
from segbatch.operations.verify import verify
from segbatch.output.catalog import read_catalog
from segbatch.output.output import Output
from segbatch.output.promotion import Promotion, apply_promotion
from segbatch.results.dataset import MaskDataset
from segbatch.storage.store import Store
from tests.cluster.jobs import committed, rows
from tests.corpus import photographs, write_folder
from tests.operations.nightly.nights import DAY, HOUR, JOB, MIDNIGHT, Bench, shard, spoil
from tests.reporters import Said

pytestmark = pytest.mark.usefixtures("local_ray")


@dataclass
class Told:
    """One of the nights: its record, the shards it opened, the output it left."""

    night: NightReport
    opened: list[str]
    output: Path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield Bench(tmp_path_factory.mktemp("nights"), monkeypatch)


@pytest.fixture(scope="module")
def nights(bench: Bench) -> list[Told]:
    """First: two shards. Then one more; one more, one changed, one removed; one whose pictures are brighter."""
    told = []

    def night() -> None:
        found = bench.night(len(told))
        opened = bench.opened.copy()
        copy = bench.folder / f"after-{len(told)}"
        told.append(Told(found, opened, Path(shutil.copytree(bench.output, copy))))
        for path in bench.input.glob("*.tar"):
            spoil(path)  # no later night may open what is done

    shard(bench.input, 0)
    shard(bench.input, 1)
    night()
    shard(bench.input, 2)
    night()
    shard(bench.input, 3)
    shard(bench.input, 0, seed=1)
    (bench.input / "shard-001.tar").unlink()
    night()
    shard(bench.input, 4, brightness=0.7)
    night()
    return told


def street(told: Told) -> Any:
    return told.night.datasets["street"]


def test_the_previews_of_a_night_are_those_of_its_rows(nights: list[Told]) -> None:
    for told in nights:
        output = Output.open(str(told.output))
        masks = [
            i
            for b in output.batches(["image_id", "mask"], pc.field("mask").is_valid())
            for i in b["image_id"].to_pylist()
        ]
        assert sorted(p.image_id for p in output.previews()) == sorted(masks)
        assert [f.name for f in (told.output / "previews").iterdir()] == ["sample.parquet"]


def test_each_night_opens_only_what_is_new(nights: list[Told]) -> None:
    assert [sorted(t.opened) for t in nights] == [
        ["shard-000.tar", "shard-001.tar"],
        ["shard-002.tar"],
        ["shard-000.tar", "shard-003.tar"],
        ["shard-004.tar"],
    ]
    assert [street(t).computed for t in nights] == [60, 30, 60, 30]
    assert all(street(t).state == "done" for t in nights)


def test_every_morning_each_record_is_there_once(nights: list[Told]) -> None:
    for told, images in zip(nights, (60, 90, 90, 120), strict=True):
        found = rows(told.output)
        assert len({r["image_id"] for r in found}) == len(found) == images
        assert all(r["error"] is None for r in found)
        sums = MaskDataset.open(str(told.output))
        assert (sums.is_complete, sums.totals.records) == (True, images)
        query = f"select count(distinct image_id) from '{told.output}/masks/*.parquet'"
        assert duckdb.connect().execute(query).fetchone() == (images,)
        assert (told.output / "_SUCCESS").exists()
        assert not list((told.output / "incoming").glob("*"))


def test_the_last_state_is_proved_against_the_input(nights: list[Told], bench: Bench) -> None:
    report = verify(str(bench.output))
    assert report.ok, report.problems
    assert report.against == "compared with 4 input shards"


def test_what_changed_and_what_was_removed_is_told_and_kept_aside(nights: list[Told]) -> None:
    third = nights[2]
    assert street(third).shards == {"total": 3, "new": 1, "changed": 1, "removed": 1, "left": 0}
    assert street(third).names == {"new": ["shard-003.tar"], "changed": ["shard-000.tar"], "removed": ["shard-001.tar"]}
    retired = {f.name for f in (third.output / "retired" / "2026-11-22").glob("*")}
    before, after = committed(nights[1].output), committed(third.output)
    assert retired == before - after
    assert len(retired) == 6
    catalog = read_catalog(Store(str(third.output)))
    assert {n: (r.night, r.change, r.removed) for n, r in catalog.items()} == {
        "shard-000.tar": ("2026-11-22", "changed", None),
        "shard-001.tar": ("2026-11-20", "new", "2026-11-22"),
        "shard-002.tar": ("2026-11-21", "new", None),
        "shard-003.tar": ("2026-11-22", "new", None),
    }


def test_a_shift_of_content_is_an_alert_and_ordinary_nights_are_none(nights: list[Told]) -> None:
    assert [t.night.exit_code for t in nights] == [0, 0, 0, 4]
    assert [len(street(t).drift) for t in nights] == [0, 3, 3, 3]
    assert "drift is not judged" in street(nights[0]).notes[0]
    assert not any(street(t).alerts for t in nights[:3])
    shifted = street(nights[3])
    assert shifted.compared_with == ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert [a.partition(":")[0] for a in shifted.alerts] == ["drift of share of pixels", "drift of images containing"]
    assert "bright" in shifted.alerts[0]


def test_the_summary_is_the_record_in_words(nights: list[Told], bench: Bench) -> None:
    folder = bench.state / "nights" / "2026-11-23"
    page, record = (folder / "summary.md").read_text(), json.loads((folder / "night.json").read_text())
    assert page == to_markdown(nights[3].night)
    assert page.splitlines()[0] == "# Night of 2026-11-23: DRIFT: street"
    assert "| street  | done  |   1 |       0 |       0 |    0 |     30 |      0 |" in page
    assert "**alert**: drift of share of pixels: bright" in page
    assert (record["exit_code"], record["verdict"]) == (4, "DRIFT: street")
    assert record["datasets"]["street"]["totals"]["records"] == 30


def test_a_night_without_news_does_nothing(nights: list[Told], bench: Bench) -> None:
    before = {p: p.stat().st_mtime_ns for p in bench.output.rglob("*") if p.is_file()}
    night = bench.night(4)
    assert (night.exit_code, bench.opened) == (0, [])
    assert night.datasets["street"].shards == {"total": 4, "new": 0, "changed": 0, "removed": 0, "left": 0}
    assert {p: p.stat().st_mtime_ns for p in bench.output.rglob("*") if p.is_file()} == before


@pytest.mark.long
def test_the_deadline_stops_a_night_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six o'clock comes with the second chunk of sixteen, of 0.4 s each."""
    bench = Bench(tmp_path, monkeypatch, {"job": JOB | {"model": "tests.networks:slow"}})
    for number in range(2):
        shard(bench.input, number, images=10)
    assert bench.night(0).verdict == "ok"
    for number in range(8):
        shard(bench.input, number, images=20, seed=1)

    def clock() -> float:
        chunks = len(list((bench.output / "incoming").glob("*.parquet")))
        return MIDNIGHT + DAY + (6 if chunks >= 2 else 1) * HOUR

    first = bench.night(1, clock, until="06:00", lease_seconds=3 * DAY)
    entry = first.datasets["street"]
    left = entry.shards["left"]
    assert (first.exit_code, entry.state) == (0, "stopped")
    assert first.verdict == f"stopped at the deadline, {left} shards left for the next night"
    assert 0 < left <= 8
    assert entry.shards["new"] + entry.shards["changed"] == 8 - left
    found = rows(bench.output)
    assert len({r["image_id"] for r in found}) == len(found), "no shard is there in two versions"
    images = Counter(Path(r["source"]).name for r in found)
    assert sum(n == 20 for n in images.values()) == 8 - left
    assert {n for name, n in images.items() if n != 20} <= {10}, "no shard is there in part"
    assert images.keys() >= {"shard-000.tar", "shard-001.tar"}, "a changed one keeps its masks until it has new ones"
    assert not (bench.output / "_SUCCESS").exists()

    second = bench.night(2)
    assert second.verdict == "ok"
    assert len(bench.opened) == left
    assert entry.computed + second.datasets["street"].computed == 160
    assert Counter(Path(r["source"]).name for r in rows(bench.output)) == {f"shard-{n:03d}.tar": 20 for n in range(8)}
    assert verify(str(bench.output)).ok


@pytest.fixture
def after(nights: list[Told], bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The state and the output after the four nights, in a copy of their own, over the same input."""
    copy = Bench(tmp_path, monkeypatch)
    for folder in (copy.output, copy.state):
        shutil.copytree(bench.folder / folder.name, folder)
    copy.options = {"datasets": {"street": {"inputs": [f"{bench.input}/*.tar"], "output": str(copy.output)}}}
    return copy


def test_old_nights_are_forgotten_and_current_masks_are_not(after: Bench) -> None:
    masks = committed(after.output)
    assert [p.name for p in (after.output / "retired").glob("*")] == ["2026-11-22"]
    after.night(4, keep_nights=3, drift={"nights": 3})
    assert sorted(p.name for p in (after.state / "nights").glob("*")) == ["2026-11-22", "2026-11-23", "2026-11-24"]
    assert (after.output / "retired" / "2026-11-22").exists()
    after.night(5, keep_nights=3, drift={"nights": 3})
    assert not (after.output / "retired" / "2026-11-22").exists()
    assert committed(after.output) == masks


def test_a_dataset_that_cannot_be_read_does_not_keep_the_others(after: Bench) -> None:
    lost = {"inputs": str(after.folder / "gone"), "output": str(after.folder / "none")}
    night = after.night(4, datasets={"lost": lost, **after.options["datasets"]})
    assert (night.exit_code, night.verdict) == (2, "FAILED: lost")
    assert "does not exist" in night.datasets["lost"].message
    assert night.datasets["street"].state == "done"
    assert "**alert**: failed: " in to_markdown(night)
    assert not (after.folder / "none").exists()


def test_inputs_that_have_nearly_vanished_are_not_believed(after: Bench, bench: Bench) -> None:
    masks = committed(after.output)
    fewer = {"street": {"inputs": [f"{bench.input}/*.tar"], "output": str(after.output)}}
    hidden = [bench.input / f"shard-00{n}.tar" for n in (2, 3, 4)]
    for path in hidden:
        path.rename(path.with_suffix(".hidden"))
    try:
        night = after.night(4, datasets=fewer)
    finally:
        for path in hidden:
            path.with_suffix(".hidden").rename(path)
    assert night.exit_code == 2
    assert "3 of its 4 shards are gone from the inputs" in night.datasets["street"].message
    assert committed(after.output) == masks
    assert after.night(4).verdict == "ok"


def test_a_switch_that_a_crash_interrupted_is_completed(after: Bench) -> None:
    store = Store(str(after.output))
    masks = sorted(committed(after.output))
    apply_promotion(store, Promotion(folder="retired/x", promote=[], retire=masks[:1]))
    store.move(f"retired/x/{masks[0]}", f"incoming/{masks[0]}")
    store.write("switch.json", json.dumps({"folder": "retired/x", "arrive": masks[:1]}).encode())
    assert after.night(4).verdict == "ok"
    assert sorted(committed(after.output)) == masks
    assert verify(str(after.output)).ok
    assert (after.opened, store.exists("switch.json")) == ([], False)


def test_a_catalog_that_is_lost_is_made_anew(after: Bench) -> None:
    (after.output / "shards.parquet").unlink()
    night = after.night(4)
    assert night.datasets["street"].shards == {"total": 4, "new": 0, "changed": 0, "removed": 0, "left": 0}
    assert night.datasets["street"].current == {"records": 120, "errors": 0, "failed_shards": 0}
    assert len(read_catalog(Store(str(after.output)))) == 4


def test_a_webhook_that_fails_is_told_and_fails_nothing(after: Bench) -> None:
    night = after.night(4, webhook={"url": "http://127.0.0.1:9/SECRET", "attempts": 1})
    assert (night.exit_code, night.webhook) == (0, "127.0.0.1: ConnectionRefusedError, 1 times")
    folder = after.state / "nights" / "2026-11-24"
    assert "The webhook did not take this summary: 127.0.0.1" in (folder / "summary.md").read_text()
    assert "SECRET" not in (folder / "night.json").read_text()


def test_a_date_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And more error rows than the job allows are exit code 3."""
    bench = Bench(tmp_path, monkeypatch)
    for day in ("2026-11-20", "2026-11-21"):
        (bench.input / day).mkdir()
        write_folder(bench.input / day, [*photographs(3, side=32), ("page.jpg", b"<html>gone</html>")])
    dated = {"inputs": f"{bench.input}/{{date}}", "output": f"{bench.output}/{{date}}", "chunk_size": 4}
    dated["image_member"] = "jpg"
    datasets = {"photos": dated, "street": {"inputs": str(tmp_path / "absent"), "output": str(tmp_path / "never")}}
    night = run_night(
        bench.spec(datasets=datasets),
        date=datetime.date(2026, 11, 20),
        clock=lambda: MIDNIGHT + 3 * DAY,
        reporter=Said(bench.told),
    )
    assert night is not None
    assert ["image_member" in text for text in bench.told].count(True) == 1, "a warning is reported once"
    assert (night.date, list(night.datasets), night.exit_code) == ("2026-11-20", ["photos"], 3)
    assert night.datasets["photos"].alerts == ["25.00% of all records are errors, more than max_error_fraction 1.00%"]
    assert night.verdict == "TOO MANY ERRORS: photos"
    assert [p.name for p in bench.output.glob("*")] == ["2026-11-20"]
    assert len(rows(bench.output / "2026-11-20")) == 4
    with pytest.raises(SpecError, match="2026-11-29 is in the future, today's night is 2026-11-23"):
        run_night(bench.spec(datasets=datasets), date=datetime.date(2026, 11, 29), clock=lambda: MIDNIGHT + 3 * DAY)
