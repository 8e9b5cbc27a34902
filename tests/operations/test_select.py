"""Which images of an output are chosen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import segbatch
from segbatch.errors import SpecError
from segbatch.operations.compact import compact
from segbatch.operations.select import quotas, select
from segbatch.output.output import Output
from segbatch.results.dataset import MaskDataset
from tests import here
from tests.corpus import photographs, write_tar


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``out`` and ``faded`` of 3 tars of 6 images and an error."""
    folder, images = tmp_path_factory.mktemp("select"), photographs(18, side=40)
    (folder / "in").mkdir()
    for i in range(3):
        broken = [(f"broken{i}.jpg", b"<html>")] if i == 0 else []
        write_tar(folder / f"in/{i}.tar", [*images[6 * i : 6 * i + 6], *broken])
    here.run(here.spec([str(folder / "in")], folder / "out"))
    here.run(here.spec([str(folder / "in")], folder / "faded", model="tests.networks:Faded"))
    return folder


def test_the_least_confident_are_those_of_the_lowest_mean_confidence(outputs: Path) -> None:
    found = segbatch.select(str(outputs / "out"), n=5)
    rows = [row for row in MaskDataset.open(str(outputs / "out")) if row.error is None]
    assert all(row.confidence is not None for row in rows)
    wanted = sorted(rows, key=lambda row: row.confidence or 0)[:5]  # no class of theirs is the background
    assert found.image_ids == [row.image_id for row in wanted]
    assert found.table["score"].to_pylist() == [pytest.approx(row.confidence, abs=1e-3) for row in wanted]
    assert found.table["rank"].to_pylist() == [1, 2, 3, 4, 5]
    assert found.table["source"].to_pylist() == [row.source for row in wanted]
    assert (found.candidates, found.notes) == (18, ("1 error row cannot be chosen",))


def test_the_same_seed_chooses_the_same_images_also_after_a_compaction(outputs: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", photographs(18, side=40))
    here.run(here.spec([str(tmp_path / "a.tar")], tmp_path / "out"))
    before = [select(str(tmp_path / "out"), strategy="diverse", n=6, seed=seed).table for seed in (0, 0, 1)]
    compact(str(tmp_path / "out"))
    after = select(str(tmp_path / "out"), strategy="diverse", n=6).table
    assert before[0].equals(before[1])
    assert before[0].equals(after)
    assert before[0]["image_id"][0] != before[2]["image_id"][0]


def test_quotas_mix_strategies_without_choosing_twice(outputs: Path) -> None:
    found = select(
        str(outputs / "out"),
        strategy="disagreement=4,rare-class=4,diverse=4",
        other=str(outputs / "faded"),
        per_source=4,
    )
    assert found.table["strategy"].to_pylist() == ["disagreement"] * 4 + ["rare-class"] * 4 + ["diverse"] * 4
    assert len(set(found.image_ids)) == 12
    sources = found.table["source"].to_pylist()
    assert {source: sources.count(source) for source in sources} == dict.fromkeys(set(sources), 4)
    scores = found.table["score"].to_pylist()[:4]
    assert scores == sorted(scores, reverse=True)
    assert all(found.table["reason"].to_pylist())


def test_what_falls_short_and_what_is_excluded_is_named(outputs: Path) -> None:
    first = select(str(outputs / "out"), n=10)
    found = select(str(outputs / "out"), n=10, exclude=first.image_ids)
    assert not set(found.image_ids) & set(first.image_ids)
    assert found.notes[1:] == ("10 images excluded", "least-confident: 8 of 10: no other image can be chosen")
    unknown = select(str(outputs / "out"), n=1, exclude=["gone.jpg", first.image_ids[0]])
    assert unknown.notes[1] == "1 image excluded; 1 excluded id without a mask in the output"
    capped = select(str(outputs / "out"), strategy={"diverse": 9}, per_source=2)
    assert len(capped.image_ids) == 6
    assert "diverse: 6 of 9" in capped.notes[-1]


def test_quotas_are_read() -> None:
    assert quotas("diverse") == {"diverse": 1000}
    assert quotas("diverse", 7) == {"diverse": 7}
    assert quotas("least-confident, diverse", 7) == {"least-confident": 4, "diverse": 3}
    assert quotas("least-confident=5,diverse=2", 7) == quotas({"least-confident": 5, "diverse": 2})
    for strategy, n, message in (
        ("diverce", None, "unknown strategy 'diverce'; did you mean 'diverse'"),
        ("diverse=0", None, "an integer of at least 1"),
        ("diverse=5,rare-class", None, "give all strategies a number, or none"),
        ("diverse=5", 6, "n is 6, the numbers of the strategies add up to 5"),
        ("diverse,diverse", 6, "a strategy is given twice"),
        ("diverse,rare-class", 1, "at least one image for each"),
    ):
        with pytest.raises(SpecError, match=message):
            quotas(strategy, n)


@pytest.mark.parametrize("given", [{"strategy": "disagreement"}, {"strategy": "diverse", "other": "somewhere"}])
def test_disagreement_needs_a_second_output(outputs: Path, given: dict[str, str]) -> None:
    with pytest.raises(SpecError, match="give both, or neither"):
        select(str(outputs / "out"), **given)  # type: ignore[arg-type]


def test_an_unfinished_output_is_named(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs / "out", tmp_path / "out")
    Output.open(str(tmp_path / "out")).update(state="running")
    assert select(str(tmp_path / "out"), n=1).notes[0].startswith("the run is not finished: ")
