"""The chain of causes of an exception, and remedies for conditions of the machine. Does not import Ray."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_SPACE = "free space there"
_REMEDIES = {
    errno.ENOSPC: f"{_SPACE}, or name a folder on another disk",
    errno.EDQUOT: f"{_SPACE}, or have the quota raised",
    errno.EROFS: "the disk is mounted read-only: name another folder, or mount it for writing",
    errno.EACCES: "check the permissions of that path for the user of the workers",
    errno.EPERM: "check the permissions of that path for the user of the workers",
    errno.EMFILE: "raise the limit of open files (ulimit -n) for the driver and the workers, or lower --threads",
    errno.ENFILE: "the machine has too many open files: raise fs.file-max, or end other programs",
    errno.ENOMEM: "lower --segment-actors, --refine-actors or --batch-size, or take machines with more memory",
}
# Libraries that give no errno (torch, pyarrow, the C library) name these conditions by the text of strerror.
_WORDS = {os.strerror(number).lower(): number for number in _REMEDIES}
_DISK = {errno.ENOSPC, errno.EDQUOT}
_NO_RECORDS = {*_DISK, errno.EROFS, errno.EMFILE, errno.ENFILE}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and all its causes, each before its own: named by ``from``, contained, or handled at the time."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        # Ray keeps the exception of a task in ``cause``, the one of an actor's constructor among the arguments.
        held = [getattr(link, "cause", None), *(link.args if isinstance(link.args, tuple) else ())]
        inner = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        # ``raise from None`` excludes the exception that was handled at the time; ``raise from`` another does not.
        context = None if link.__suppress_context__ and link.__cause__ is None else link.__context__
        behind = [*held, *inner, link.__cause__, context]
        waiting.extend(e for e in reversed(behind) if isinstance(e, BaseException))


def errno_of(error: BaseException) -> int | None:
    """Return the errno of the machine's condition behind ``error``, if it is one with a ``remedy``."""
    for link in causes(error):
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            return link.errno
        if isinstance(link, MemoryError):
            return errno.ENOMEM
    text = " ".join(str(link) for link in causes(error)).lower()
    return next((number for words, number in _WORDS.items() if words in text), None)


def remedy(error: BaseException) -> str:
    """Return the remedy for a full disk, missing permission, too many open files or too little memory; else ""."""
    number = errno_of(error)
    return "" if number is None else _REMEDIES[number]


def is_of_the_machine(error: BaseException) -> bool:
    """Return whether every record would fail likewise: the disk is full or read-only, or no file can be opened."""
    return errno_of(error) in _NO_RECORDS


def no_space(folder: str, min_bytes: int) -> str:
    """Return the problem of a folder whose disk has less than ``min_bytes`` or no inode free; else ""."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free >= min_bytes and (disk.f_favail or not disk.f_files):
        return ""
    return f"{os.strerror(errno.ENOSPC)}: {folder} has {free / 2**20:.1f} MiB free, {min_bytes / 2**20:.0f} are needed"


def place(error: BaseException) -> str:
    """Return the folders that may be full where no exception names a path; else ""."""
    if errno_of(error) not in _DISK:
        return ""
    for link in causes(error):
        if isinstance(link, OSError) and link.filename:
            return ""  # its text names it
    temporary = os.environ.get("TMPDIR") or "/tmp"
    ray = os.environ.get("RAY_TMPDIR") or temporary
    return f"no path is named: temporary files are in {temporary} (TMPDIR), Ray's in {ray} (RAY_TMPDIR)"


def lost_gpu(e: Exception) -> bool:
    """Return whether the process has lost its CUDA context, so that every later image would fail in it."""
    return "CUDA error" in str(e)
