"""A network that fails on every image stops the job before its error rows are committed; a few bad images do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segbatch.errors import NetworkError
from segbatch.planning.breaker import Breaker, ChunkOutcome, is_suspect
from segbatch.planning.claim import publish
from segbatch.planning.plan import Plan, make_plan
from segbatch.records import Chunk, ChunkId, ClassCount, Record
from tests import here
from tests.corpus import encode, write_tar
from tests.faulty_networks import REPAIRED, STRANGE

CAUSE = "RuntimeError: no kernel image is available for execution on the device"


def shard(folder: Path, name: str, *heights: int) -> str:
    """A tar with an image of each height."""
    noise = np.random.default_rng(0)
    images = [encode(noise.integers(0, 255, (height, 64, 3), np.uint8), "PNG") for height in heights]
    return str(write_tar(folder / f"{name}.tar", [(f"{i:03}.png", data) for i, data in enumerate(images)]))


def job(inputs: list[str], output: Path, model: str, **more: Any) -> Any:
    more = {"chunk_size": 12, "max_error_fraction": 1.0, **more}
    return here.spec(inputs, output, model=f"tests.faulty_networks:{model}", **more)


def errors(output: Path) -> list[bool]:
    """Of each row in order, whether it is an error."""
    rows = [row for file in output.glob("masks/*.parquet") for row in pq.read_table(file).to_pylist()]
    return [row["error"] is not None for row in sorted(rows, key=lambda row: row["image_id"])]


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        ("always", CAUSE),
        ("always_nan", "NonFiniteScores"),
        ("nan_of_real_images", "NonFiniteScores"),
        ("real_images", CAUSE),
        ("after_12", CAUSE),
        ("after_17_nan", "NonFiniteScores"),
    ],
)
@pytest.mark.parametrize("shards", [1, 4])
def test_a_network_that_fails_on_every_image_stops_the_job_and_leaves_no_error_row(
    model: str, cause: str, shards: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [shard(tmp_path, f"s{i}", *[40] * (60 // shards)) for i in range(shards)]
    spec = job(inputs, tmp_path / "out", model)
    with pytest.raises(NetworkError) as stopped:
        here.run(spec)
    assert stopped.value.exit_code == 1
    assert cause in str(stopped.value)
    assert not any(errors(tmp_path / "out"))
    assert not (tmp_path / "out/_SUCCESS").exists()
    monkeypatch.setenv(REPAIRED, "1")
    outcome = here.run(spec)
    assert (outcome.totals.records, outcome.totals.failed) == (60, 0)


@pytest.mark.parametrize("heights", [(40,), (40,) * 5, (40,) * 31])
def test_fewer_than_32_images_stop_the_job_if_all_fail(heights: tuple[int, ...], tmp_path: Path) -> None:
    spec = job([shard(tmp_path, "a", *heights)], tmp_path / "out", "nan_of_real_images")
    with pytest.raises(NetworkError, match=rf"the last {len(heights)} images? \(1 shard\).*{len(heights)} x NonFinite"):
        here.run(spec)
    assert errors(tmp_path / "out") == []


@pytest.mark.parametrize("place", [0, 11, 59])
def test_one_image_that_a_network_dislikes_is_one_error_row(place: int, tmp_path: Path) -> None:
    heights = [40] * 60
    heights[place] = STRANGE
    outcome = here.run(job([shard(tmp_path, "a", *heights)], tmp_path / "out", "strange_ones"))
    assert (outcome.totals.records, outcome.totals.failed) == (60, 1)
    assert errors(tmp_path / "out") == [height == STRANGE for height in heights]


@pytest.mark.parametrize("model", ["strange_ones", "strange_nan", "only_40"])
@pytest.mark.parametrize("bad", ["a", "c"])
def test_a_whole_shard_that_a_network_dislikes_is_error_rows(model: str, bad: str, tmp_path: Path) -> None:
    inputs = [shard(tmp_path, name, *[STRANGE if name == bad else 40] * 40) for name in "abc"]
    outcome = here.run(job(inputs, tmp_path / "out", model))
    assert (outcome.totals.records, outcome.totals.failed, outcome.exit_code) == (120, 40, 0)
    assert (tmp_path / "out/_SUCCESS").exists()


def test_many_images_that_a_network_dislikes_are_error_rows(tmp_path: Path) -> None:
    heights = [STRANGE if i % 3 else 40 for i in range(60)]
    inputs = [shard(tmp_path, name, *heights) for name in "ab"]
    outcome = here.run(job(inputs, tmp_path / "out", "strange_ones"))
    assert (outcome.totals.records, outcome.totals.failed) == (120, 80)


def test_two_shards_of_which_all_images_fail_stop_the_job(tmp_path: Path) -> None:
    inputs = [shard(tmp_path, name, *[STRANGE if name in "bc" else 40] * 20) for name in "abcd"]
    with pytest.raises(NetworkError, match=r"failed on the last (3[2-9]|40) images \(2 shards\)"):
        here.run(job(inputs, tmp_path / "out", "strange_ones"))
    assert errors(tmp_path / "out") == [False] * 20


def test_the_few_images_that_are_left_of_a_job_are_error_rows(tmp_path: Path) -> None:
    spec = job([shard(tmp_path, "a", *[40] * 36, *[STRANGE] * 10)], tmp_path / "out", "strange_ones")
    here.run(spec)
    (last,) = [f for f in tmp_path.glob("out/masks/*") if "-00003-" in f.name]
    last.unlink()
    outcome = here.run(spec)
    assert (outcome.totals.records, outcome.totals.failed, outcome.computed) == (46, 10, 1)


def test_files_that_are_no_images_do_not_stop_the_job(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tar", [(f"{i:03}.png", b"no image") for i in range(60)])
    outcome = here.run(job([str(source)], tmp_path / "out", "always"))
    assert (outcome.totals.records, outcome.totals.failed) == (60, 60)


def test_a_process_that_breaks_is_known_by_sample_images_that_succeeded_before(tmp_path: Path) -> None:
    spec = job([shard(tmp_path, name, *[40] * 16) for name in "abc"], tmp_path / "out", "after_12", chunk_size=8)
    expected = (
        r"tests\.faulty_networks:after_12 is broken on this machine.*images that succeeded before.*no kernel image"
    )
    with pytest.raises(NetworkError, match=expected):
        here.run(spec)
    assert not any(errors(tmp_path / "out"))


# The rule itself, without a network.


def plan(tmp_path: Path, shards: int) -> Plan:
    return make_plan(job([shard(tmp_path, f"s{i}", 40) for i in range(shards)], tmp_path / "out", "always"))


def rows(name: str, index: int, outcomes: str) -> Chunk:
    """A chunk with a record for each letter: ``.`` succeeded, ``d``, ``s``, ``r`` failed at decode, segment, refine."""
    stages = {"d": "decode", "s": "segment", "r": "refine"}
    records = [Record(f"{name}/{index}/{i}", name, i) for i in range(len(outcomes))]
    finished = [
        replace(record, mask=b"png", classes=(ClassCount(0, 1, 1.0, 1.0),), confidence=1.0)
        if letter == "."
        else record.failed(stages[letter], "Odd", f"{letter} of {record.image_id}")
        for record, letter in zip(records, outcomes, strict=True)
    ]
    return Chunk(ChunkId(f"{name}.{0:016x}.{0:016x}", index, False), finished)


def committed(plan: Plan, chunks: list[Chunk], stopped: bool = False) -> list[str]:
    """Names of the chunks that the breaker lets through, in order."""
    plan = publish(plan)
    writer = plan.writer()
    outcomes = [ChunkOutcome(held=c) if is_suspect(c) else ChunkOutcome(writer.commit(c)) for c in chunks]
    done = Breaker(plan, writer.commit).receipts(outcomes, lambda: stopped)
    return [f"{r.filename[0]}{int(r.filename.split('-')[1][:5])}" for r in done]


@pytest.mark.parametrize("stage", ["s", "r"])
def test_a_chunk_whose_last_records_failed_waits_for_a_success(stage: str, tmp_path: Path) -> None:
    chunks = [rows("a", 0, f"..{stage}"), rows("a", 1, "dd"), rows("b", 0, f"{stage}{stage}"), rows("b", 1, "d.d")]
    assert committed(plan(tmp_path, 3), chunks) in (["a1", "b1", "a0", "b0"], ["a1", "b1", "b0", "a0"])


def test_scores_that_were_given_do_not_excuse_a_refiner(tmp_path: Path) -> None:
    chunks = [rows("a", 0, "r" * 20), rows("b", 0, "r" * 11 + "d" + "s")]
    with pytest.raises(NetworkError, match=r"refiner none .* 31 images \(2 shards\).*31 x Odd: r of a/0/0"):
        committed(plan(tmp_path, 2), chunks)


@pytest.mark.parametrize(
    ("shards", "chunks", "stops"),
    [
        (1, [("a", "s" * 32)], True),
        (1, [("a", "." + "s" * 31)], False),
        (1, [("a", "." + "s" * 32)], True),
        (2, [("a", "." + "s" * 60)], False),
        (2, [("a", "s" * 60)], True),
        (2, [("a", "s" * 60), ("b", ".")], False),
        (2, [("a", "." + "s" * 31), ("b", "s")], True),
        (2, [("a", "." + "s" * 30), ("b", "s")], False),
        (2, [("a", "." + "s" * 31), ("b", "s" + "." + "s")], False),
        (3, [("a", "s" * 31), ("b", "."), ("c", "s" * 31)], False),
        (2, [("a", "dd"), ("b", "sd")], True),
    ],
)
def test_the_last_32_of_two_shards_or_all_stop_the_job(
    shards: int, chunks: list[tuple[str, str]], stops: bool, tmp_path: Path
) -> None:
    given = [rows(name, 0, outcomes) for name, outcomes in chunks]
    if stops:
        with pytest.raises(NetworkError):
            committed(plan(tmp_path, shards), given)
    else:
        assert sorted(committed(plan(tmp_path, shards), given)) == sorted(f"{name}0" for name, _ in chunks)


def test_a_chunk_that_ran_twice_counts_once(tmp_path: Path) -> None:
    assert sorted(committed(plan(tmp_path, 1), [rows("a", 0, "." + "s" * 20)] * 3)) == ["a0"]


def test_a_job_that_ends_early_leaves_its_failures_for_another_time(tmp_path: Path) -> None:
    assert committed(plan(tmp_path, 2), [rows("a", 0, "sss")], stopped=True) == []
    assert committed(plan(tmp_path, 2), [rows("a", 0, ".ss")], stopped=True) == ["a0"]
