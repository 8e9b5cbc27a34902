"""What can go wrong, said to a person: what was met, its value, and the remedy."""

from __future__ import annotations

import re
import sys

from segbatch.text import redact_text

WRONG_PLATFORM = (
    f"segbatch runs on Linux, and this is {sys.platform}; use WSL 2 on Windows, a Linux container or machine on macOS"
)

# Control characters of C0 and C1, which terminals obey, marks that reorder text, line separators, lone surrogates.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """``text`` of a stranger on one line, in which nothing acts on a terminal or a log: ``\\x1b[31m``, ``\\n``."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_lines(text: str) -> str:
    """The same of text that has lines of its own."""
    return "\n".join(map(visible, text.split("\n")))


class SegbatchError(Exception):
    """Base of every error this package raises on purpose. ``exit_code`` is what the command returns.

    The message is redacted here, since it may quote a client's exception, which names the URI as it was asked for.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redact_text(message))


class SpecError(SegbatchError):
    """The job, as written, cannot run. Raised before any work starts."""

    exit_code = 2


class SourceError(SegbatchError):
    """An input cannot be listed or a shard cannot be read."""

    exit_code = 2


class MissingInput(SourceError):
    """Nothing is where an input says, or nothing that can be read: it may not have been delivered yet."""


class Outage(SourceError):
    """The store of the inputs does not answer: nothing is wrong with the job, which goes on when it does."""

    exit_code = 1


class ModelError(SegbatchError):
    """A network or its weights cannot be built."""

    exit_code = 2


class NetworkError(SegbatchError):
    """A network or refiner breaks its contract, changed since the plan, or fails on every image: the job stops."""


class WrongSize(NetworkError):
    """Scores of another height or width than the image and the stride say; those of other images may be right."""


class OutputError(SegbatchError):
    """The output store refused a read or a write, or holds something this run must not touch."""


class PlanError(SegbatchError):
    """The plan cannot be carried out: other results are in the way, or the cluster cannot hold it."""

    exit_code = 2


class RecordFailure(SegbatchError):
    """One record failed. It becomes a row with ``error`` set; the job goes on.

    ``stage`` is one of ``read decode segment refine``; ``kind`` a short stable word for grouping
    (``TruncatedImage``), the message a sentence for a person.
    """

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(message)
        self.stage, self.kind, self.message = stage, kind, str(self)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return (RecordFailure, (self.stage, self.kind, self.message))


# Types of the error row, of stage ``read``, with which a shard ends that fails as a whole, and its job with it.
COLLAPSED_KEYS, NO_SAMPLES = SHARD_FAILURES = ("CollapsedKeys", "NoSamples")


class Busy(SegbatchError):
    """Another process is at the same work; this one leaves it alone."""

    exit_code = 5
