"""The whole job on real Ray, in this process."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.data import DataContext

import segbatch
from segbatch import JobSpec
from segbatch.codecs import mask_png as png
from segbatch.errors import ModelError, Outage, PlanError, SegbatchError
from segbatch.operations.verify import verify
from segbatch.output.schema import schema
from segbatch.protocols import Progress, Reporter
from tests.cluster.jobs import committed, picture, rows, statistics, tars

pytestmark = pytest.mark.usefixtures("local_ray")


def job(inputs: list[str], output: Path | str, **more: Any) -> JobSpec:
    return JobSpec.create(
        **{"inputs": inputs, "output": str(output), "model": "tests.networks:fast", "refiner": "none", **more}
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tars(tmp_path_factory.mktemp("corpus"), shards=3, records=10)


@pytest.fixture(scope="module")
def finished(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    outcome = segbatch.run(job(corpus, output, chunk_size=4))
    assert (outcome.totals.records, outcome.totals.failed, outcome.chunks, outcome.exit_code) == (30, 0, 9, 0)
    return output


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_rows_are_what_the_readme_promises(finished: Path) -> None:
    found = rows(finished)
    assert len({r["image_id"] for r in found}) == 30
    for row in found:
        mask = png.decode(row["mask"])
        assert mask.shape == (row["height"], row["width"])
        values, counts = np.unique(mask, return_counts=True)
        assert {c["class_id"]: c["pixels"] for c in row["classes"]} == dict(zip(values, counts, strict=True))
        assert sum(c["fraction"] for c in row["classes"]) == pytest.approx(1)
        assert Image.open(io.BytesIO(row["mask"])).mode == "P"
    assert pq.read_schema(next((finished / "masks").glob("*.parquet"))).equals(schema(has_marginal=False))
    totals = {r["name"]: r for r in statistics(finished)}
    assert sum(r["pixels"] for r in totals.values()) == sum(r["height"] * r["width"] for r in found)
    assert sum(r["share"] for r in totals.values()) == pytest.approx(1)
    assert totals["dark"]["images"] == sum(any(c["class_id"] == 0 for c in r["classes"]) for r in found)
    record = json.loads((finished / "run.json").read_text())
    assert record["state"] == "done"
    assert record["totals"]["records"] == 30


def test_other_tools_read_the_output(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = f"'{finished}/masks/*.parquet'"
    query = f"select count(*), count(mask), sum(list_sum([c.pixels for c in classes])) from {files}"
    pixels = sum(r["height"] * r["width"] for r in rows(finished))
    assert duckdb.connect().execute(query).fetchall() == [(30, 30, pixels)]
    frame = pd.read_parquet(finished / "masks")
    assert list(frame.columns) == schema(has_marginal=False).names
    assert frame["error"].isna().all()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    loaded = datasets.load_dataset(str(finished), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 30
    first = loaded[0]
    (row,) = [r for r in rows(finished) if r["image_id"] == first["image_id"]]
    assert np.array_equal(np.asarray(first["mask"]), png.decode(row["mask"]))


def test_the_same_command_does_only_what_is_missing(copied: Path, corpus: list[str], finished: Path) -> None:
    lost = sorted(committed(copied))[2:5]
    for name in lost:
        (copied / "masks" / name).unlink()
    (copied / "_SUCCESS").unlink()
    kept = written(copied)
    outcome = segbatch.run(job(corpus, copied))
    assert (outcome.computed, outcome.chunks) == (3, 9)
    assert rows(copied) == rows(finished)
    assert statistics(copied) == statistics(finished)
    assert kept.items() < written(copied).items(), "a committed chunk was written again"


def test_the_same_command_on_a_finished_output_starts_no_workers(copied: Path, corpus: list[str]) -> None:
    before = written(copied)
    outcome = segbatch.run(job(corpus, copied), reporter=MustNotStart())
    assert (outcome.computed, outcome.chunks, outcome.exit_code) == (0, 9, 0)
    assert written(copied) == before
    assert json.loads((copied / "run.json").read_text())["state"] == "done"


def written(output: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing of each committed file."""
    return {f.name: (f.stat().st_ino, f.stat().st_mtime_ns) for f in (output / "masks").iterdir()}


class MustNotStart(Reporter):
    """Fails the run when its workers are about to start."""

    def planned(self, progress: Progress, workers: str) -> None:
        raise AssertionError("work was begun")


def test_another_job_is_refused_with_the_difference(copied: Path, corpus: list[str]) -> None:
    with pytest.raises(PlanError, match=r"refiner.*none.*densecrf") as e:
        segbatch.run(job(corpus, copied, refiner="densecrf"))
    assert e.value.exit_code == 2
    with pytest.raises(PlanError, match="chunk_size 4 there, 5 requested"):
        segbatch.run(job(corpus, copied, chunk_size=5))
    assert (copied / "_SUCCESS").exists()
    outcome = segbatch.run(job(corpus, copied, refiner="densecrf", overwrite=True))
    assert outcome.computed == outcome.chunks
    assert len(rows(copied)) == 30


def test_a_corpus_that_grows_and_changes(corpus: list[str], tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for path in corpus[:2]:
        shutil.copy(path, source)
    segbatch.run(job([str(source)], output, chunk_size=4))
    shutil.copy(corpus[2], source)
    grown = segbatch.run(job([str(source)], output))
    assert (grown.computed, grown.chunks, grown.totals.records) == (3, 9, 30)
    (source / "shard-000.tar").unlink()
    (changed,) = tars(tmp_path / "other", 1, 6)
    shutil.copy(changed, source / "shard-001.tar")
    again = segbatch.run(job([str(source)], output))
    assert (again.computed, again.retired, again.totals.records) == (2, 6, 16)
    assert len({r["image_id"] for r in rows(output)}) == len(rows(output)) == 16
    assert len(list((output / "retired").glob("*.parquet"))) == 6
    assert verify(str(output)).ok


def test_records_that_a_network_cannot_take_do_not_take_their_neighbors(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i, width in enumerate((60, 61, 62, 63, 64)):
        Image.fromarray(np.full((20, width, 3), 40 * i, np.uint8)).save(source / f"{i}.png")
    outcome = segbatch.run(job([str(source)], tmp_path / "out", model="tests.networks:moody", max_error_fraction=0.5))
    found = sorted(rows(tmp_path / "out"), key=lambda r: r["image_id"])
    assert [r["error"] and (r["error"]["stage"], r["error"]["type"]) for r in found] == [
        None,
        ("segment", "NonFiniteScores"),
        ("segment", "OutOfMemory"),
        ("segment", "RuntimeError"),
        None,
    ]
    assert outcome.exit_code == 3
    assert [(r["height"], r["width"]) for r in found] == [(20, w) for w in (60, 61, 62, 63, 64)]


def test_a_truncated_result_file_is_computed_again(copied: Path, corpus: list[str]) -> None:
    victim = copied / "masks" / sorted(committed(copied))[0]
    data = victim.read_bytes()
    victim.write_bytes(data[:100])
    assert segbatch.run(job(corpus, copied)).computed == 1
    assert victim.read_bytes() == data


def test_as_a_ray_dataset_of_ones_own(corpus: list[str], finished: Path) -> None:
    dataset = segbatch.build_dataset(job(corpus, "", chunk_size=4))
    table = pa.Table.from_pandas(dataset.to_pandas(), schema=schema(has_marginal=False))
    key = lambda r: r["image_id"]  # noqa: E731
    assert sorted(table.to_pylist(), key=key) == sorted(rows(finished), key=key)


def test_an_empty_shard_among_others(corpus: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    empty.write_bytes(bytes(10240))
    # By the way, workers load a refiner of the user's own.
    fields = {"refiner": "tests.own_refiners:uniform"}
    outcome = segbatch.run(job([*corpus[:1], str(empty)], tmp_path / "out", **fields))
    assert outcome.totals.records == 10
    assert verify(str(tmp_path / "out")).ok


def test_the_built_in_network_and_the_dense_crf(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(2):
        (tmp_path / "in" / f"{i}.png").write_bytes(picture(i))
    outcome = segbatch.run(JobSpec.create(inputs=[str(tmp_path / "in")], output=str(tmp_path / "out")))
    assert (outcome.totals.records, outcome.totals.failed) == (2, 0)
    assert outcome.labels.names[15] == "person"


def test_a_dataset_has_the_limits_of_the_job_and_the_caller_keeps_its_own(tmp_path: Path) -> None:
    mine = DataContext.get_current()
    mine.execution_no_progress_timeout_s, mine.max_errored_blocks = 20.0, 7
    before = {f.name: getattr(mine, f.name) for f in dataclasses.fields(mine)}
    try:
        dataset = segbatch.build_dataset(job(tars(tmp_path, 1, 4), "", chunk_size=256))
        assert dataset.context.execution_no_progress_timeout_s == 4 * 600 * 12.5 * 256
        assert (dataset.context.max_errored_blocks, dataset.context.wait_for_min_actors_s) == (0, -1)
        assert DataContext.get_current() is mine
        assert {f.name: getattr(mine, f.name) for f in dataclasses.fields(mine)} == before
    finally:
        mine.execution_no_progress_timeout_s, mine.max_errored_blocks = 1800.0, 0


def unsteady(tmp_path: Path, words: str) -> tuple[segbatch.JobSpec, Path]:
    (tmp_path / "net").touch()
    (tmp_path / "net.words").write_text(words)
    how = {"model": "tests.networks:unsteady", "weights": str(tmp_path / "net"), "segment_actors": 1}
    return job(tars(tmp_path / "in", 1, 4), tmp_path / "out", **how), tmp_path / "net.starts"


def test_the_job_goes_on_after_failed_starts_of_either_kind(tmp_path: Path) -> None:
    spec, starts = unsteady(tmp_path, "hiccup exit")
    assert segbatch.run(spec).exit_code == 0
    assert (len(rows(tmp_path / "out")), starts.read_text()) == (4, "...")


def test_an_error_of_segbatch_at_a_start_ends_the_job_at_once_in_its_own_words(tmp_path: Path) -> None:
    spec, starts = unsteady(tmp_path, "always certain")
    with pytest.raises(ModelError, match=r"^these weights are of another network$"):
        segbatch.run(spec)
    assert starts.read_text() == "."


@pytest.mark.long  # fifteen seconds each of starting processes
@pytest.mark.parametrize(
    ("how", "says"), [("broken", "Unportable: the driver says 802"), ("exit", "4 starts in a row")]
)
def test_a_worker_that_never_starts_ends_the_job_with_the_cause(tmp_path: Path, how: str, says: str) -> None:
    spec, starts = unsteady(tmp_path, f"always {how}")
    with pytest.raises(SegbatchError, match=says) as e:
        segbatch.run(spec)
    assert "DataContext" not in str(e.value)
    assert starts.read_text() == "...."


class GoesAway(Reporter):
    """Renames the input folder when the plan is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def planned(self, progress: Progress, workers: str) -> None:
        self._folder.rename(self._folder.with_name("away"))


def test_an_input_folder_that_goes_away_stops_the_job_which_resumes_when_it_is_back(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.png").write_bytes(picture(i))
    spec = job([str(source)], tmp_path / "out", chunk_size=4)
    with pytest.raises(Outage, match=f"{source}.*the store is unavailable") as e:
        segbatch.run(spec, reporter=GoesAway(source))
    assert (e.value.exit_code, rows(tmp_path / "out")) == (1, [])
    (tmp_path / "away").rename(source)
    outcome = segbatch.run(spec)
    assert (outcome.totals.records, outcome.totals.failed, outcome.exit_code) == (4, 0, 0)
