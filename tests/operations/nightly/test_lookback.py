"""Files that come late for an earlier date: found by a later night, done or named, and judged by themselves."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from segbatch.config.nightly import NightlySpec
from segbatch.operations.nightly.explain import explain
from segbatch.operations.nightly.lookback import EarlierDate, Lookback, earlier_dates, look_back
from segbatch.operations.nightly.night import run_night
from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.operations.nightly.reports import write_night
from segbatch.operations.nightly.summary import to_markdown
from segbatch.storage.store import Store
from tests import here
from tests.cluster.jobs import rows
from tests.corpus import photographs, write_tar
from tests.operations.nightly.nights import DAY, HOUR, MIDNIGHT

TODAY = datetime.date(2026, 11, 20)
SAMPLES = photographs(6, side=32)


def day(ago: int) -> datetime.date:
    return TODAY - datetime.timedelta(ago)


class Camera:
    """A dataset by date, and its nights on a clock of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, Store(str(folder / "state"))

    def spec(self, **more: Any) -> NightlySpec:
        dated = {"inputs": f"{self.folder}/in/{{date}}/*.tar", "output": f"{self.folder}/out/{{date}}"}
        job = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 4, "num_cpus": 2}
        fields = {"state": str(self.folder / "state"), "job": job, "datasets": {"cam": dated}}
        return NightlySpec.create(**fields | more)

    def deliver(self, ago: int, name: str, images: int = 2) -> Path:
        return write_tar(self.folder / "in" / str(day(ago)) / f"{name}.tar", SAMPLES[:images])

    def done(self, ago: int) -> None:
        """What a night of that date has left."""
        here.run(self.spec().job_of("cam", day(ago)))
        write_night(
            self.state,
            NightReport(
                date=str(day(ago)),
                started="2026-11-01T01:00:00+00:00",
                finished="",
                datasets={"cam": DatasetReport(output="x")},
            ),
        )

    def late(self, **more: Any) -> list[EarlierDate]:
        spec = self.spec(**more)
        return earlier_dates(spec, list(spec.datasets), TODAY, self.state)

    def plan(self, **more: Any) -> str:
        return explain(self.spec(**more), clock=self.clock)

    def look_back(self, earlier: EarlierDate, **more: Any) -> Lookback | None:
        return look_back(earlier, self.spec(**more), self.state)

    @staticmethod
    def clock() -> float:
        return MIDNIGHT + HOUR

    def masks(self, ago: int) -> int:
        return len(rows(self.folder / "out" / str(day(ago))))


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    return Camera(tmp_path)


def test_dates_that_were_done_are_looked_at_the_last_first(camera: Camera) -> None:
    for ago in (1, 2, 4):
        camera.deliver(ago, "a")
        camera.done(ago)
    assert [e.entry for e in camera.late()] == ["cam 2026-11-19"]
    assert [e.date for e in camera.late(lookback_days=3)] == [day(1), day(2), day(3)]
    assert camera.late(lookback_days=0) == []


def test_a_date_before_the_first_night_is_left_to_date(camera: Camera) -> None:
    """A first night does not do yesterday, and one that failed, or in which nothing was delivered, is made up for."""
    camera.deliver(1, "a")
    assert camera.late() == []
    write_night(
        camera.state,
        NightReport(
            date=str(day(2)),
            started="2026-11-18T01:00:00+00:00",
            finished="",
            datasets={"other": DatasetReport(output="x")},
        ),
    )
    assert camera.late() == []
    write_night(
        camera.state,
        NightReport(
            date=str(day(1)),
            started="2026-11-19T01:00:00+00:00",
            finished="",
            datasets={"cam": DatasetReport(output="x")},
        ),
    )
    assert [e.date for e in camera.late(lookback_days=5)] == [day(1)]


def test_datasets_without_a_date_and_parts_that_tonight_does_itself_are_left_out(camera: Camera) -> None:
    camera.deliver(1, "a")
    camera.done(1)
    plain = {"inputs": "in", "output": "out"}
    monthly = {"inputs": f"{camera.folder}/in/{{date:%Y-%m}}-*", "output": f"{camera.folder}/monthly/{{date:%Y-%m}}"}
    assert camera.late(datasets={"plain": plain, "monthly": monthly}, lookback_days=9) == []


@pytest.mark.parametrize("is_finished", [True, False])
def test_what_is_new_is_to_do_and_without_news_nothing_is(camera: Camera, is_finished: bool) -> None:
    camera.deliver(1, "a")
    camera.done(1)
    if not is_finished:
        camera.deliver(1, "late")
    (earlier,) = camera.late()
    found = camera.look_back(earlier)
    assert found is not None
    assert found.work is not None
    assert found.work.has_news is not is_finished
    assert found.work.counts()["new"] == (0 if is_finished else 1)


def test_inputs_that_do_not_exist_are_no_failure(camera: Camera) -> None:
    camera.deliver(0, "today")
    camera.deliver(1, "a")
    camera.done(1)
    (camera.folder / "in" / str(day(1)) / "a.tar").unlink()
    (earlier,) = camera.late()
    assert camera.look_back(earlier) is None
    (camera.folder / "in" / str(day(1))).rmdir()
    assert camera.look_back(earlier) is None
    assert str(day(1)) not in camera.plan()


def test_masks_of_inputs_that_were_moved_away_stay(camera: Camera) -> None:
    for name in ("a", "b", "c"):
        camera.deliver(1, name)
    camera.deliver(0, "today")
    camera.done(1)
    camera.deliver(1, "late")
    (camera.folder / "in" / str(day(1)) / "a.tar").unlink()
    (earlier,) = camera.late()
    found = camera.look_back(earlier)
    assert found is not None
    why = found.reason
    assert (found.work, why) == (
        None,
        "1 of its 3 shards are gone from its inputs; `segbatch nightly CONFIG --date 2026-11-19` computes "
        "what is new there, and archives the masks of those",
    )
    assert f"cam 2026-11-19 is left unchanged: {why}" in " ".join(camera.plan().split())
    assert camera.masks(1) == 6


def test_an_output_of_other_settings_is_left(camera: Camera) -> None:
    camera.deliver(1, "a")
    camera.done(1)
    other = {"model": "tests.networks:fast", "refiner": "none", "prune": 0.1}
    (earlier,) = camera.late(job=other)
    found = camera.look_back(earlier, job=other)
    assert found is not None
    assert "prune" in found.reason


def test_the_plan_names_earlier_dates_and_an_explicit_date_looks_at_no_other(camera: Camera) -> None:
    camera.deliver(0, "today")
    camera.deliver(1, "a")
    camera.done(1)
    camera.deliver(1, "late")
    plan = camera.plan()
    assert "cam          1 of 1 shard to compute: 1 new, 0 changed; 0 gone" in plan
    assert "cam 2026-11-19 1 of 2 shards to compute: 1 new, 0 changed; 0 gone; output " in plan
    for date in (TODAY, day(1)):
        assert "cam 2026" not in explain(camera.spec(), date=date, clock=camera.clock)


@pytest.mark.usefixtures("local_ray")
def test_nights_do_what_came_late_after_their_own_and_say_so(camera: Camera) -> None:
    camera.deliver(0, "today")
    camera.deliver(1, "a")
    camera.done(1)
    camera.deliver(1, "late", images=4)
    camera.deliver(1, "bad").write_bytes(b"not a tar")

    def clock() -> float:
        """Six o'clock comes with tonight's masks."""
        return MIDNIGHT + (6 if (camera.folder / "out" / str(TODAY) / "_SUCCESS").exists() else 1) * HOUR

    spec = camera.spec(lease_seconds=DAY)
    first = run_night(spec, clock=clock, until="06:00")
    assert first is not None
    states = {name: (e.state, e.shards["new"], e.shards["left"]) for name, e in first.datasets.items()}
    assert states == {"cam": ("done", 1, 0), "cam 2026-11-19": ("waiting", 0, 2)}
    assert first.verdict == "stopped at the deadline, 2 shards left for the next night"
    assert (camera.masks(0), camera.masks(1)) == (2, 2)

    second = run_night(spec, clock=lambda: MIDNIGHT + HOUR)
    assert second is not None
    assert {e.state for e in second.datasets.values()} == {"done"}
    assert (camera.masks(0), camera.masks(1)) == (2, 7)
    assert (second.exit_code, second.verdict) == (3, "TOO MANY ERRORS: cam 2026-11-19")
    assert [e.drift for e in second.datasets.values()] == [[], []]
    assert "| cam 2026-11-19 | done  |   2 |" in to_markdown(second)

    third = run_night(spec, clock=lambda: MIDNIGHT + DAY + HOUR)
    assert third is not None
    assert list(third.datasets) == ["cam"], "a date without news has no entry"
