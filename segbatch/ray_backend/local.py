"""Start Ray for one process: it listens on loopback, asks for a token, and keeps its files in a private folder."""

from __future__ import annotations

import atexit
import errno
import fcntl
import ipaddress
import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from segbatch import stopping
from segbatch.causes import no_space
from segbatch.errors import PlatformError
from segbatch.planning.pools import Hardware
from segbatch.ray_backend.replacements import fewer_processes, on_loopback
from segbatch.ray_backend.search_path import DriverSearchPath

logger = logging.getLogger(__name__)

_TOKEN = "RAY_AUTH_TOKEN"
# The longest path below Ray's folder is that of a socket, of which the system takes 107 bytes.
_SOCKET = "/session_2026-11-30_21-20-43_844009_4194304/sockets/plasma_store"
_MAX_FOLDER_BYTES = 107 - len(_SOCKET)
_PREFIX, _LOCK = "segbatch-", "lock"
_OWN_FOLDER = f"/{_PREFIX}12345678/r"
_TRIES = 3
_LEAST_FREE = 16 * 2**20  # for logs and sockets; what Ray spills comes on top
_folder: str | None = None
_held: IO[str] | None = None
_own_token = False


def start(hardware: Hardware, **options: Any) -> None:
    """Start Ray with the cores and GPUs of ``hardware``. ``stop`` ends it, and so does the end of the process.

    Every port listens on loopback and asks for a token that is drawn for this run and written to no file; a warning is
    logged if Ray listens elsewhere. Sockets, logs and spilled objects are in a new folder that no other user can
    enter. It is removed at the end or, after a driver was killed, at the next start. ``RAY_AUTH_MODE``,
    ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH`` and ``RAY_TMPDIR`` are honored where they are set.

    Ray allows itself 30 seconds to start, which a busy machine may exceed: it is started up to ``_TRIES`` times.

    Raises:
        PlatformError: Ray did not start.
    """
    _refuse_full_disk()
    for left in reversed(range(_TRIES)):
        try:
            _start(hardware, options)
            break
        except Exception as e:  # Ray failures: it raises many types when it does not start
            if not left:
                raise PlatformError(
                    f"Ray did not start on this machine in {_TRIES} attempts: {e}\n"
                    "run the same command when the machine is less busy; Ray's logs are kept with "
                    "RAY_TMPDIR=FOLDER"
                ) from e
            logger.warning("Ray did not start (%s); trying again", e)
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        logger.warning("Ray listens on %s, not on loopback alone; see SECURITY.md", ", ".join(sorted(addresses)))


def _refuse_full_disk() -> None:
    """Raise ``SegbatchError`` where Ray cannot write or has no space: Ray itself reports a timeout, three times."""
    try:
        folder = _chosen_folder() or tempfile.gettempdir()
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        problem = no_space(folder, _LEAST_FREE)
    except OSError as e:
        problem = f"RAY_TMPDIR: {e}" if _chosen_folder() else str(e)  # no temporary folder is writable
    if problem:
        raise PlatformError(
            f"Ray cannot start: {problem}; free space there, or set RAY_TMPDIR to a writable folder on another disk"
        )


def _chosen_folder() -> str:
    """Return the folder that RAY_TMPDIR names for the files of Ray; "" if it is not set."""
    chosen = os.environ.get("RAY_TMPDIR", "")
    return os.path.abspath(chosen) if chosen else ""


def _start(hardware: Hardware, options: dict[str, Any]) -> None:
    global _folder
    _draw_token()
    folder = os.path.join(_chosen_folder(), "ray") if _chosen_folder() else ""
    if not folder or not _fits(folder):
        base = tempfile.gettempdir()
        _folder = _own_folder(base if _fits(base + _OWN_FOLDER) else "/tmp")
        own = os.path.join(_folder, "r")  # Ray opens its own folder to everybody
        if folder:  # files are in the chosen folder, and sockets have short names through a link to it
            os.makedirs(folder, exist_ok=True)
            os.symlink(folder, own)
        folder = own
    atexit.register(stop)
    stopping.add(_remove_folder)
    try:
        with on_loopback(), fewer_processes():
            # Not "auto", which fails on the stale address file of a head that was killed.
            ray.init(
                address="local",
                num_cpus=int(hardware.cpus),
                num_gpus=int(hardware.gpus),
                include_dashboard=False,
                job_config=DriverSearchPath(),
                _temp_dir=folder,
                **options,
            )
    except BaseException:
        stop()
        raise


def stop() -> None:
    """Disconnect from Ray and, if ``start`` started it, end it and remove its folder and token."""
    global _folder, _own_token
    ray.shutdown()
    stopping.discard(_remove_folder)
    if _folder is not None:
        _remove_folder()
        _folder = None
        if _held is not None:
            _held.close()
        atexit.unregister(stop)
    if _own_token:
        os.environ.pop(_TOKEN, None)
        AuthenticationTokenLoader.instance().reset_cache()
        _own_token = False


def _remove_folder() -> None:
    if _folder is not None:
        shutil.rmtree(_folder, ignore_errors=True)


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) <= _MAX_FOLDER_BYTES


def _own_folder(base: str) -> str:
    """Create a folder in ``base`` that is locked while this process lives; remove folders that no process locks."""
    for lock in Path(base).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            if lock.parent.stat().st_uid != os.getuid():
                continue
            with lock.open("a") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # locked by a live process, or removed by another
            continue
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    global _held
    _held = (folder / f"{_LOCK}-").open("w")  # not inherited by Ray's processes
    fcntl.flock(_held, fcntl.LOCK_EX)
    (folder / f"{_LOCK}-").rename(folder / _LOCK)
    return str(folder)


def _draw_token() -> None:
    """Set a token for this run: by default Ray keeps one token forever, in a file that others may read."""
    global _own_token
    chosen = os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or "RAY_AUTH_TOKEN_PATH" in os.environ
    if chosen or _TOKEN in os.environ:
        return
    os.environ[_TOKEN] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()
    _own_token = True
