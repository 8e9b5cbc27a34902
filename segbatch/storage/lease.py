"""One night at a time: a lease in the store, taken with a conditional write, kept by a heartbeat.

Leases are numbered objects. Whoever creates the next number (``If-None-Match``, a hard link) holds it; nobody writes
another's. So a dead night's lease is taken over by exactly one of those that try, with no conditional update, which
many stores lack. The highest number holds; an earlier holder that wakes up finds a higher one, and stops.
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
from typing import Any

from segbatch.errors import Busy, OutputError, PlatformError
from segbatch.storage.store import Store

logger = logging.getLogger(__name__)

FOLDER = "lease"
_NAME = re.compile(r"(\d{8})\.json")


class LeaseLost(PlatformError):
    """This night gave no sign of life for too long, and may no longer change what is current."""


class Lease:
    """A lease that is held. ``seconds`` is how long it lasts without a renewal; ``clock`` gives Unix time."""

    def __init__(self, store: Store, number: int, content: dict[str, Any], seconds: float, clock: Callable[[], float]):
        self._store, self._number, self._content = store, number, content
        self._seconds, self._clock = seconds, clock
        self._mutex = threading.Lock()
        self._lost: str | None = None

    @staticmethod
    def take(store: Store, seconds: float, clock: Callable[[], float], what: str) -> Lease:
        """Take the lease of ``store``. Raises ``Busy`` that names the holder if it is held."""
        held, there = _highest(store)
        if there is not None and not there["released"] and clock() < there["expires"]:
            raise _busy(store, there)
        content = {
            "owner": _owner(),
            "what": what,
            "token": uuid.uuid4().hex,
            "taken": clock(),
            "expires": clock() + seconds,
            "released": False,
        }
        lease = Lease(store, held + 1, content, seconds, clock)
        if not store.create(_name(held + 1), lease._bytes()) or _highest(store)[0] != held + 1:
            raise _busy(store, _highest(store)[1])
        if there is not None and not there["released"]:
            logger.warning("%s/%s: %s is dead; its lease is taken over", store.uri, FOLDER, there["owner"])
        for name in store.names(FOLDER):
            found = _NAME.fullmatch(name)
            if found and int(found[1]) < lease._number:
                store.remove(f"{FOLDER}/{name}")
        return lease

    @contextmanager
    def kept(self) -> Iterator[Lease]:
        """Renews the lease until the end of the block, and then gives it back."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._seconds / 3) and self._lost is None:
                try:
                    self.renew()
                except LeaseLost as e:
                    logger.error("%s", e)
                except OutputError as e:  # the store may answer again before the lease ends
                    logger.warning("the lease cannot be renewed: %s", e)

        thread = threading.Thread(target=beat, name="segbatch-lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
            self._release()

    @property
    def lost(self) -> bool:
        """Whether it is known, without asking the store, that the lease is no longer held."""
        return self._lost is not None or self._clock() >= self._content["expires"]

    def renew(self) -> None:
        """Hold the lease for ``seconds`` from now. Raises ``LeaseLost``; ``OutputError`` if the store fails."""
        with self._mutex:
            number, there = _highest(self._store)
            if self._lost is None and number != self._number:
                holder = there["owner"] if there else "nobody"
                self._lost = f"{self._store.uri}/{FOLDER}: the lease was taken over by {holder}"
            if self._lost is None and self.lost:
                self._lost = f"{self._store.uri}/{FOLDER}: the lease could not be renewed for {self._seconds:g} s"
            if self._lost is not None:
                raise LeaseLost(f"{self._lost}; this night changes nothing more, the next one resumes")
            renewed = {**self._content, "expires": self._clock() + self._seconds}
            self._store.write(_name(self._number), json.dumps(renewed).encode())
            self._content = renewed

    def _release(self) -> None:
        with self._mutex:
            if self.lost:
                return
            self._content["released"] = True
            try:
                self._store.write(_name(self._number), self._bytes())
            except OutputError as e:
                logger.warning("the lease cannot be given back, and ends by itself: %s", e)

    def _bytes(self) -> bytes:
        return json.dumps(self._content).encode()


def holder(store: Store, clock: Callable[[], float]) -> str | None:
    """Who holds the lease now, in words; None if nobody does."""
    there = _highest(store)[1]
    return _who(there) if there is not None and not there["released"] and clock() < there["expires"] else None


def _highest(store: Store) -> tuple[int, dict[str, Any] | None]:
    numbers = sorted((int(m[1]) for m in map(_NAME.fullmatch, store.names(FOLDER)) if m), reverse=True)
    for number in numbers:
        try:
            there = json.loads(store.read(_name(number)))
            return number, {"owner": "somebody", "what": "", "released": False, **there, "expires": there["expires"]}
        except FileNotFoundError:  # removed by a later holder
            continue
        except (ValueError, TypeError, KeyError) as e:
            raise OutputError(
                f"{store.uri}/{_name(number)}: not a lease ({e}); if no night runs, remove the folder {FOLDER}/"
            ) from None
    return 0, None


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08d}.json"


def _owner() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def _who(there: dict[str, Any]) -> str:
    until = datetime.datetime.fromtimestamp(there["expires"], datetime.UTC)
    return f"{there['owner']}, {there['what']}; its lease ends at {until:%Y-%m-%d %H:%M:%S} UTC unless it is renewed"


def _busy(store: Store, there: dict[str, Any] | None) -> Busy:
    who = _who(there) if there else "somebody who has just left"
    return Busy(f"{store.uri}: another night runs: {who}. This one does nothing; the next start resumes")
