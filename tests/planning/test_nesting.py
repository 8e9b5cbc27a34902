"""Outputs below, above and upon their inputs: what works is left out of the listing, what cannot work is refused."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from segbatch.errors import PlanError, SourceError
from segbatch.operations.report import write_report
from segbatch.operations.verify import verify
from segbatch.output.layout import JOURNAL, MASKS, PREVIEWS, REPORT, RETIRED, RUN, SHARDS, STAGED
from segbatch.planning.claim import publish
from segbatch.planning.plan import make_plan
from segbatch.storage.outputs import LAYOUTS
from segbatch.storage.store import TEMPORARY
from segbatch.training import artifacts
from tests.corpus import photographs, write_folder, write_parquet, write_tar
from tests.here import ONE_CORE, run, spec
from tests.inputs import open_source

SAMPLES = photographs(5, side=32)
NAMES = [name for name, _ in SAMPLES]


def ids(output: Path) -> list[str]:
    return sorted(i for f in (output / "masks").glob("*.parquet") for i in pq.read_table(f)["image_id"].to_pylist())


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def write_input(folder: Path, kind: str) -> list[str]:
    """Five photographs in ``folder``; their ids."""
    if kind == "images":
        write_folder(folder, SAMPLES)
        return NAMES
    write = write_tar if kind == "tar" else write_parquet
    write(folder / f"s.{kind}", SAMPLES)
    return [f"s.{kind}/{name.removesuffix('.jpg') if kind == 'tar' else name}" for name in NAMES]


@pytest.mark.parametrize("kind", ["images", "parquet", "tar"])
@pytest.mark.parametrize("pattern", ["", "**"])
def test_the_same_command_continues_with_its_output_below_its_input(tmp_path: Path, kind: str, pattern: str):
    given, expected = tmp_path / "in", write_input(tmp_path / "in", kind)
    for output, more in ((given / "out", {}), (given / "out", {}), (given / "deep/er/out2", {"prune": 0.01})):
        outcome = run(spec([str(given / pattern)], output, **more))
        assert outcome.totals.records == 5
        assert ids(output) == expected
        write_report(str(output))
    assert open_source([str(given)]).corpus().skipped.to_json() == {
        "outputs of segbatch": {"count": 2, "names": ["deep/er/out2/", "out/"]}
    }
    assert verify(str(given / "out")).ok


def test_an_output_is_verified_from_its_first_run_on_also_one_that_was_killed_before_its_first_commit(tmp_path: Path):
    write_folder(tmp_path, [*SAMPLES, ("note.txt", b"")])
    job = spec([str(tmp_path)], tmp_path / "out")
    plan = make_plan(job)
    plan = publish(plan.with_chunk_size(1).with_precision(ONE_CORE))
    for _ in range(2):
        assert make_plan(job).job.skipped.to_json() == {
            "outputs of segbatch": {"count": 1, "names": ["out/"]},
            "with an unknown suffix": {"count": 1, "names": ["note.txt"]},
        }
        run(job)
        assert verify(str(tmp_path / "out"), read_input=True).problems == []
    run(spec([str(tmp_path)], tmp_path / "another", prune=0.01))
    assert verify(str(tmp_path / "out")).ok
    (tmp_path / "more.txt").touch()
    assert not verify(str(tmp_path / "out")).ok


def test_photographs_in_the_folder_of_an_output_stay_records(tmp_path: Path):
    write_folder(tmp_path / "in", SAMPLES[:2])
    run(spec([str(tmp_path / "in")], tmp_path / "in/out"))
    write_folder(tmp_path / "in/out/later", SAMPLES[2:3])
    assert run(spec([str(tmp_path / "in")], tmp_path / "in/out")).totals.records == 3


def test_a_pattern_whose_folder_is_the_output_gives_the_same_files_again(tmp_path: Path):
    for name, pattern in (("a", "*"), ("b", "*.jpg"), ("c", "**/*.jpg"), ("d", "{0000,0001}*")):
        write_folder(tmp_path / name, SAMPLES[:2])
        for output in (tmp_path / name, tmp_path / name / "out"):
            for _ in range(2):
                assert run(spec([str(tmp_path / name / pattern)], output)).totals.records == 2
                assert verify(str(output)).problems == []


def test_an_output_below_a_prefix_of_a_store_is_left_out():
    fs = fsspec.filesystem("memory")
    for name, data in SAMPLES:
        fs.pipe_file(f"/nested/in/{name}", data)
    for given in ("memory://nested/in", "memory://nested/in/", "memory://nested/in/**"):
        assert run(spec([given], "memory://nested/in/out")).totals.records == 5


def test_a_night_s_staging_area_and_what_it_replaced_are_left_out(tmp_path: Path):
    write_parquet(tmp_path / "in/a.parquet", SAMPLES)
    out = tmp_path / "in/out"
    run(spec([str(tmp_path / "in")], out))
    for name in ("incoming/x.parquet", "retired/2026-01-01/x.parquet", "set-aside/x.parquet", "shards.parquet"):
        write_parquet(out / name, SAMPLES)
    for pattern in ("in", "in/**", "in/**/*.parquet"):
        assert [s.name for s in open_source([str(tmp_path / pattern)]).shards()] == ["a.parquet"]
    for pattern in ("in/*/*.parquet", "in/out/*/*.parquet", "in/out/retired", "in/*/*/*/x.parquet"):
        with pytest.raises(SourceError, match="1 outputs of segbatch"):
            open_source([str(tmp_path / pattern)]).corpus()


def test_a_training_below_the_photographs_is_left_out(tmp_path: Path):
    write_folder(tmp_path, SAMPLES[:1])
    trained = write_folder(
        tmp_path / "net", [(artifacts.CURVES, SAMPLES[0][1]), (artifacts.CHECKPOINT, b""), (artifacts.WEIGHTS, b"")]
    )
    (trained / artifacts.HISTORY).write_text('{"update": 1, "epoch": 1.0, "loss": 0.5, "lr": 0.1}\n')
    corpus = open_source([str(tmp_path)]).corpus()
    assert sum(s.records or 0 for s in corpus.shards) == 1
    assert corpus.skipped.to_json() == {"outputs of segbatch": {"count": 1, "names": ["net/"]}}


def test_a_folder_of_somebody_else_with_such_names_is_read(tmp_path: Path):
    write_parquet(tmp_path / "masks/a.parquet", SAMPLES[:2])
    write_parquet(tmp_path / "stats/b.parquet", SAMPLES[:2])
    (tmp_path / "run.json").write_text('{"name": "of another program"}')
    assert [s.name for s in open_source([str(tmp_path)]).shards()] == ["masks/a.parquet", "stats/b.parquet"]


def test_an_output_as_the_input_is_refused_as_one(tmp_path: Path):
    run(spec([str(write_tar(tmp_path / "a.tar", SAMPLES))], tmp_path / "out"))
    for given in ("out", "out/masks", "out/masks/*.parquet", "out/**"):
        with pytest.raises(SourceError, match="1 outputs of segbatch"):
            run(spec([str(tmp_path / given)], tmp_path / "other"))


@pytest.mark.parametrize("output", ["in", "in/", "in/../in", "link", "link/.", "file://in", "LINK2"])
def test_an_output_that_is_its_input_is_refused_and_nothing_written(
    tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch
):
    given = write_folder(tmp_path / "in", SAMPLES)
    (tmp_path / "link").symlink_to(given)
    (tmp_path / "LINK2").symlink_to(tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    before = files_in(tmp_path)
    named = f"file://{tmp_path}/in" if output == "file://in" else output
    for inputs in ([str(given)], [f"{given}//"], ["in"], [str(tmp_path / "link")], [str(tmp_path / "{in,link}")]):
        with pytest.raises(PlanError, match=r"is the input .* itself") as caught:
            make_plan(spec(inputs, named, overwrite=True))
        assert inputs[0] in str(caught.value)
        assert named in str(caught.value)
        assert caught.value.exit_code == 2
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("given", ["s3://b/in", "s3://b/in/", "s3a://b/in", "S3://b/in", "s3://key:secret@b/in"])
def test_a_prefix_that_is_both_is_refused_before_the_store_is_asked(given: str):
    with pytest.raises(PlanError, match=r"s3://b/in: is the input"):
        make_plan(spec([given], "s3://b/in", storage_options={"key": "k", "secret": "s"}))


@pytest.mark.parametrize(
    "given", ["data/masks", "data/masks/a.jpg", "data/stats/*.jpg", "data/incoming/../masks/{a,b}.jpg"]
)
def test_an_input_where_the_output_writes_is_refused(tmp_path: Path, given: str):
    write_folder(tmp_path / "data/masks", SAMPLES)
    with pytest.raises(PlanError, match=r"lies in (masks|stats)/ of the output"):
        make_plan(spec([str(tmp_path / given)], tmp_path / "data"))


def test_an_input_in_another_folder_of_the_output_works(tmp_path: Path):
    write_folder(tmp_path / "data/masks-by-hand", SAMPLES)
    for _ in range(2):
        assert run(spec([str(tmp_path / "data/masks-by-hand")], tmp_path / "data")).totals.records == 5


def test_a_link_to_an_output_elsewhere_is_followed_and_left_out(tmp_path: Path):
    write_parquet(tmp_path / "in/a.parquet", SAMPLES)
    run(spec([str(tmp_path / "in")], tmp_path / "elsewhere"))
    os.symlink(tmp_path / "elsewhere", tmp_path / "in/results")
    assert run(spec([str(tmp_path / "in")], tmp_path / "elsewhere")).totals.records == 5


def test_the_names_of_an_output_are_those_that_are_written():
    job, training = LAYOUTS
    assert job.folders == {MASKS, "stats", PREVIEWS, STAGED, RETIRED, "set-aside", TEMPORARY}
    assert {RUN, SHARDS, JOURNAL, REPORT, "_SUCCESS", "README.md"} == job.files
    ours = artifacts.CHECKPOINT, artifacts.WEIGHTS, artifacts.HISTORY, artifacts.CURVES, artifacts.RECORD
    assert training.files == {*ours, artifacts.CLASSES}
