"""Turn a failure that crossed processes into one error with its cause and remedy."""

from __future__ import annotations

import itertools
import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

from segbatch import errors
from segbatch.causes import causes, place, remedy
from segbatch.errors import PlatformError, SegbatchError

logger = logging.getLogger(__name__)

RESUME = "committed chunks are kept; the same command resumes"
# Ray's exceptions that describe a condition of the machine, by name; the others only wrap a worker's exception.
_RAY_CONDITIONS = {
    "OutOfDiskError": "No space left on device for the objects that Ray spills (RAY_TMPDIR, by default /tmp): free "
    "space there, or set RAY_TMPDIR to a folder on a larger disk",
    "ObjectStoreFullError": "Ray's object store is full: take machines with more memory, or a smaller chunk_size for "
    "a new output",
    "OutOfMemoryError": "the machine ran out of memory and Ray ended a worker: lower --segment-actors or "
    "--refine-actors, or take machines with more memory",
    "ExecutionTimeoutError": "no chunk moved for longer than any healthy chunk may take: see `ray status` for nodes "
    "without free cores or GPUs, and the workers' logs for what they wait for (a mount, a download)",
    "ActorDiedError": "a worker's process ended while it started: see the workers' logs",
    "RuntimeEnvSetupError": "the runtime environment of the workers cannot be set up",
}
_MAX_TEXT = 1000
_ADVICE = re.compile(r"\n?(?:Failed to [^\n]* attempts \(total backoff|To change retry attempts, backoff).*", re.DOTALL)
_LAST_LINE = re.compile(r"(?:(?<=\n)|^)(?P<name>[A-Za-z_][\w.]*)(?:: (?P<text>.*))?", re.DOTALL)


class WorkerFailure(SegbatchError):
    """Carries the ``error`` of a worker to the driver unchanged: Ray adds advice to the message of an exception."""

    def __init__(self, error: SegbatchError) -> None:
        super().__init__(str(error), like=error)
        self.error = error

    def __reduce__(self) -> tuple[type, tuple[SegbatchError]]:
        return (WorkerFailure, (self.error,))


@contextmanager
def carried(what: str) -> Iterator[None]:
    """Turn every exception within into a ``WorkerFailure`` about ``what``, and log its traceback.

    This happens in the worker, where the whole chain of causes still exists: pickling keeps only the outermost.
    """
    try:
        yield
    except Exception as e:  # Ray failures: everything that leaves a worker goes through here
        error = _portable(failure(e, what))
        logger.error("%s: failed", what, exc_info=e)
        raise WorkerFailure(error) from None


def failure(e: BaseException, what: str = "a worker failed") -> SegbatchError:
    """Return the ``SegbatchError`` among the causes of ``e``, or build one from the causes that are not Ray's."""
    chain = list(causes(e))
    for link in chain:
        if isinstance(link, SegbatchError) and not _is_ray(link):
            return link.error if isinstance(link, WorkerFailure) else link
    ours = [link for link in chain if not _is_ray(link)]
    if ours:
        return _described(what, [f"{type(link).__name__}: {_text(link)}".rstrip(": ") for link in ours], e)
    known = next((text for link in chain for name, text in _RAY_CONDITIONS.items() if type(link).__name__ == name), "")
    nested = next((found for link in chain if (found := _nested(str(link)))), None)
    if nested is not None:
        return nested if isinstance(nested, SegbatchError) else _described(what, [nested], e)
    return PlatformError(f"{what}: {known or _text(chain[-1]) or type(e).__name__}\n{RESUME}")


def _described(what: str, lines: list[str], e: BaseException) -> SegbatchError:
    """Build an error that names the outermost and the deepest cause, the place, and the remedy."""
    text = lines[0] if lines[0] == lines[-1] else f"{lines[0]} (caused by {lines[-1]})"
    parts = [f"{what}: {text}", place(e), remedy(e)]
    return PlatformError("; ".join(filter(None, parts)) + f"\n{RESUME}")


def _is_ray(link: BaseException) -> bool:
    return type(link).__module__.partition(".")[0] == "ray"


def _text(link: BaseException) -> str:
    return _ADVICE.sub("", str(link)).strip()[:_MAX_TEXT]


def _nested(text: str) -> SegbatchError | str | None:
    """Return the last exception of a traceback that Ray passes on as text, where it could not restore the object."""
    found: SegbatchError | str | None = None
    lines = _ADVICE.sub("", text).splitlines()
    for before, line in itertools.pairwise(lines):
        match = _LAST_LINE.fullmatch(line)
        # The line that names an exception follows the indented lines of its traceback.
        if match is None or not before.startswith(" ") or match["name"].startswith("ray."):
            continue
        module, _, name = match["name"].rpartition(".")
        kind = getattr(errors, name, None)
        if module == errors.__name__ and isinstance(kind, type) and issubclass(kind, SegbatchError):
            found = SegbatchError(match["text"] or name, like=kind)
        else:
            found = f"{name}: {match['text']}" if match["text"] else name
    return found


def _portable(error: SegbatchError) -> SegbatchError:
    """Return ``error``, or a ``SegbatchError`` with its message if it does not survive pickling."""
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # Ray failures: a foreign __reduce__ may raise anything
        pass
    return SegbatchError(str(error), like=error)
