"""What reaches a person of failures in other processes: the cause, never what Ray says around it."""

from __future__ import annotations

import errno
import os
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import ray.exceptions as ray_errors
from ray.data.exceptions import ExecutionTimeoutError, SystemException

from segbatch.errors import ModelError, Outage, OutputError, SegbatchError
from segbatch.isolation.failures import WorkerFailure, carried, failure

ADVICE = (
    "\nFailed to apply UDF transform after 1/1 attempts (total backoff 0.0s).\nTo change retry attempts, backoff, or "
    "which errors are retried, configure `ray.data.DataContext.get_current()` (`retried_io_errors` for I/O)"
)
TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 10, in build
    load(path)
{line}
"""


class Unportable(Exception):
    """Cannot be restored from its arguments, and holds what cannot be pickled."""

    def __init__(self, what: str, *, code: int) -> None:
        super().__init__(f"{what} says {code}")
        self.lock = threading.Lock()


def raised(raise_it: Callable[[], Any]) -> Exception:
    try:
        raise_it()
    except Exception as e:
        return e
    raise AssertionError("nothing was raised")


def of_a_task(cause: Exception, line: str = "") -> Exception:
    """As the driver meets what a task raised: pickled, of Ray's class and the cause's."""
    error = ray_errors.RayTaskError("map", TRACEBACK.format(line=line or f"ValueError: {cause}"), cause, "p", 1, "ip")
    return pickle.loads(pickle.dumps(error)).as_instanceof_cause()


def chained(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


def within(outer: Exception, inner: BaseException) -> Exception:
    outer.__context__ = inner
    return outer


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/block")


@pytest.mark.parametrize(
    "e",
    [
        OutputError("s3://b/out: the store is unavailable"),
        chained(RuntimeError("wrapped"), OutputError("s3://b/out: the store is unavailable")),
        within(KeyError("cleaning up"), OutputError("s3://b/out: the store is unavailable")),
        ExceptionGroup("two", [ValueError("one"), OutputError("s3://b/out: the store is unavailable")]),
        of_a_task(OutputError("s3://b/out: the store is unavailable")),
        of_a_task(WorkerFailure(OutputError("s3://b/out: the store is unavailable"))),
        ray_errors.ActorDiedError(
            ray_errors.RayTaskError(
                "f", "Traceback", WorkerFailure(OutputError("s3://b/out: the store is unavailable")), "p", 1, "ip"
            )
        ),
    ],
)
def test_an_error_of_segbatch_is_found_wherever_it_is_and_told_in_its_own_words(e: Exception) -> None:
    found = failure(chained(e, SystemException()) if e.__cause__ is None else e)
    assert (type(found), str(found)) == (OutputError, "s3://b/out: the store is unavailable")


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (lambda: [][3], "IndexError: list index out of range"),
        (lambda: {}["classes"], "KeyError: 'classes'"),
        (lambda: (_ for _ in ()).throw(Unportable("the driver", code=802)), "Unportable: the driver says 802"),
        (lambda: (_ for _ in ()).throw(chained(RuntimeError("no weights"), TimeoutError("read timed out"))),
         "RuntimeError: no weights (caused by TimeoutError: read timed out)"),
        (lambda: (_ for _ in ()).throw(ExceptionGroup("of two threads", [ValueError("scale is 0")])),
         "(caused by ValueError: scale is 0)"),
        (lambda: (_ for _ in ()).throw(MemoryError()), "MemoryError; lower --segment-actors"),
        (lambda: os.stat("/proc/nothing/here"), "No such file or directory: '/proc/nothing/here'"),
    ],
)  # fmt: skip
def test_what_a_worker_raises_reaches_the_driver_with_type_message_and_place(
    cause: Callable[[], Any], says: str
) -> None:
    def work() -> None:
        with carried("a.tar.1-00003.parquet at refine"):
            cause()

    carrier = raised(work)
    carrier.args = (f"{carrier}{ADVICE}",)  # as Ray does
    found = failure(chained(of_a_task(carrier), SystemException()))
    assert str(found).startswith("a.tar.1-00003.parquet at refine: ")
    assert says in str(found)
    assert "DataContext" not in str(found)
    assert found.exit_code == 1


@pytest.mark.parametrize("error", [OutputError("full"), ModelError("not these weights"), Outage("gone")])
def test_an_error_of_segbatch_crosses_processes_with_its_class_kind_and_exit_code(error: SegbatchError) -> None:
    def work() -> None:
        with carried("a worker"):
            raise error

    found = failure(of_a_task(raised(work)))
    assert (type(found), str(found)) == (type(error), str(error))
    assert (found.kind, found.exit_code) == (error.kind, error.exit_code)


@pytest.mark.parametrize(
    ("line", "says", "code"),
    [
        ("pkg.errors.Broken: no kernel image", "a worker failed: Broken: no kernel image", 1),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory", "OutOfMemoryError: CUDA out of memory", 1),
        ("segbatch.errors.ModelError: these weights are of another network", "these weights are of another", 2),
        ("OSError: [Errno 28] No space left on device: '/scratch/x'", "No space left on device: '/scratch/x'", 1),
    ],
)
def test_of_an_exception_that_comes_as_text_only_the_last_one_is_told(line: str, says: str, code: int) -> None:
    text = TRACEBACK.format(line="ValueError: an earlier one") + "\nDuring handling, another\n\n"
    e = ray_errors.UnserializableException(text + TRACEBACK.format(line=line) + ADVICE)
    assert says in str(failure(e))
    assert "DataContext" not in str(failure(e))
    assert failure(e).exit_code == code


@pytest.mark.parametrize(
    ("e", "says"),
    [
        (ray_errors.OutOfDiskError(), "No space left on device .*RAY_TMPDIR"),
        (ray_errors.ObjectStoreFullError(), "object store is full"),
        (ray_errors.OutOfMemoryError("Task was killed due to the node running low on memory"), "--refine-actors"),
        (ExecutionTimeoutError("made no progress; set `DataContext.x`"), "`ray status`"),
        (ray_errors.ActorDiedError(), "while it started"),
        (chained(RuntimeError("Failed to apply" + ADVICE), FULL), "Errno 28.*'/scratch/block'"),
    ],
)
def test_conditions_of_the_machine_are_told_with_a_remedy_and_without_rays_advice(e: Exception, says: str) -> None:
    assert re.search(says, str(failure(e)), re.DOTALL)
    assert "DataContext" not in str(failure(e))


@pytest.mark.parametrize(
    ("e", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), r"\(TMPDIR\), Ray's in .* \(RAY_TMPDIR\); free space"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/home/x"), "'/home/x'.*; .*quota"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/x"), "'/data/x'.*; .*read-only"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x"), "'/data/x'.*; check the permissions"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: No space left on device"), "free space"),
    ],
)
def test_what_the_machine_lacks_is_told_with_the_path_and_the_remedy(e: Exception, says: str) -> None:
    assert re.search(says, str(failure(chained(RuntimeError("the worker"), e))))
