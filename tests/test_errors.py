"""Every error of segbatch has one family, one kind, and the exit code that the README gives it."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from typing import get_args

import pytest

import segbatch
from segbatch.errors import JobError, Kind, ModelError, PlatformError, RecordFailure, SegbatchError

EXIT_CODES = {
    "usage": {2}, "input": {2}, "model": {1, 2}, "output": {1, 2}, "unavailable": {1}, "busy": {5}, "platform": {1},
}  # fmt: skip


def errors(kind: type[SegbatchError] = SegbatchError) -> Iterator[type[SegbatchError]]:
    for found in kind.__subclasses__():
        yield found
        yield from errors(found)


def test_each_error_belongs_to_one_family_and_has_the_exit_code_of_its_kind() -> None:
    for module in pkgutil.walk_packages(segbatch.__path__, "segbatch."):
        if not module.name.startswith(("segbatch.ray_backend", "segbatch.crf", "segbatch.__main__")):
            importlib.import_module(module.name)
    assert set(EXIT_CODES) == set(get_args(Kind))
    for error in errors():
        if not error.__module__.startswith("segbatch.") or error.__name__ == "WorkerFailure":  # it takes another's
            continue
        families = [family for family in (RecordFailure, JobError, PlatformError) if issubclass(error, family)]
        assert len(families) == 1, error
        if error not in (RecordFailure, JobError):
            assert error.exit_code in EXIT_CODES[error.kind], error


def test_an_error_that_is_restated_keeps_kind_and_exit_code_across_processes() -> None:
    restated = pickle.loads(pickle.dumps(SegbatchError("these weights", like=ModelError("m"))))
    assert (str(restated), restated.kind, restated.exit_code) == ("these weights", "model", 2)


@pytest.mark.parametrize("stage", ["read", "decode"])
def test_a_record_failure_survives_pickling(stage: str) -> None:
    failure = pickle.loads(pickle.dumps(RecordFailure(stage, "TruncatedImage", "a.jpg: breaks off")))
    assert (failure.stage, failure.type, failure.message) == (stage, "TruncatedImage", "a.jpg: breaks off")
