"""Memory of this machine, and of the containers (cgroup v1 and v2) that this process runs in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


@dataclass(frozen=True)
class _Account:
    """Names of the files in which a version of cgroups keeps the memory of a group."""

    mounts: tuple[str, ...]
    limit: str
    used: str
    reclaimable: str


_V2 = _Account(("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max", "memory.current", "inactive_file")
_V1 = _Account(("sys/fs/cgroup/memory",), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def total_memory(root: Path = _ROOT) -> int | None:
    """Return the bytes of memory of this machine, or of the container with the least; None if unknown.

    Args:
        root: Folder that holds ``proc`` and ``sys``.
    """
    machine = _fields(root / "proc/meminfo").get("MemTotal:")
    limits = [limit for _, _, limit in _limits(root)]
    return min([*limits, *([] if machine is None else [machine * 1024])], default=None)


def free_memory(needed: int, root: Path = _ROOT) -> int:
    """Return the bytes that this process can still take, 0 if unknown.

    The page cache that the kernel gives back on demand counts as free: of a group its inactive files, as for the
    kubelet; of the machine ``MemAvailable``. The result is a lower bound if it is at least ``needed``, because reading
    the statistics of a group is slow.

    Args:
        needed: Bytes that the caller is about to take.
        root: Folder that holds ``proc`` and ``sys``.
    """
    machine = _fields(root / "proc/meminfo").get("MemAvailable:")
    free = [] if machine is None else [machine * 1024]
    for group, account, limit in _limits(root):
        used = _number(group / account.used)
        if used is None:
            continue
        if limit - used < needed:
            used -= min(used, _fields(group / "memory.stat").get(account.reclaimable, 0))
        free.append(max(0, limit - used))
    return max(1, min(free)) if free else 0


def _limits(root: Path) -> Iterator[tuple[Path, _Account, int]]:
    """Yield (folder, account, bytes) of this process's group and of each group above it that has a limit."""
    for group, account in _groups(root):
        if (limit := _number(group / account.limit)) is not None:
            yield group, account, limit


@lru_cache(maxsize=1)  # a process stays in its groups, and a machine may have thousands of mounts
def _groups(root: Path) -> tuple[tuple[Path, _Account], ...]:
    """Return the folders that this process's group, and each group above it, may have."""
    return tuple(
        (group, account)
        for account, path in _memberships(root)
        for mount in account.mounts
        for group in _above(root / mount, _below_mount(root, mount, path))
    )


def _memberships(root: Path) -> list[tuple[_Account, str]]:
    """Return the path of this process's group in each version of cgroups, ``/`` where it is unknown."""
    paths = {_V2: "/", _V1: "/"}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths[_V2] = path
        elif "memory" in controllers.split(","):
            paths[_V1] = path
    return list(paths.items())


def _below_mount(root: Path, mount: str, path: str) -> str:
    """Return the path of a group below a mount. Docker mounts the group of the container itself."""
    for line in reversed(_lines(root / "proc/self/mountinfo")):
        fields = line.split()
        if fields[4] == f"/{mount}":
            mounted = fields[3].rstrip("/")
            return path[len(mounted) :] if f"{path}/".startswith(f"{mounted}/") else "/"
    return path


def _above(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group, of each group above it, and the mount."""
    relative = PurePosixPath(path.lstrip("/"))
    if ".." not in relative.parts:  # the group is above the root of the namespace
        yield from (mount / name for name in (relative, *relative.parents) if name.name)
    yield mount


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """Return the number in a file; None for ``max``, and if there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines ``name number``."""
    parts = (line.split() for line in _lines(path))
    return {name: int(number) for name, number, *_ in parts if number.isdigit()}
