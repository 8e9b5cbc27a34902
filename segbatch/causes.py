"""The causes behind an exception, and what a person can do about those that are the machine's. Does not import Ray."""

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
# How libraries that give no errno name these conditions: torch, pyarrow and the C library say strerror's words.
_WORDS = {os.strerror(number).lower(): number for number in _REMEDIES}
_DISK = {errno.ENOSPC, errno.EDQUOT}
_NO_RECORDS = {*_DISK, errno.EROFS, errno.EMFILE, errno.ENFILE}


def causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and every exception behind it, each before its own causes: what it names, holds, or arose within."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        # Ray keeps the exception of a task as its ``cause``, the one of an actor's start among its arguments.
        held = [getattr(link, "cause", None), *(link.args if isinstance(link.args, tuple) else ())]
        inner = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        # ``raise from None`` says that what it arose within is no cause; ``raise from`` another does not.
        context = None if link.__suppress_context__ and link.__cause__ is None else link.__context__
        behind = [*held, *inner, link.__cause__, context]
        waiting.extend(e for e in reversed(behind) if isinstance(e, BaseException))


def errno_of(error: BaseException) -> int | None:
    """The machine's condition that ``error`` or a cause of it tells of: one of those with a ``remedy``, or None."""
    for link in causes(error):
        if isinstance(link, OSError) and link.errno in _REMEDIES:
            return link.errno
        if isinstance(link, MemoryError):
            return errno.ENOMEM
    text = " ".join(str(link) for link in causes(error)).lower()
    return next((number for words, number in _WORDS.items() if words in text), None)


def remedy(error: BaseException) -> str:
    """What to do about a full disk, a missing permission, too many open files or too little memory; "" for the rest."""
    number = errno_of(error)
    return "" if number is None else _REMEDIES[number]


def is_of_the_machine(error: BaseException) -> bool:
    """Whether every record would fail so: a disk is full or read-only, or no more files can be opened."""
    return errno_of(error) in _NO_RECORDS


def no_space(folder: str, least: int) -> str:
    """What is wrong with a folder on whose disk fewer than ``least`` bytes, or no more files, can be written; or ""."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free >= least and (disk.f_favail or not disk.f_files):
        return ""
    return f"{os.strerror(errno.ENOSPC)}: {folder} has {free / 2**20:.1f} MiB free, {least / 2**20:.0f} are needed"


def place(error: BaseException) -> str:
    """The path that a disk's condition concerns, where an exception names it; else the folders that may be meant."""
    if errno_of(error) not in _DISK:
        return ""
    for link in causes(error):
        if isinstance(link, OSError) and link.filename:
            return ""  # its text names it
    temporary = os.environ.get("TMPDIR") or "/tmp"
    ray = os.environ.get("RAY_TMPDIR") or temporary
    return f"no path is named: temporary files are in {temporary} (TMPDIR), Ray's in {ray} (RAY_TMPDIR)"


def lost_gpu(e: Exception) -> bool:
    """Whether the process's CUDA context is lost, so that every later image would fail in this process."""
    return "CUDA error" in str(e)
