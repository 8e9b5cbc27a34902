"""Quarantine without Ray: real child processes that really die; who is at fault, who is not, and the same rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from segbatch import JobSpec
from segbatch.errors import SegbatchError
from segbatch.isolation import Limits, supervise
from segbatch.isolation.bisection import quarantine
from segbatch.output.schema import to_table
from segbatch.planning.job import resolve
from segbatch.planning.pools import Pools
from segbatch.planning.stages import segment_config
from segbatch.protocols import UNTRACKED
from segbatch.records import Chunk, ChunkId, Record
from segbatch.refiners.none import NoRefiner
from segbatch.stages.refine import Refine
from tests.cluster import poisons
from tests.cluster.jobs import picture
from tests.cluster.poisons import CRASH, HANG, chunk
from tests.networks import LABELS

LIMITS = Limits(stall_seconds=20, max_worker_bytes=2**30)


def in_quarantine(build: Callable[[], Any], given: Chunk, limits: Limits = LIMITS, **more: bool) -> list[dict]:
    done = quarantine(build(), build, given, limits, **more)
    assert (done.id, done.skipped) == (given.id, given.skipped)
    assert done.timings["read"] == 1.0
    assert done.timings["quarantine"] > 0
    return to_table(done.records).to_pylist()


def plain(given: Chunk) -> list[dict]:
    return to_table(Refine(NoRefiner(), LABELS, max_pixels=10**8)(given).records).to_pylist()


def test_one_record_is_at_fault_and_its_neighbors_are_as_ever() -> None:
    given = chunk(40, CRASH, 33, 40)
    found, expected = in_quarantine(poisons.fatal, given), plain(given)
    error = found.pop(1)["error"]
    expected.pop(1)
    assert found == expected
    assert error == {
        "stage": "refine",
        "type": "PoisonRecord",
        "message": "the record ended its process by SIGSEGV, also when it ran alone",
    }


def test_a_worker_that_hung_is_not_waited_for_twice() -> None:
    given = chunk(HANG, 40)
    found = in_quarantine(poisons.fatal, given, Limits(1.0, None), hung=True)
    assert found[1] == plain(given)[1]
    assert "time limit (stall_seconds)" in found[0]["error"]["message"]


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_killed_from_outside_is_no_poison(tmp_path: Path, times: int) -> None:
    (tmp_path / "log").touch()
    given = chunk(40, 33)
    assert in_quarantine(partial(poisons.unlucky, str(tmp_path / "log"), times), given) == plain(given)
    assert (tmp_path / "log").stat().st_size == times


def test_records_that_are_fatal_only_together_keep_their_masks() -> None:
    given = chunk(40, 33, 35)
    assert in_quarantine(poisons.crowded, given) == plain(given)


def test_a_gpu_that_a_record_spoils() -> None:
    found = in_quarantine(poisons.lost_gpu, chunk(40, CRASH))
    assert found[0]["error"] is None
    assert found[1]["error"]["message"] == (
        "the record lost the GPU: CUDA error: an illegal memory access was encountered, also when it ran alone"
    )


def test_a_broken_machine_accuses_no_record() -> None:
    with pytest.raises(SegbatchError, match=r"refine: fails on this machine even for small sample images: .*SIGSEGV"):
        in_quarantine(poisons.broken, chunk(40))


def test_a_network_in_quarantine_gives_the_same_scores_to_the_bit(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(picture(0))
    job = resolve(JobSpec.create(inputs=[str(tmp_path)], refiner="none", precision="fp32"))
    build = segment_config(job, Pools(1, 1, 0, 1, 1, 0.2, 1, "cpu")).build
    stage = build()
    records = [Record(f"s/{i}", "s", i, picture(i)) for i in range(5)]
    given = Chunk(ChunkId("s.00000000.000000", 0, True), records, {})
    here = stage(given, UNTRACKED).records
    there = quarantine(stage, build, given, Limits(60, None)).records
    assert [r.scores.values.tobytes() for r in there] == [r.scores.values.tobytes() for r in here]


class Counted:
    """Reports that the chunk has crashed so many workers."""

    def __init__(self, earlier: int) -> None:
        self.earlier, self.ended = earlier, []

    def begin(self, key: str) -> tuple[int, float]:
        return self.earlier, 0.0

    def end(self, key: str) -> None:
        self.ended.append(key)

    def start(self, worker: str) -> tuple[int, str]:
        return 0, ""

    def failed(self, worker: str, cause: str) -> None:
        raise AssertionError(cause)

    def ready(self, worker: str) -> None:
        pass


def test_the_job_ends_if_a_chunk_takes_its_workers_out_of_quarantine_too() -> None:
    given, attempts = chunk(40), Counted(12)
    with pytest.raises(
        SegbatchError, match=r"^s\.00000000\.000000-00000-end\.parquet at refine, in quarantine too: crashed 12 workers"
    ):
        supervise(poisons.fatal, attempts, LIMITS, "refine 1")(given)
    attempts.earlier = 0
    done = supervise(poisons.fatal, attempts, LIMITS, "refine 1")(given)
    assert to_table(done.records).to_pylist() == plain(given)
    assert attempts.ended == [f"refine {given.id.filename}"]
