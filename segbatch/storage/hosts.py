"""Reads of the objects that a manifest names: one host of many that is unavailable costs its own records alone."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from segbatch.errors import RecordFailure, SourceError, StorageError
from segbatch.storage.failures import is_transient
from segbatch.storage.files import Files
from segbatch.storage.uri import split_uri
from segbatch.text import is_web, redact

# A host that is unavailable for the time of the retries is not requested for as long; its records become error rows.
_SHUT_SECONDS = 30.0
# More than this fraction of a manifest's records must be on unavailable hosts for an outage that stops the job.
_MAX_FRACTION = 0.5
# Rows of a long manifest that are sampled for its hosts: so many runs of so many rows.
_SAMPLED_RUNS = 64
_SAMPLED_ROWS = 128
# Number of other hosts that are requested to distinguish an outage of the network from one of a host.
_OTHERS = 3


class Hosts:
    """Reads objects on any hosts, buckets and disks. Thread-safe.

    Args:
        files: Opens every URI.
        manifest: URI of the manifest.
        uris: Returns the URIs of the whole manifest, or of a sample; called once, when a host is unavailable.
        clock: Returns the present time in seconds.
    """

    def __init__(
        self,
        files: Files,
        manifest: str,
        uris: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files, self._manifest, self._uris, self._clock = files, manifest, uris, clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._example: dict[str, str] = {}
        self._shut: dict[str, float] = {}  # by host, until when
        self._answered: set[str] = set()

    def read(self, uri: str, limit: int, size: int | None = None) -> bytes:
        """See ``Files.read``. Raises ``Outage`` if unavailable hosts serve most of the manifest's records."""
        host = host_of(uri)
        if self._clock() < self._shut.get(host, 0.0):
            raise RecordFailure(
                "read", "UnreadableObject", f"{redact(uri)}: its host did not answer before, and was not asked again"
            )
        data = self._files.read(uri, limit, size, self.is_reachable)
        self._answered.add(host)
        return data

    def is_reachable(self, uri: str, error: Exception) -> bool:
        """Return whether a failed read is the record's: its host is available, or is one of many."""
        host = host_of(uri)
        if split_uri(uri)[0] == "file" and not is_transient(error):
            # What a manifest names was never listed, so a wrong path is the record's; a disk that is away has mostly
            # taken the manifest along.
            return split_uri(self._manifest)[0] != "file" or self._files.has(self._manifest)
        if self._host_is_available(host, uri, error):
            return True
        with self._lock:
            if self._is_outage(host):
                return False
            if is_transient(error):
                self._shut[host] = self._clock() + _SHUT_SECONDS
        return True

    def _host_is_available(self, host: str, uri: str, error: Exception) -> bool:
        if is_transient(error) or isinstance(error, SourceError):
            return self._files.is_reachable(uri, error)
        if is_web(uri) or (isinstance(error, StorageError) and error.code == "NoSuchKey"):
            return True
        # A bucket from which an object was read is available, whatever it answers for another object or for itself.
        return host in self._answered or self._files.has(host)

    def _is_outage(self, host: str) -> bool:
        if not self._counts:
            for uri in self._uris():
                self._counts[host_of(uri)] += 1
                self._example.setdefault(host_of(uri), uri)
        away = {host, *(shut for shut, until in self._shut.items() if self._clock() < until)}
        others = [(other, self._example[other]) for other, _ in self._counts.most_common() if other not in away]
        dead = {other for other, uri in others[:_OTHERS] if not self._files.is_reachable(uri, TimeoutError())}
        away |= dead
        return (
            len(dead) == len(others[:_OTHERS])
            or sum(self._counts[h] for h in away) > _MAX_FRACTION * self._counts.total()
        )


def host_of(uri: str) -> str:
    """Return what becomes unavailable as one: ``s3://bucket``, ``https://host``, a local path's first two folders."""
    protocol, location = split_uri(uri)
    if protocol == "file":
        return "/".join(location.split("/")[:3])
    return f"{protocol}://{location.partition('/')[0]}"


def sampled(total: int) -> list[range]:
    """Return ranges of rows spread over a manifest of ``total`` rows; all rows of a short one."""
    runs = min(_SAMPLED_RUNS, -(-total // _SAMPLED_ROWS))
    edges = [run * total // max(runs, 1) for run in range(runs + 1)]
    return [range(begin, min(begin + _SAMPLED_ROWS, end)) for begin, end in itertools.pairwise(edges)]
