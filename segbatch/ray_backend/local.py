"""Ray on this machine for this machine and this user alone: on loopback, with a token, in a folder of its own."""

from __future__ import annotations

import atexit
import fcntl
import ipaddress
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from segbatch.causes import no_space
from segbatch.errors import PlatformError
from segbatch.planning.pools import Hardware

logger = logging.getLogger(__name__)

_TOKEN = "RAY_AUTH_TOKEN"
# The longest path that Ray puts below its folder is a socket's, and the system takes 107 bytes of it.
_MAX_FOLDER_LENGTH = 30
_PREFIX, _LOCK = "segbatch-", "lock"
_TRIES = 3
_LEAST_FREE = 16 * 2**20  # for logs and sockets; what Ray spills comes on top
_folder: str | None = None
_held: IO[str] | None = None
_own_token = False


def start(here: Hardware, **options: Any) -> None:
    """Start Ray with the cores and GPUs of ``here``. ``stop`` ends it; so does the end of the process.

    Every port listens on loopback, and asks for a token that is drawn for this run and is written to no file;
    sockets, logs and spilled objects are in a new folder that no other user can enter, removed at the end
    (of a driver that was killed, at the next start). Ray gives itself 30 seconds to start, which a busy machine may
    exceed: it is tried ``_TRIES`` times, then ``PlatformError`` is raised.
    ``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH`` and ``RAY_TMPDIR`` are heeded where they are set.
    Says so in the log if Ray listens elsewhere all the same.
    """
    _refuse_full_disk()
    for left in reversed(range(_TRIES)):
        try:
            _start(here, options)
            break
        except Exception as e:
            if not left:
                raise PlatformError(
                    f"Ray did not start on this machine in {_TRIES} attempts: {e}\n"
                    "give the same command again when the machine is less busy; Ray's own logs are kept with "
                    "RAY_TMPDIR=FOLDER"
                ) from e
            logger.warning("Ray did not start (%s), once more", e)
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        logger.warning("Ray listens on %s, not on loopback alone; see SECURITY.md", ", ".join(sorted(addresses)))


def _refuse_full_disk() -> None:
    """Ray itself finds no better words for it than that it timed out, three times."""
    try:
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        problem = no_space(folder, _LEAST_FREE) if os.path.isdir(folder) else ""
    except OSError as e:  # there is no folder in which anything can be written
        problem = str(e)
    if problem:
        raise PlatformError(
            f"Ray cannot start: {problem}; free space there, or set RAY_TMPDIR to a folder on another disk, of at most "
            f"{_MAX_FOLDER_LENGTH} characters"
        )


def _start(here: Hardware, options: dict[str, Any]) -> None:
    global _folder
    _draw_token()
    folder: dict[str, Any] = {}
    if "RAY_TMPDIR" not in os.environ:
        base = tempfile.gettempdir()
        _folder = _own_folder(base if len(base) <= _MAX_FOLDER_LENGTH else "/tmp")
        folder = {"_temp_dir": os.path.join(_folder, "r")}  # Ray opens its own folder to everybody
    atexit.register(stop)
    try:
        with _on_loopback():
            # "local" always starts anew: a head that was killed leaves a stale address file, which breaks "auto".
            ray.init(
                address="local",
                num_cpus=int(here.cpus),
                num_gpus=int(here.gpus),
                include_dashboard=False,
                **options,
                **folder,
            )
    except BaseException:
        stop()
        raise


def stop() -> None:
    """End Ray in this process, and remove what ``start`` made, if it did."""
    global _folder, _own_token
    ray.shutdown()
    if _folder is not None:
        shutil.rmtree(_folder, ignore_errors=True)
        _folder = None
        if _held is not None:
            _held.close()
        atexit.unregister(stop)
    if _own_token:
        os.environ.pop(_TOKEN, None)
        AuthenticationTokenLoader.instance().reset_cache()
        _own_token = False


def _own_folder(base: str) -> str:
    """A new folder in ``base``, locked for as long as this process lives; those that nobody holds are removed."""
    for lock in Path(base).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            if lock.parent.stat().st_uid != os.getuid():
                continue
            with lock.open("a") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # somebody holds it, or was quicker
            continue
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    global _held
    _held = (folder / f"{_LOCK}-").open("w")  # not inherited by Ray's processes
    fcntl.flock(_held, fcntl.LOCK_EX)
    (folder / f"{_LOCK}-").rename(folder / _LOCK)
    return str(folder)


def _draw_token() -> None:
    """Ray's own default is one token for ever, in a file below the home directory that others may read."""
    global _own_token
    chosen = os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" or "RAY_AUTH_TOKEN_PATH" in os.environ
    if chosen or _TOKEN in os.environ:
        return
    os.environ[_TOKEN] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()
    _own_token = True


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray's servers bind to loopback if that is the node's address, and to every address otherwise.

    ``_node_ip_address="127.0.0.1"`` does not make it so: Ray 2.60 replaces it by the machine's address. What does
    is the switch by which Ray stays on one machine, as it does on macOS and Windows by default. It is read from
    ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER`` when Ray is imported, which is past.
    """
    name = "ENABLE_RAY_CLUSTER"
    before = getattr(ray_constants, name, None)
    setattr(ray_constants, name, False)
    try:
        yield
    finally:
        setattr(ray_constants, name, before)
