"""A worker's start that fails now and then costs nothing; one that fails every time ends the job with its cause."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from segbatch.errors import ModelError, Outage, SegbatchError
from segbatch.isolation import Limits
from segbatch.isolation.supervise import started


class Starts:
    """Counts in this process, as ``ray_backend.attempts`` does beside the driver."""

    def __init__(self) -> None:
        self.begun, self.cause, self.stopped = 0, "", 0

    def begin(self, key: str) -> tuple[int, float]:
        raise AssertionError("a start is no attempt at a chunk")

    def end(self, key: str) -> None:
        raise AssertionError("a start is no attempt at a chunk")

    def start(self, worker: str) -> tuple[int, str]:
        self.begun += 1
        return self.begun - 1, self.cause

    def failed(self, worker: str, cause: str) -> None:
        self.cause = cause

    def ready(self, worker: str) -> None:
        self.begun, self.cause = 0, ""

    def stop(self, why: str) -> None:
        """Instead of the end of the process, after which Ray starts it again."""
        self.stopped += 1
        raise SystemExit(why)


def until_it_stays(build: Callable[[], str], starts: Starts) -> str:
    """What comes of a worker that Ray starts again whenever its process ends."""
    while True:
        try:
            return started(build, starts, "segment 0123", starts.stop)  # type: ignore[arg-type, return-value]
        except SystemExit:
            continue


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_worker_is_started_again_after_an_exception_and_after_the_end_of_its_process(failures: int) -> None:
    for how in (ConnectionResetError("the store hung up"), RuntimeError("CUDA error: busy"), SystemExit(7)):
        left = iter([how] * failures)

        def build(left=left) -> str:  # type: ignore[no-untyped-def]
            for error in left:
                raise error
            return "built"

        starts = Starts()
        assert until_it_stays(build, starts) == "built"
        assert starts.begun == 0, "the next failure is the first again"


def test_a_start_that_fails_every_time_ends_with_its_cause() -> None:
    def build() -> str:
        raise RuntimeError("libcudart.so.13: cannot open shared object file")

    starts = Starts()
    with pytest.raises(SegbatchError, match=r"segment worker: start 4 of at most 4 failed: RuntimeError: libcudart"):
        until_it_stays(build, starts)
    assert starts.stopped == 3


def test_a_process_that_ends_at_every_start_is_told_without_a_cause() -> None:
    def build() -> str:
        raise SystemExit(7)

    with pytest.raises(SegbatchError, match=r"segment worker: 4 starts in a row failed: its process ended"):
        until_it_stays(build, Starts())


@pytest.mark.parametrize("error", [ModelError("these weights are of another network"), SegbatchError("no such class")])
def test_what_every_start_would_meet_ends_the_job_at_the_first(error: SegbatchError) -> None:
    def build() -> str:
        raise error

    starts = Starts()
    with pytest.raises(type(error), match=str(error)):
        until_it_stays(build, starts)
    assert starts.stopped == 0


@pytest.mark.parametrize("cause", [ConnectionResetError("hung up"), TimeoutError(), MemoryError(), Outage("gone")])
def test_an_error_of_segbatch_that_may_pass_is_tried_again(cause: Exception) -> None:
    def build() -> str:
        raise ModelError("the weights cannot be read") from cause

    starts = Starts()
    with pytest.raises(ModelError, match="the weights cannot be read"):
        until_it_stays(build, starts)
    assert starts.stopped == 3


@pytest.mark.parametrize(
    ("stall", "records", "pixels", "seconds"),
    [(600, 256, 16_000_000, 4 * 600 * 256), (600, 256, 64_000_000, 4 * 2400 * 256), (8, 4, 16_000_000, 86400)],
)
def test_rays_guard_follows_from_what_the_limits_allow_a_chunk(
    stall: float, records: int, pixels: int, seconds: float
) -> None:
    assert Limits(stall, None).chunk_seconds(records, pixels) == seconds
