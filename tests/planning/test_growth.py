"""A corpus that grows: what is there is kept, only what is new or changed is computed, whatever names the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from segbatch.errors import PlanError, SourceError
from segbatch.operations.explain import explain
from segbatch.operations.finish import RunResult
from segbatch.operations.verify import verify
from segbatch.output.ledger import Ledger
from segbatch.output.run_record import RunRecord
from segbatch.planning.claim import establish, publish
from segbatch.planning.plan import make_plan
from segbatch.planning.recorded import recorded_spec
from segbatch.storage.store import Store
from tests import here
from tests.cluster.jobs import committed, rows
from tests.corpus import photographs, write_folder, write_tar

SAMPLES = photographs(6, side=32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(2):
        write_tar(tmp_path / "in" / f"00{number}.tar", SAMPLES[number : number + 2])
    return tmp_path / "in"


def run(inputs: Sequence[Path | str], output: Path, **more: Any) -> RunResult:
    return here.run(here.spec([str(i) for i in inputs], output, **more))


def ids(output: Path) -> list[str]:
    found = [row["image_id"] for row in rows(output)]
    assert len(set(found)) == len(found)
    return sorted(found)


def kept(output: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (output / "masks").glob("*.parquet")}


def test_a_pattern_that_grows_continues_the_corpus_whatever_spells_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    run([f"{source}/{{000..001}}.tar"], output)
    first = kept(output)
    write_tar(source / "002.tar", SAMPLES[3:6])
    monkeypatch.chdir(source)
    computed = []
    for inputs in (
        [f"{source}/{{000..002}}.tar"],
        [f"{source}/0*.tar"],
        [source],
        [f"file://{source}/"],
        ["000.tar", "./001.tar", "../in/002.tar"],
        ["{000,001}.tar", "00[2-9].tar"],
        ["."],
    ):
        computed.append(run(inputs, output).computed)
        assert first.items() <= kept(output).items()
        assert ids(output) == [f"00{n}.tar/{name}" for n, i, m in ((0, 0, 2), (1, 1, 3), (2, 3, 6))
                               for name in (Path(s[0]).stem for s in SAMPLES[i:m])]  # fmt: skip
        record = RunRecord.need(Store(str(output)))
        assert (record.identity["root"], len(record.inputs)) == (str(source), len(inputs))
        assert all(i.startswith(("/", "file:///")) for i in record.inputs)
    assert computed == [1, *[0] * 6]
    monkeypatch.chdir(tmp_path)
    assert verify(str(output), read_input=True).problems == []


@pytest.mark.parametrize(
    ("first", "second", "root"),
    [
        (["in/000.tar"], ["in/*.tar"], "in"),
        (["in/a/0000-astronaut.jpg"], ["in/a"], "in/a"),
        (["in/a", "in/b"], ["in/a", "in/b", "in/c"], "in"),
        (["in/a/*.jpg", "in/000.tar"], ["in/000.tar", "in/c", "in/a"], "in"),
    ],
)
def test_the_root_of_the_first_run_stays(
    source: Path, tmp_path: Path, first: list[str], second: list[str], root: str
) -> None:
    for name in "abc":
        write_folder(source / name, SAMPLES[:2])
    output = tmp_path / "out"
    run([tmp_path / i for i in first], output)
    before = committed(output), ids(output)
    run([tmp_path / i for i in second], output)
    assert RunRecord.need(Store(str(output))).identity["root"] == str(tmp_path / root)
    assert set(before[1]) < set(ids(output))
    assert verify(str(output)).ok


@pytest.mark.parametrize("outside", ["other", "other/000.tar", "in/../other/*.tar", "."])
def test_an_input_outside_of_the_root_is_refused_before_work(source: Path, tmp_path: Path, outside: str) -> None:
    write_tar(tmp_path / "other" / "000.tar", SAMPLES[:1])
    output = tmp_path / "out"
    run([source], output)
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
    with pytest.raises(SourceError, match=rf"lies outside of {source}, the corpus root.*another --output") as caught:
        make_plan(here.spec([str(source), str(tmp_path / outside)], output))
    assert (caught.value.exit_code, str(tmp_path / outside) in str(caught.value)) == (2, True)
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*")} == before


def test_a_corpus_that_was_moved_is_refused_and_can_be_verified_where_it_is(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run([source], output)
    moved = source.rename(tmp_path / "moved")
    with pytest.raises(SourceError, match=rf"{moved}: lies outside of {source}"):
        run([moved], output)
    assert verify(str(output), inputs=[str(moved)], read_input=True).problems == []


def test_the_second_of_two_first_runs_takes_the_root_of_the_first(source: Path, tmp_path: Path) -> None:
    write_tar(source / "more" / "002.tar", SAMPLES[:1])
    output = tmp_path / "out"
    outer = make_plan(here.spec([str(source)], output))
    inner = make_plan(here.spec([f"{source}/more"], output))
    outer, inner = establish(outer), establish(inner)
    assert [s.name for s in inner.job.shards] == ["more/002.tar"]
    assert inner.record.fingerprint == outer.record.fingerprint
    assert inner.record.identity == inner.job.identity()
    other = make_plan(here.spec([str(source)], tmp_path / "elsewhere"))
    different = make_plan(here.spec([str(source)], tmp_path / "elsewhere", prune=0.1))
    publish(other)
    with pytest.raises(PlanError, match=r"prune"):
        publish(different)


def test_an_output_is_resumed_with_the_threshold_that_it_was_begun_with(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    here.run(here.spec([str(source)], output, prune=0.3))
    write_tar(source / "002.tar", SAMPLES[:1])
    resumed = here.spec([str(source)], output)
    said = "prune is 0.3, as in the first run of this output; the default is 0.02"
    assert make_plan(resumed).job.warnings() == [said]
    assert f"\nwarning      {said}" in explain(resumed).to_text()
    assert "\npruned       classes below 0.3 at every pixel" in explain(resumed).to_text()
    here.run(resumed)
    record = RunRecord.need(Store(str(output)))
    assert (record.identity["prune"], record.state) == (0.3, "done")
    assert make_plan(here.spec([str(source)], output, overwrite=True)).job.prune == 0.02
    with pytest.raises(PlanError, match=r"prune 0\.3 there, 0\.02 requested"):
        make_plan(here.spec([str(source)], output, prune=0.02))


@pytest.mark.parametrize("refiner", ["densecrf", "crfasrnn"])
def test_the_recorded_spec_is_the_same_job_whatever_the_weights_parameters_are_by_then(
    source: Path, tmp_path: Path, refiner: str
) -> None:
    output = tmp_path / "out"
    begun = here.spec([str(source)], output, refiner=refiner, crf={"theta_alpha": 80.0})
    here.run(begun)
    record = RunRecord.need(Store(str(output)))
    assert make_plan(begun).record.fingerprint == record.fingerprint
    assert make_plan(recorded_spec(record, output=str(output))).record.fingerprint == record.fingerprint
    other = here.spec([str(source)], output, refiner=refiner)
    remedy = r"theta_alpha 80\.0 there, .*come with the weights.*add --crf-theta-alpha 80\.0 to resume"
    with pytest.raises(PlanError, match=remedy if refiner == "densecrf" else r"theta_alpha 80\.0 there"):
        make_plan(other)
    with pytest.raises(PlanError) as refused:
        make_plan(here.spec([str(source)], output, refiner=refiner, crf={"theta_alpha": 40.0}))
    assert "to resume" not in str(refused.value)


def test_fewer_inputs_are_told_before_their_chunks_are_retired(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run([source], output)
    before = committed(output)
    fewer = here.spec([f"{source}/001.tar"], output)
    assert "retired      1 of 2 chunks (2 images) of shards that are no longer in the input" in explain(fewer).to_text()
    assert committed(output) == before
    assert here.run(fewer).retired == 1
    assert {p.name for p in (output / "retired").glob("*")} == before - committed(output)
    assert recorded_spec(RunRecord.need(Store(str(output)))).inputs == [f"{source}/001.tar"]
    assert verify(str(output)).ok


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "records"),
    [
        (lambda folder: (folder / "!first.png").write_bytes(SAMPLES[0][1]), 31),
        (lambda folder: (folder / "zzz.png").write_bytes(SAMPLES[0][1]), 31),
        (lambda folder: (folder / "deep/er/a.png").write_bytes(SAMPLES[0][1]), 31),
        (lambda folder: (folder / "12.jpg").write_bytes(SAMPLES[1][1] + b" "), 30),
        (lambda folder: (folder / "00.jpg").unlink(), 29),
    ],
    ids=["new first", "new last", "new folder", "changed", "removed"],
)
def test_one_loose_image_recomputes_one_chunk(tmp_path: Path, change: Change, records: int) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    write_folder(folder, [(f"{n:02}.jpg", SAMPLES[n % 6][1]) for n in range(30)])
    (folder / "deep/er").mkdir(parents=True)
    assert run([folder], output).chunks >= 8
    before = kept(output)
    change(folder)
    plan = explain(here.spec([str(folder)], output)).to_text()
    outcome = run([folder], output)
    replaced = len(before) - len(before.items() & kept(output).items())
    assert replaced <= 2
    assert outcome.computed <= 2
    assert outcome.retired == replaced
    assert (f"again        {replaced} of {len(before)} chunks (" in plan) == bool(replaced)
    assert len(ids(output)) == records
    assert run([folder], output).computed == 0
    assert verify(str(output), read_input=True).problems == []


def test_a_growing_folder_ends_as_one_that_was_whole_from_the_start(tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    for n in range(0, 30, 5):
        write_folder(folder, [(f"{i:02}.jpg", SAMPLES[i % 6][1]) for i in range(n, n + 5)])
        run([folder], output)
    run([folder], tmp_path / "whole")
    assert committed(output) == committed(tmp_path / "whole")
    assert ids(output) == ids(tmp_path / "whole")
    assert len(Ledger.read(Store(str(output)))) == len(committed(output))
