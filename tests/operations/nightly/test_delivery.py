"""Dates for which nothing was delivered: not a wrong configuration, which is named as before."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from segbatch.config.nightly import NightlySpec
from segbatch.errors import MissingInput, SpecError
from segbatch.operations.nightly.delivery import dates_beside, plan_delivered
from segbatch.operations.nightly.explain import explain
from segbatch.operations.nightly.night import run_night
from segbatch.operations.nightly.record import DatasetReport, NightReport
from segbatch.operations.nightly.reports import read_night, write_night
from segbatch.operations.nightly.summary import to_markdown
from segbatch.storage.files import Files
from segbatch.storage.listing import expand_braces
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_folder, write_tar
from tests.operations.nightly.nights import HOUR, MIDNIGHT

TODAY = datetime.date(2026, 11, 20)
LAST_WEEK = datetime.date(2026, 11, 13)
IMAGES = photographs(2, side=24)


def clock() -> float:
    return MIDNIGHT + HOUR


class Partner:
    """Datasets of whom nothing is there for today."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, Store(str(folder / "state"))

    def spec(self, inputs: str | list[str], output: str = "{date}", **more: Any) -> NightlySpec:
        given = [inputs] if isinstance(inputs, str) else inputs
        rooted = [i if "://" in i else f"{self.folder}/{i}" for i in given]
        dataset = {"inputs": rooted, "output": f"{self.folder}/out/{output}", **more}
        job = {"model": "tests.networks:fast", "refiner": "none", "chunk_size": 4}
        return NightlySpec.create(state=self.state.uri, job=job, datasets={"street": dataset})

    def deliver(self, folder: str) -> None:
        write_folder(self.folder / folder, IMAGES)

    def absent(self, *args: Any, **more: Any) -> tuple[bool, list[str]]:
        """Whether there is work, and the inputs for which nothing was delivered, below the folder."""
        spec = self.spec(*args, **more)
        work, absent = plan_delivered(spec, "street", TODAY, self.state, dry_run=True)
        return work is not None, [a.removeprefix(f"{self.folder}/") for a in absent]


@pytest.fixture
def partner(tmp_path: Path) -> Partner:
    return Partner(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "delivered"),
    [
        ("in/{date}", "in/2026-11-13"),
        ("in/{date}/", "in/2026-11-13"),
        ("in/{date}/*.jpg", "in/2026-11-21"),
        ("in/{date:%Y/%m/%d}/cam-1", "in/2025/03/04/cam-1"),
        ("in/{date:%Y}/day-{date}/**", "in/2026/day-2026-11-13"),
        ("in/*/{date:%Y%m%d}/*", "in/left/20261113"),
        ("in/{left,right}/{date}", "in/{left,right}/2026-11-13"),
        ("in/{date:%d.%b.%Y}", "in/13.Nov.2026"),
    ],
)
def test_nothing_is_there_for_a_date_and_something_for_another(partner: Partner, inputs: str, delivered: str) -> None:
    for folder in expand_braces(delivered):
        partner.deliver(folder)
    (partner.folder / "in" / "notes.txt").write_text("")
    is_work, (absent,) = partner.absent(inputs)
    assert not is_work
    assert "{date" not in absent


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ("inn/{date}", "/in"),  # a slip before the date
        ("in/{date}/cam-2", "2026-11-13"),  # after it: no date has such a folder
        ("in/{date}/*.jpgg", "2026-11-13"),
        ("in/{date:%Y%m%d}", "2026-11-13"),  # of its form
        ("other/{date}", "other"),  # never anything there
        (["in/{date}", "in/absent.tar"], "absent.tar"),
    ],
)
def test_a_path_that_was_never_right_is_an_error(partner: Partner, inputs: str | list[str], says: str) -> None:
    partner.deliver("in/2026-11-13/cam-1")
    (partner.folder / "other").mkdir()
    with pytest.raises(MissingInput, match=says) as e:
        partner.absent(inputs, allow_empty=True)
    assert e.value.exit_code == 2


def test_an_empty_folder_of_the_date_is_a_date_with_nothing_delivered(partner: Partner) -> None:
    folder = partner.folder / "in" / str(TODAY)
    folder.mkdir(parents=True)
    (folder / ".incomplete").write_text("")
    for inputs in ("in/{date}", "in/{date}/*.tar"):
        assert partner.absent(inputs) == (False, [inputs.format(date=TODAY)])


def test_files_that_cannot_be_read_are_a_delivery(partner: Partner) -> None:
    partner.deliver("in/2026-11-13")
    (partner.folder / "in" / str(TODAY)).mkdir()
    (partner.folder / "in" / str(TODAY) / "a.xyz").write_text("")
    with pytest.raises(MissingInput, match=r"only 1 with an unknown suffix"):
        partner.absent("in/{date}", allow_empty=True)


def test_deliveries_that_are_moved_away_leave_the_masks_as_proof(partner: Partner) -> None:
    """Of the same path only: another one may hold a slip."""
    partner.deliver("in/2026-11-13")
    spec = partner.spec("in/{date}")
    here.run(spec.job_of("street", LAST_WEEK))
    report = NightReport(date=str(LAST_WEEK), started="", datasets={"street": DatasetReport(output="x")})
    write_night(partner.state, report)
    (partner.folder / "in" / "2026-11-13").rename(partner.folder / "archive")
    assert partner.absent("in/{date}") == (False, ["in/2026-11-20"])
    with pytest.raises(MissingInput):
        partner.absent("im/{date}")


def test_prefixes_of_an_object_store(partner: Partner) -> None:
    with fsspec.filesystem("memory").open("/delivery/in/2026-11-13/a.png", "wb") as f:
        f.write(IMAGES[0][1])
    assert partner.absent("memory://delivery/in/{date}")[1] == ["memory://delivery/in/2026-11-20"]
    assert partner.absent("memory://delivery/in/{date}/*.png")[1]
    for slip in ("memory://delivery/im/{date}", "memory://delivery/in/{date}/*.jpg"):
        with pytest.raises(MissingInput):
            partner.absent(slip)


def test_one_of_several_inputs(partner: Partner) -> None:
    """All are needed, unless the dataset allows an empty one; its images can still come later."""
    partner.deliver("in/left/2026-11-20")
    partner.deliver("in/right/2026-11-13")
    inputs = ["in/left/{date}", "in/right/{date}"]
    assert partner.absent(inputs) == (False, ["in/right/2026-11-20"])
    assert partner.absent(inputs, allow_empty=True) == (True, ["in/right/2026-11-20"])
    spec = partner.spec(inputs, allow_empty=True)
    work, _ = plan_delivered(spec, "street", TODAY, partner.state)
    assert work is not None
    assert work.plan.job.root == f"{partner.folder}/in"


def test_a_growing_dataset_is_empty_before_its_first_masks_only(partner: Partner) -> None:
    (partner.folder / "in").mkdir()
    for inputs in ("in", "in/*.tar"):
        assert partner.absent(inputs, "all") == (False, [inputs])
    for slip in ("im", "im/*.tar"):
        with pytest.raises(MissingInput):
            partner.absent(slip, "all")
    partner.deliver("in")
    with pytest.raises(MissingInput):  # a pattern that may hold a slip
        partner.absent("in/*.tra", "all")
    here.run(partner.spec("in", "all").job_of("street", TODAY))
    for path in (partner.folder / "in").iterdir():
        path.unlink()
    with pytest.raises(MissingInput, match="holds no shard and no image"):  # as after a failed mount
        partner.absent("in", "all", allow_empty=True)


@pytest.mark.parametrize(
    ("top", "own", "code", "verdict"),
    [
        ({}, {}, 4, "NOTHING DELIVERED: street"),
        ({"allow_empty": True}, {}, 0, "ok"),
        ({}, {"allow_empty": True}, 0, "ok"),
        ({"job": {"allow_empty": True}}, {}, 0, "ok"),
        ({"allow_empty": True}, {"allow_empty": False}, 4, "NOTHING DELIVERED: street"),
    ],
)
def test_a_night_in_which_nothing_was_delivered(
    partner: Partner, top: dict[str, Any], own: dict[str, Any], code: int, verdict: str
) -> None:
    partner.deliver("in/2026-11-13")
    dataset = {"inputs": f"{partner.folder}/in/{{date}}", "output": f"{partner.folder}/out/{{date}}", **own}
    spec = NightlySpec.create(state=partner.state.uri, datasets={"street": dataset}, **top)
    assert f"nothing is there: {partner.folder}/in/2026-11-20" in explain(spec, clock=clock)
    night = run_night(spec, clock=clock, config="n.yaml")
    assert night is not None
    assert (night.exit_code, night.verdict, night.datasets["street"].state) == (code, verdict, "empty")
    text = to_markdown(night)
    assert f"nothing is there: {partner.folder}/in/2026-11-20" in text
    assert ("segbatch nightly" in text) == (code != 0)
    assert read_night(partner.state, str(TODAY)) == night
    assert not (partner.folder / "out").exists()


def test_a_second_start_keeps_what_the_first_has_computed(partner: Partner) -> None:
    partner.deliver("in/2026-11-13")
    first = DatasetReport(output="x", state="done", computed=7, current={"records": 7, "errors": 0}, alerts=["a"])
    write_night(partner.state, NightReport(date=str(TODAY), started="2026-11-20", datasets={"street": first}))
    night = run_night(partner.spec("in/{date}", allow_empty=True), clock=clock)
    assert night is not None
    entry = night.datasets["street"]
    assert (night.exit_code, entry.state, entry.computed, entry.alerts) == (0, "empty", 7, [])


def test_a_second_start_forgets_datasets_that_are_no_longer_configured(partner: Partner) -> None:
    partner.deliver("in/2026-11-13")
    failed = DatasetReport(output="x", state="failed", exit_code=2)
    datasets = {"gone": failed, "gone 2026-11-19": failed}
    write_night(partner.state, NightReport(date=str(TODAY), started="2026-11-20", datasets=datasets))
    night = run_night(partner.spec("in/{date}", allow_empty=True), clock=clock)
    assert night is not None
    assert (night.exit_code, list(night.datasets)) == (0, ["street"])


def test_allow_empty_is_true_or_false(partner: Partner) -> None:
    with pytest.raises(SpecError, match=r"datasets.street.allow_empty: got 'yes'; give true or false"):
        partner.spec("in/{date}", allow_empty="yes")


def test_dates_are_read_from_names_of_files_and_folders(tmp_path: Path) -> None:
    for name in ("a-20261113.tar", "a-20261140.tar", "a-2026.tar", "b-20261112.tar", "a-20261101.tar"):
        write_tar(tmp_path / name, IMAGES[:1])
    found = list(dates_beside(Files(), f"{tmp_path}/a-{{date:%Y%m%d}}.tar"))
    assert found == [datetime.date(2026, 11, 13), datetime.date(2026, 11, 1)]
