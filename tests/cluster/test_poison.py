"""Records that crash, hang and take all memory: each becomes an error row, and costs its neighbors nothing."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

import segbatch
from segbatch import JobSpec
from segbatch.operations.verify import verify
from segbatch.ray_backend.attempts import RayAttempts
from tests import here
from tests.cluster.jobs import picture, rows, wait_for
from tests.cluster.poisons import CRASH, HANG, MEMORY

CHUNK = 4
POISON = {"b/2.png": CRASH, "d/0.png": HANG, "e/3.png": MEMORY}


def of_width(width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((40, width, 3), 99, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Five tars of four pictures; three of them hold a poisonous one among them."""
    folder = tmp_path_factory.mktemp("corpus")
    for s, shard in enumerate("abcde"):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for r in range(CHUNK):
                width = POISON.get(f"{shard}/{r}.png")
                data = of_width(width) if width else picture(CHUNK * s + r)
                member = tarfile.TarInfo(f"{r}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return sorted(str(p) for p in folder.glob("*.tar"))


@pytest.mark.usefixtures("local_ray")
def test_each_poison_record_is_an_error_row_and_nothing_else_is(
    corpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = JobSpec.create(
        inputs=corpus,
        output=str(tmp_path / "out"),
        model="tests.cluster.poisons:poisoned",
        refiner="none",
        chunk_size=CHUNK,
        stall_seconds=12,  # on a busy machine, 600 MB take seconds to be had
        max_worker_bytes=600 * 2**20,
        max_error_fraction=0.2,
    )
    outcome = segbatch.run(spec)
    found = {row["image_id"]: row for row in rows(tmp_path / "out")}
    here.run(here.spec(corpus, tmp_path / "undisturbed", chunk_size=CHUNK))
    expected = {row["image_id"]: row for row in rows(tmp_path / "undisturbed")}
    assert len(found) == len(expected) == 20
    errors = {name: tuple(row["error"].values()) for name, row in found.items() if row["error"]}
    assert errors == {
        "b.tar/2": ("decode", "PoisonRecord", "the record ended its process by SIGSEGV, also when it ran alone"),
        "d.tar/0": (
            "segment",
            "PoisonRecord",
            "the record was not finished within the time limit (stall_seconds), also when it ran alone",
        ),
        "e.tar/3": (
            "segment",
            "PoisonRecord",
            "the record took more memory than a worker may hold (max_worker_bytes), also when it ran alone",
        ),
    }
    assert {n: r for n, r in found.items() if n not in errors} == {n: r for n, r in expected.items() if n not in errors}
    assert (outcome.totals.records, outcome.totals.failed, outcome.exit_code) == (20, 3, 0)
    spent = json.loads((tmp_path / "out" / "run.json").read_text())["timings"]["worker_seconds"]["quarantine"]
    with capsys.disabled():
        print(f"\n  three poison records: {spent:.1f} s in quarantine, {outcome.seconds:.1f} s the job")
    assert verify(str(tmp_path / "out")).ok


@pytest.mark.usefixtures("local_ray")
def test_the_count_outlives_workers_and_begins_anew_if_it_is_lost_itself() -> None:
    attempts = RayAttempts()
    assert [attempts.begin("a")[0] for _ in range(3)] == [0, 1, 2]
    attempts.end("a")
    assert [attempts.begin("a")[0] for _ in range(2)] == [0, 1]
    ray.kill(attempts._counter, no_restart=False)
    keys = map(str, itertools.count())
    wait_for(lambda: attempts.begin("a")[0] == 0, 60)  # the count is lost
    wait_for(lambda: attempts.begin(key := next(keys))[0] == 0 and attempts.begin(key)[0] == 1, 60)  # counts once more
