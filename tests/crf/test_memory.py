"""How much memory this process may take, by made-up accounts of machines and containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from segbatch.crf.memory import free_memory, total_memory

GIB = 2**30
UNLIMITED = 9223372036854771712  # as version 1 writes it
MUCH = 10**15


def machine(root: Path, total: int, available: int, groups: str, mounts: str = "") -> Path:
    files = {
        "meminfo": f"MemTotal: {total // 1024} kB\nMemFree: 12 kB\nMemAvailable: {available // 1024} kB\n",
        "self/cgroup": groups,
        "self/mountinfo": mounts,
    }
    for name, text in files.items():
        write(root / "proc" / name, text)
    return root


def v2(folder: Path, limit: int | str, used: int, cache: int = 0) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon {used - cache}\ninactive_file {cache}\nactive_file 7\n")


def v1(folder: Path, limit: int, used: int, cache: int = 0) -> None:
    write(folder / "memory.limit_in_bytes", f"{limit}\n")
    write(folder / "memory.usage_in_bytes", f"{used}\n")
    write(folder / "memory.stat", f"cache {cache}\ninactive_file 0\ntotal_inactive_file {cache}\n")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_without_containers(tmp_path: Path) -> None:
    root = machine(tmp_path, 16 * GIB, 5 * GIB, "0::/user.slice/session-2.scope\n")
    assert (total_memory(root), free_memory(MUCH, root)) == (16 * GIB, 5 * GIB)


def test_a_platform_without_accounts(tmp_path: Path) -> None:
    assert (total_memory(tmp_path), free_memory(MUCH, tmp_path)) == (None, 0)


def test_the_page_cache_of_a_container_is_free(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "0::/\n")
    v2(root / "sys/fs/cgroup", 8 * GIB, 7 * GIB, cache=3 * GIB)
    assert (total_memory(root), free_memory(MUCH, root)) == (8 * GIB, 4 * GIB)
    # The statistics are read only if that is not enough without them.
    assert free_memory(GIB, root) == GIB
    v2(root / "sys/fs/cgroup", 8 * GIB, 7 * GIB)
    assert free_memory(MUCH, root) == GIB


def test_a_container_that_is_full_has_next_to_nothing_and_is_not_unknown(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "0::/\n")
    v2(root / "sys/fs/cgroup", 8 * GIB, 8 * GIB + 4096)
    assert free_memory(MUCH, root) == 1


@pytest.mark.parametrize("tightest", ["", "a.slice", "a.slice/b.scope"])
def test_the_least_of_nested_groups_counts(tmp_path: Path, tightest: str) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "0::/a.slice/b.scope\n")
    for name in ("", "a.slice", "a.slice/b.scope"):
        limit, used = (4 * GIB, 3 * GIB) if name == tightest else (32 * GIB, 5 * GIB)
        v2(root / "sys/fs/cgroup" / name, limit, used, cache=GIB)
    v2(root / "sys/fs/cgroup/other.slice", GIB, GIB)
    assert (total_memory(root), free_memory(MUCH, root)) == (4 * GIB, 2 * GIB)


def test_less_may_be_free_in_a_group_with_a_higher_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "0::/a/b\n")
    v2(root / "sys/fs/cgroup/a", 10 * GIB, 9 * GIB)
    v2(root / "sys/fs/cgroup/a/b", 8 * GIB, 2 * GIB)
    assert (total_memory(root), free_memory(MUCH, root)) == (8 * GIB, GIB)
    v2(root / "sys/fs/cgroup/a/b", "max", 2 * GIB)
    assert total_memory(root) == 10 * GIB


def test_version_1_with_its_own_names(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "5:cpu,cpuacct:/\n4:memory:/kubepods/pod1/c1\n1:name=systemd:/x\n")
    memory = root / "sys/fs/cgroup/memory"
    v1(memory, UNLIMITED, 40 * GIB)
    v1(memory / "kubepods/pod1", 6 * GIB, 5 * GIB, cache=2 * GIB)
    v1(memory / "kubepods/pod1/c1", UNLIMITED, 4 * GIB)
    assert (total_memory(root), free_memory(MUCH, root)) == (6 * GIB, 3 * GIB)


def test_docker_mounts_the_group_of_its_container_with_the_host_s_path(tmp_path: Path) -> None:
    mounts = "35 31 0:32 /docker/c1 /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n"
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "4:memory:/docker/c1/inner\n", mounts)
    v1(root / "sys/fs/cgroup/memory", 8 * GIB, 2 * GIB)
    v1(root / "sys/fs/cgroup/memory/inner", 4 * GIB, GIB)
    assert (total_memory(root), free_memory(MUCH, root)) == (4 * GIB, 3 * GIB)


def test_the_group_of_a_container_is_found_without_a_table_of_mounts(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "4:memory:/docker/c1/inner\n")
    v1(root / "sys/fs/cgroup/memory", 8 * GIB, 2 * GIB)
    assert total_memory(root) == 8 * GIB


def test_a_group_above_the_root_of_its_namespace(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "0::/../../b\n")
    v2(root / "sys/fs/cgroup", 8 * GIB, 2 * GIB)
    v2(root / "sys/b", GIB, GIB)
    assert total_memory(root) == 8 * GIB


def test_both_versions_at_once(tmp_path: Path) -> None:
    root = machine(tmp_path, 64 * GIB, 50 * GIB, "4:memory:/job\n0::/job\n")
    v1(root / "sys/fs/cgroup/memory/job", 6 * GIB, GIB)
    v2(root / "sys/fs/cgroup/unified/job", "max", GIB)
    assert total_memory(root) == 6 * GIB
    v2(root / "sys/fs/cgroup/unified/job", 3 * GIB, GIB)
    assert (total_memory(root), free_memory(MUCH, root)) == (3 * GIB, 2 * GIB)


def test_this_machine_has_an_account() -> None:
    total = total_memory()
    assert total is not None
    assert 0 < free_memory(MUCH) <= total
