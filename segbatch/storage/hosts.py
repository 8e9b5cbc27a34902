"""Reads the objects that a manifest names, of which one dead host among many costs its own records and no more."""

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

# A host that did not answer in the time of the retries is not asked for as long; its records are error rows meanwhile.
_SHUT_SECONDS = 30.0
# An outage is that of the hosts which serve more than this fraction of a manifest's records.
_MAX_FRACTION = 0.5
# Rows of a long manifest that are looked at for the hosts that serve it: so many runs of so many rows.
_SAMPLED_RUNS = 64
_SAMPLED_ROWS = 128
# So many of the other hosts are asked whether it is the network that is away, and not a host.
_OTHERS = 3


class Hosts:
    """Reads objects of any hosts, buckets and disks. Used by several threads.

    ``uris`` are those of the whole ``manifest``, or of a sample of it: taken once, when a host is away.
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
        """See ``Files.read``. Raises ``Outage`` if the hosts that are away serve most of the manifest's records."""
        host = host_of(uri)
        if self._clock() < self._shut.get(host, 0.0):
            raise RecordFailure(
                "read", "UnreadableObject", f"{redact(uri)}: its host did not answer before, and was not asked again"
            )
        data = self._files.read(uri, limit, size, self.is_reachable)
        self._answered.add(host)
        return data

    def is_reachable(self, uri: str, error: Exception) -> bool:
        """Whether a failed read is the record's: its host is there, or is one among many."""
        host = host_of(uri)
        if split_uri(uri)[0] == "file" and not is_transient(error):
            # Nobody listed what a manifest names, so that a wrong path is the record's; a disk that is away has
            # mostly taken the manifest along.
            return split_uri(self._manifest)[0] != "file" or self._files.has(self._manifest)
        if self._host_is_there(host, uri, error):
            return True
        with self._lock:
            if self._is_outage(host):
                return False
            if is_transient(error):
                self._shut[host] = self._clock() + _SHUT_SECONDS
        return True

    def _host_is_there(self, host: str, uri: str, error: Exception) -> bool:
        if is_transient(error) or isinstance(error, SourceError):
            return self._files.is_reachable(uri, error)
        if is_web(uri) or (isinstance(error, StorageError) and error.code == "NoSuchKey"):
            return True
        # A bucket that gave an object is there, whatever it says of another, or of itself.
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
    """What is away as one: ``s3://bucket``, ``https://host``, of a local path its first two folders."""
    protocol, location = split_uri(uri)
    if protocol == "file":
        return "/".join(location.split("/")[:3])
    return f"{protocol}://{location.partition('/')[0]}"


def sampled(total: int) -> list[range]:
    """Rows from all over a manifest of ``total``; all rows of one that is not long."""
    runs = min(_SAMPLED_RUNS, -(-total // _SAMPLED_ROWS))
    edges = [run * total // max(runs, 1) for run in range(runs + 1)]
    return [range(begin, min(begin + _SAMPLED_ROWS, end)) for begin, end in itertools.pairwise(edges)]
