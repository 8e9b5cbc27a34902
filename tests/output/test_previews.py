"""What a run keeps for reports: a sample of the images, exactly once, without effect on the rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segbatch.errors import OutputError
from segbatch.operations.compact import compact
from segbatch.operations.verify import verify
from segbatch.output.output import Output
from segbatch.output.previews import gather, read, write_previews
from segbatch.output.run_record import Claim
from segbatch.planning.claim import publish
from segbatch.planning.inline import execute
from segbatch.planning.plan import make_plan
from segbatch.records import Chunk, ChunkId, Preview, Record, Shard, sample_key
from segbatch.storage.store import Store
from tests import here
from tests.corpus import photographs, write_tar

FORMAT1 = Path(__file__).parents[1] / "fixtures/format1"
ONE_CORE = here.ONE_CORE


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    samples = photographs(12, side=32)
    return [str(write_tar(tmp_path / name, part)) for name, part in (("a.tar", samples[:7]), ("b.tar", samples[7:]))]


def ids(output: Path) -> list[str]:
    return [preview.image_id for preview in Output.open(str(output)).previews()]


def rows(output: Path) -> list[str]:
    return [i for batch in Output.open(str(output)).batches(["image_id"]) for i in batch["image_id"].to_pylist()]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_run_keeps_the_images_with_the_smallest_keys(inputs: list[str], tmp_path: Path) -> None:
    here.run(here.spec(inputs, tmp_path / "out", report_samples=5))
    assert ids(tmp_path / "out") == sorted(rows(tmp_path / "out"), key=sample_key)[:5]
    assert list(content(tmp_path / "out/previews")) == ["sample.parquet"]


def test_rows_are_the_same_bytes_with_and_without_previews(inputs: list[str], tmp_path: Path) -> None:
    here.run(here.spec(inputs, tmp_path / "with"))
    here.run(here.spec(inputs, tmp_path / "without", report_samples=0))
    assert len(ids(tmp_path / "with")) == 12
    assert not (tmp_path / "without/previews").exists()
    assert content(tmp_path / "with/masks") == content(tmp_path / "without/masks")


def test_a_job_that_is_killed_between_preview_and_rows_keeps_each_preview_once(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write

    def killed(store: Store, name: str, data: bytes) -> str:
        if name.startswith("masks/") and len(content(tmp_path / "out/previews")) == 2:
            raise KeyboardInterrupt
        return write(store, name, data)

    spec = here.spec(inputs, tmp_path / "out")
    plan = publish(make_plan(spec).with_chunk_size(1).with_precision(ONE_CORE))
    monkeypatch.setattr(Store, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        list(execute(plan))
    monkeypatch.undo()
    assert len(content(tmp_path / "out/previews")) == 2
    assert sorted(ids(tmp_path / "out")) == sorted(rows(tmp_path / "out"))
    assert len(rows(tmp_path / "out")) == 4

    here.run(spec)
    here.run(here.spec(inputs, tmp_path / "undisturbed"))
    previews = [Output.open(str(tmp_path / name)).previews() for name in ("out", "undisturbed")]
    assert previews[0] == previews[1]
    assert len(previews[0]) == 12


def test_previews_follow_their_rows(inputs: list[str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    here.run(here.spec(inputs, output))
    compact(str(output), target_bytes=2**20)
    assert len(ids(output)) == 12
    here.run(here.spec(inputs[1:], output))
    assert len(ids(output)) == 5
    assert all(i.startswith("b.tar/") for i in ids(output))
    here.run(here.spec(inputs, output))
    assert len(ids(output)) == 12
    assert verify(str(output), inputs=inputs).problems == []
    here.run(here.spec(inputs, output, prune=0.01, overwrite=True, report_samples=0))
    assert not (output / "previews").exists()


def test_the_rows_are_committed_where_the_store_refuses_previews(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write

    def refusing(store: Store, name: str, data: bytes) -> str:
        if name.startswith("previews/"):
            raise OutputError("AccessDenied")
        return write(store, name, data)

    monkeypatch.setattr(Store, "write", refusing)
    assert here.run(here.spec(inputs, tmp_path / "out")).totals.records == 12
    assert ids(tmp_path / "out") == []


def test_earlier_outputs_have_no_previews() -> None:
    assert ids(FORMAT1 / "img-out-3") == []


CLAIM = Claim("f" * 16, 4, 3)
SHARD = Shard("a.tar", "a.tar", "webdataset", "1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def write(store: Store, index: int, *image_ids: str, claim: Claim = CLAIM) -> str:
    store.write("run.json", json.dumps({**vars(claim), "classes": [0, 1, 2]}).encode())
    records = [Record(i, "a.tar", 0, preview=Preview(i, b"RIFF", b"PNG")) for i in image_ids]
    chunk = Chunk(ChunkId(SHARD.id, index, False), [*records, Record("not sampled", "a.tar", 9)])
    write_previews(store, claim, chunk)
    return chunk.id.filename


def test_previews_of_a_night_wait_in_their_files_until_it_is_promoted(store: Store) -> None:
    current, staged, lost = write(store, 0, "a"), write(store, 1, "b"), write(store, 2, "c")
    store.write(f"incoming/{staged}", b"")
    gather(store, CLAIM, {current}, 200)
    assert set(store.names("previews")) == {"sample.parquet", staged}
    assert [p.image_id for p in read(store, CLAIM, {current})] == ["a"]
    gather(store, CLAIM, {current, staged, lost}, 200)
    assert {p.image_id for p in read(store, CLAIM, {current, staged, lost})} == {"a", "b"}
    assert store.names("previews") == ["sample.parquet"]


def test_previews_that_are_gathered_twice_are_kept_once(store: Store) -> None:
    chunks = {write(store, 0, "a", "b")}
    gather(store, CLAIM, chunks, 200)
    write(store, 0, "a", "b")  # a late worker
    assert len(read(store, CLAIM, chunks)) == 2
    gather(store, CLAIM, chunks, 200)
    assert len(read(store, CLAIM, chunks)) == 2
    gather(store, CLAIM, chunks, 0)
    assert store.names("previews") == []


def test_damaged_previews_and_those_of_another_job_are_left_out(store: Store) -> None:
    foreign, damaged = write(store, 0, "a", claim=Claim("0" * 16, 4, 3)), write(store, 1, "b")
    store.write(f"previews/{damaged}", store.read(f"previews/{damaged}")[:-20])
    chunks = {foreign, damaged, write(store, 2, "c")}
    assert [p.image_id for p in read(store, CLAIM, chunks)] == ["c"]
    gather(store, CLAIM, chunks, 200)
    assert store.names("previews") == ["sample.parquet"]
    assert [p.image_id for p in read(store, CLAIM, chunks)] == ["c"]
