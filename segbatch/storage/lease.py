"""A lease in storage that one process at a time holds: acquired by a conditional write, renewed, released.

Leases are numbered objects. Whoever creates the next number (``If-None-Match``, a hard link) holds the lease, and only
its holder writes an object. So exactly one of several contenders takes over an expired lease, without a conditional
update, which many stores do not support. The highest number counts: an earlier holder that resumes finds a higher one,
and stops. The lease of a process of this host that has certainly ended need not expire before it is taken over.
"""

from __future__ import annotations

import datetime
import getpass
import json
import logging
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter

from segbatch.errors import Busy, OutputError, PlatformError
from segbatch.stopping import on_stop, process_id
from segbatch.storage.process_identity import ProcessIdentity
from segbatch.storage.store import Store

logger = logging.getLogger(__name__)

FOLDER = "lease"
_PROCESS: TypeAdapter[ProcessIdentity | None] = TypeAdapter(ProcessIdentity | None)
_NAME = re.compile(r"(\d{8})\.json")


class LeaseLost(PlatformError):
    """The lease expired, or another run took it over: this run may no longer promote anything."""


@dataclass(frozen=True)
class _Record:
    """Content of a lease object; times are Unix times in seconds."""

    expires: float
    owner: str = "another process"
    what: str = ""
    token: str = ""
    taken: float = 0.0
    released: bool = False
    process: ProcessIdentity | None = None

    @staticmethod
    def of(data: bytes) -> _Record:
        """Parse the object's content. Raises ``ValueError``, ``TypeError`` or ``KeyError`` for any other object."""
        fields = json.loads(data)
        known = {name: fields[name] for name in _Record.__dataclass_fields__ if name in fields}
        process = _PROCESS.validate_python(fields.get("process"))
        return _Record(**{**known, "expires": float(fields["expires"]), "process": process})

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def is_held(self, now: float) -> bool:
        return not self.released and now < self.expires and not self.is_abandoned

    @property
    def is_abandoned(self) -> bool:
        """Whether its holder has ended without releasing it, by what this host knows."""
        return not self.released and self.process is not None and self.process.is_gone()

    def describe(self) -> str:
        until = datetime.datetime.fromtimestamp(self.expires, datetime.UTC)
        return f"{self.owner}, {self.what}; its lease expires at {until:%Y-%m-%d %H:%M:%S} UTC unless it is renewed"


class Lease:
    """A lease that this process holds, see ``take``."""

    def __init__(self, store: Store, number: int, record: _Record, seconds: float, clock: Callable[[], float]) -> None:
        self._store, self._number, self._record = store, number, record
        self._seconds, self._clock = seconds, clock
        self._mutex = threading.Lock()
        self._lost: str | None = None

    @staticmethod
    def take(store: Store, seconds: float, clock: Callable[[], float], what: str) -> Lease:
        """Acquire the lease of ``store``.

        Args:
            store: Where the lease is kept.
            seconds: After how long without a renewal the lease expires.
            clock: Returns the Unix time in seconds.
            what: What the holder does, for the message of another contender.

        Raises:
            Busy: Another process holds it; names the holder.
        """
        number, existing = _highest(store)
        if existing is not None and existing.is_held(clock()):
            raise _busy(store, existing)
        now = clock()
        record = _Record(
            owner=_owner(),
            what=what,
            token=uuid.uuid4().hex,
            taken=now,
            expires=now + seconds,
            process=ProcessIdentity.current(),
        )
        lease = Lease(store, number + 1, record, seconds, clock)
        if not store.create(_name(lease._number), record.to_bytes()) or _highest(store)[0] != lease._number:
            raise _busy(store, _highest(store)[1])
        if existing is not None and not existing.released:
            state = "was held until its process ended" if existing.is_abandoned else "has expired"
            logger.warning("%s/%s: the lease of %s %s, and is taken over", store.uri, FOLDER, existing.owner, state)
        for name in store.names(FOLDER):
            match = _NAME.fullmatch(name)
            if match and int(match[1]) < lease._number:
                store.remove(f"{FOLDER}/{name}")
        return lease

    @contextmanager
    def kept(self) -> Iterator[Lease]:
        """Renew the lease until the end of the block, and then release it."""
        over = threading.Event()

        def heartbeat() -> None:
            while not over.wait(self._seconds / 3) and self._lost is None:
                try:
                    self.renew()
                except LeaseLost as e:
                    logger.error("%s", e)
                except OutputError as e:  # storage may be available again before the lease expires
                    logger.warning("the lease cannot be renewed: %s", e)

        thread = threading.Thread(target=heartbeat, name="segbatch-lease", daemon=True)
        thread.start()
        try:
            with on_stop(self._release):
                yield self
        finally:
            over.set()
            thread.join()
            self._release()

    @property
    def lost(self) -> bool:
        """Whether it is known, without a request, that the lease is no longer held."""
        return self._lost is not None or self._clock() >= self._record.expires

    def renew(self) -> None:
        """Hold the lease for another ``seconds`` from now.

        Raises:
            LeaseLost: It expired, or was taken over.
            OutputError: Storage cannot be read or written.
        """
        with self._mutex:
            number, existing = _highest(self._store)
            if self._lost is None and number != self._number:
                owner = existing.owner if existing else "a run that has ended"
                self._lost = f"{self._store.uri}/{FOLDER}: the lease was taken over by {owner}"
            if self._lost is None and self.lost:
                self._lost = f"{self._store.uri}/{FOLDER}: the lease could not be renewed for {self._seconds:g} s"
            if self._lost is not None:
                raise LeaseLost(f"{self._lost}; this run promotes nothing more, the next one resumes")
            renewed = replace(self._record, expires=self._clock() + self._seconds)
            self._store.write(_name(self._number), renewed.to_bytes())
            self._record = renewed

    def _release(self) -> None:
        with self._mutex:
            if self.lost:
                return
            self._record = replace(self._record, released=True)
            try:
                self._store.write(_name(self._number), self._record.to_bytes())
            except OutputError as e:
                logger.warning("the lease cannot be released, and expires: %s", e)


def holder(store: Store, clock: Callable[[], float]) -> str | None:
    """Describe the process that holds the lease now; None if it is free."""
    record = _highest(store)[1]
    return record.describe() if record is not None and record.is_held(clock()) else None


def _highest(store: Store) -> tuple[int, _Record | None]:
    numbers = sorted((int(m[1]) for m in map(_NAME.fullmatch, store.names(FOLDER)) if m), reverse=True)
    for number in numbers:
        try:
            return number, _Record.of(store.read(_name(number)))
        except FileNotFoundError:  # removed by a later holder
            continue
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise OutputError(
                f"{store.uri}/{_name(number)}: not a lease ({e}); if no run is active, remove the folder {FOLDER}/"
            ) from None
    return 0, None


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def _owner() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {process_id()})"


def _busy(store: Store, record: _Record | None) -> Busy:
    who = record.describe() if record else "a process that has just ended"
    return Busy(f"{store.uri}: another run holds the lease: {who}. This run does nothing; the next start resumes")
