"""The errors that segbatch raises, in three families by what must change: the record, the job, the platform."""

from __future__ import annotations

import sys
from typing import Literal

from segbatch.text import escape_invalid_utf8, redact_text

WRONG_PLATFORM = (
    f"segbatch runs on Linux, and this is {sys.platform}; use WSL 2 on Windows, a Linux container or machine on macOS"
)

Kind = Literal["usage", "input", "model", "output", "unavailable", "busy", "platform"]


class SegbatchError(Exception):
    """Base of every error that segbatch raises on purpose; ``str()`` names the input, the value and the remedy.

    Each error belongs to one of three families, by what must change before the same work can succeed: a
    ``RecordFailure`` is one record, a ``JobError`` the job, a ``PlatformError`` the store, machine or cluster.

    The message is redacted, since it may quote a client's exception that names a URI with its credentials, and made
    valid Unicode, since names of files need not be.

    Attributes:
        kind: What failed, for callers that handle errors by class.
        exit_code: What the command returns.

    Args:
        message: One line.
        like: The error, or class of errors, whose kind and exit code this one takes.
    """

    kind: Kind = "platform"
    exit_code: int = 1

    def __init__(self, message: str = "", *, like: SegbatchError | type[SegbatchError] | None = None) -> None:
        super().__init__(escape_invalid_utf8(redact_text(message)))
        if like is not None:
            self.kind, self.exit_code = like.kind, like.exit_code


class RecordFailure(SegbatchError):
    """One record failed. It becomes a row with ``error`` set, and the job continues.

    Args:
        stage: One of ``read decode segment refine``.
        type: A stable word for grouping, such as ``TruncatedImage``.
        message: One line.
    """

    kind = "input"

    def __init__(self, stage: str, type: str, message: str) -> None:
        super().__init__(message)
        self.stage, self.type, self.message = stage, type, str(self)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return (RecordFailure, (self.stage, self.type, self.message))


class JobError(SegbatchError):
    """The job as given cannot succeed: its settings, inputs or model must change first."""

    exit_code = 2


class SpecError(JobError):
    """A setting, configuration or class list is invalid. Raised before any work starts."""

    kind = "usage"


class PlanError(JobError):
    """The plan cannot be executed: the output holds other results, or the cluster is too small."""

    kind = "usage"


class SourceError(JobError):
    """An input cannot be listed, or holds nothing that can be read."""

    kind = "input"


class MissingInput(SourceError):
    """An input does not exist, or holds nothing that can be read: it may not have been delivered yet."""


class AbsentInput(MissingInput):
    """No object or folder has the name of an input, or matches its pattern."""


class EmptyInput(MissingInput):
    """An input exists and holds no object that could be a record."""


class ModelError(JobError):
    """A network or its weights cannot be built."""

    kind = "model"


class NetworkError(JobError):
    """A network or refiner breaks its contract, changed since the plan, or fails on every image."""

    kind = "model"
    exit_code = 1  # it is met while the job runs


class WrongSize(NetworkError):
    """Scores do not have the height and width that image and stride imply; other images may be right."""


class PlatformError(SegbatchError):
    """Storage, a machine, a device or Ray failed: the same command resumes."""


class StorageError(PlatformError, OSError):
    """Storage failed or refused one operation. An ``OSError``, so that readers of a stream meet what they expect.

    Attributes:
        problem: What failed, without the URI: ``access is denied (Forbidden)``.
        transient: Whether the same operation may succeed later.
        code: The code of the store's answer, such as ``NoSuchKey``, if it gave one.
    """

    problem: str = ""
    transient: bool = False
    code: str | None = None


class MissingObject(StorageError, FileNotFoundError):
    """No object or folder has this name."""


class ObjectTooLarge(StorageError):
    """An object is larger than the caller reads.

    Attributes:
        size: Its size in bytes; of one whose size is unknown, more than the limit.
    """

    size: int = 0


class Outage(PlatformError):
    """The storage of the inputs is unavailable."""

    kind = "unavailable"


class OutputError(PlatformError):
    """The output cannot be read or written, or holds what this run must not change."""

    kind = "output"


class Busy(PlatformError):
    """Another process is doing the same work."""

    kind = "busy"
    exit_code = 5


# Types of the error row, of stage ``read``, with which a shard ends that fails as a whole, and its job with it.
COLLAPSED_KEYS, NO_SAMPLES = SHARD_FAILURES = ("CollapsedKeys", "NoSamples")
