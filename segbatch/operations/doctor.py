"""``segbatch doctor``: look at this machine, Ray and the storage as a job would use them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from segbatch import shadowing
from segbatch.config.job import JobSpec
from segbatch.crf.memory import free_memory, total_memory
from segbatch.crf.native_engine import instruction_set
from segbatch.errors import SegbatchError
from segbatch.logs import LogReporter
from segbatch.models.bf16 import cpu_supports_bf16
from segbatch.packages import missing_package
from segbatch.planning.pools import Hardware, plan_pools, refuse_missing_gpus
from segbatch.protocols import Reporter
from segbatch.storage.store import Store
from segbatch.text import redact, redact_text

Status = Literal["ok", "warning", "problem"]
_WORKER_BYTES = 2 * 10**9  # what docs/operate.md plans for each worker
_DISK_BYTES = 20 * 10**9
_OBJECT_STORE_FRACTION = 0.3  # of the memory, by Ray's default
_MANY_CHUNKS = 10**6
_SLOW_START_SECONDS = 20.0
_PACKAGES = ("ray", "torch", "torchvision", "pyarrow", "numpy", "pillow", "fsspec", "s3fs", "gcsfs", "adlfs")


@dataclass(frozen=True)
class Check:
    """One subject of the diagnosis.

    Attributes:
        name: Of the subject.
        status: ``warning``: jobs work, slower or less safely than they could. ``problem``: jobs fail.
        found: What was found.
        remedy: What to do about it; "" if nothing.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All checks, redacted, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check found a problem."""
        return self.count("problem") == 0

    def count(self, status: Status) -> int:
        """Return the number of checks with this status."""
        return sum(check.status == status for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, without secrets."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def doctor(
    outputs: Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Diagnosis:
    """Check platform, packages, processor, memory, disks, GPUs, Ray and stores. Jobs of other users are not disturbed.

    Ray is started and stopped, or the cluster that the settings name is joined. Below each output one small object is
    written and removed.

    Args:
        outputs: Folders or prefixes to list and to write to.
        settings: Fields of ``JobSpec`` of the job that is to run, such as ``address`` and ``storage_options``.
        reporter: Receives the name of each check that takes a while.

    Raises:
        SpecError: The settings are not valid.
    """
    reporter = reporter or LogReporter()
    job = JobSpec.create(**{"inputs": ["unused"], **(settings or {})})
    checks: dict[str, Callable[[], Iterator[Check]]] = {
        "platform": _platform,
        "packages": _packages,
        "processor": _processor,
        "GPU": partial(_gpus, job),
        "memory": partial(_memory, job),
        "disk": _disks,
        "modules": _modules,
        "token": _token,
        "Ray": partial(_ray, job, reporter),
        **{f"store {redact(uri)}": partial(_store, uri, job, reporter) for uri in outputs},
    }
    made: list[Check] = []
    for name, check in checks.items():
        try:
            made += check()
        except SegbatchError as e:
            made.append(Check(name, "problem", str(e)))
    return Diagnosis(tuple(Check(c.name, c.status, redact_text(c.found), redact_text(c.remedy)) for c in made))


def _platform() -> Iterator[Check]:
    supported = sys.version_info >= (3, 11)
    yield Check(
        "platform",
        "ok" if supported else "problem",
        f"{platform.platform()}, Python {platform.python_version()}",
        "" if supported else "install Python 3.11 or later",
    )


def _packages() -> Iterator[Check]:
    versions = {name: _version(name) for name in ("segbatch", *_PACKAGES)}
    found = ", ".join(f"{name} {text}" for name, text in versions.items() if text)
    if not versions["ray"]:
        yield Check("packages", "problem", f"{found}; no ray", "pip install 'ray[data,default]'")
    elif not versions["torch"]:
        yield Check("packages", "warning", f"{found}; no torch", "pip install torch, which every network needs")
    else:
        yield Check("packages", "ok", found)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> Iterator[Check]:
    cores, fastest = len(os.sched_getaffinity(0)), instruction_set()
    bf16 = "bf16" if cpu_supports_bf16() else "no bf16: networks compute in fp32"
    found = f"{cores} of {os.cpu_count()} cores for this process, dense CRF for {fastest}, {bf16}"
    slow = fastest == "baseline" and platform.machine() == "x86_64"
    remedy = "use a machine with AVX2, on which the dense CRF is several times faster" if slow else ""
    yield Check("processor", "warning" if slow else "ok", found, remedy)


def _memory(job: JobSpec) -> Iterator[Check]:
    if job.address or os.environ.get("RAY_ADDRESS"):
        yield Check("memory", "ok", "the workers are on the cluster")
        return
    total, free = total_memory(), free_memory(sys.maxsize)
    pools = plan_pools(job, Hardware.local(job), _MANY_CHUNKS)
    workers = pools.segment_actors + pools.refine_actors
    needed = workers * _WORKER_BYTES
    found = f"{_gb(free)} free of {_gb(total or 0)}; {workers} workers may need {_gb(needed)} ({pools.describe()})"
    fitting = max(1, free // _WORKER_BYTES // 2)
    remedy = f"give --segment-actors {fitting} --refine-actors {fitting}, or free memory"
    enough = free >= needed
    yield Check("memory", "ok" if enough else "warning", found, "" if enough else remedy)


def _disks() -> Iterator[Check]:
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    yield _size(
        "temporary files", folder, free, _DISK_BYTES, "free space, or set RAY_TMPDIR to a folder on another disk"
    )
    if os.path.isdir("/dev/shm"):
        wanted = int((total_memory() or 0) * _OBJECT_STORE_FRACTION)
        free = shutil.disk_usage("/dev/shm").free
        remedy = "start the container with more of it (shm-size of Docker); otherwise Ray uses the disk"
        yield _size("shared memory", "/dev/shm", free, wanted, remedy)


def _size(name: str, folder: str, free: int, wanted: int, remedy: str) -> Check:
    found = f"{_gb(free)} free in {folder}"
    if free >= wanted:
        return Check(name, "ok", found)
    return Check(name, "warning", f"{found}, less than {_gb(wanted)}", remedy)


def _gpus(job: JobSpec) -> Iterator[Check]:
    hardware = Hardware.local(job)
    if not (job.address or os.environ.get("RAY_ADDRESS")):
        refuse_missing_gpus(job, hardware)
    count = int(hardware.gpus)
    if not count:
        yield Check("GPU", "ok", "none; networks run on CPUs")
        return
    if find_spec("torch") is None:
        yield Check("GPU", "problem", f"{count}, and no torch", "pip install torch")
        return
    from segbatch.models import supports_bf16

    try:
        has_bf16 = supports_bf16("cuda")
    except SegbatchError as e:  # torch does not see them
        yield Check("GPU", "problem", f"nvidia-smi lists {count}; {e}", "or run on CPUs with --num-gpus 0")
        return
    remedy = "" if has_bf16 else "give --precision fp32"
    yield Check("GPU", "ok" if has_bf16 else "warning", f"{count}, {'with' if has_bf16 else 'without'} bf16", remedy)


def _modules() -> Iterator[Check]:
    hiding = shadowing.problem()
    yield Check("modules", "problem" if hiding else "ok", hiding or "no file in this folder hides an installed module")


def _token() -> Iterator[Check]:
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        remedy = "unset RAY_AUTH_MODE: whoever reaches Ray's ports can run code (SECURITY.md)"
        yield Check("token", "warning", "RAY_AUTH_MODE switches authentication off", remedy)
    elif any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        yield Check("token", "ok", "given by the environment")
    else:
        yield Check("token", "ok", "drawn for each run on this machine; a cluster may ask for RAY_AUTH_TOKEN")


def _ray(job: JobSpec, reporter: Reporter) -> Iterator[Check]:
    reporter.phase("starting Ray")
    try:
        from segbatch.ray_backend.connection import cluster
    except ModuleNotFoundError as e:
        yield Check("Ray", "problem", missing_package(e, "a job") or str(e))
        return
    begun = time.monotonic()
    with cluster(job) as hardware:
        seconds = time.monotonic() - begun
    offers = f"{hardware.cpus:g} CPUs, {hardware.gpus:g} GPUs"
    if hardware.elastic:
        yield Check("Ray", "ok", f"joined the cluster in {seconds:.1f} s: {offers}")
        return
    slow = seconds > _SLOW_START_SECONDS
    remedy = "run jobs when the machine is less busy" if slow else ""
    yield Check("Ray", "warning" if slow else "ok", f"started in {seconds:.1f} s: {offers}", remedy)


def _store(uri: str, job: JobSpec, reporter: Reporter) -> Iterator[Check]:
    name = f"store {redact(uri)}"
    reporter.phase(f"trying {redact(uri)}")
    store = Store(uri, job.storage_options)
    begun = time.monotonic()
    store.refuse_unwritable()
    if store.local and not store.exists(""):
        yield Check(name, "ok", "does not exist yet, and can be created")
        return
    listed = len(store.names(""))
    store.try_writing()
    yield Check(name, "ok", f"lists {listed:,} names, writes and removes, in {time.monotonic() - begun:.1f} s")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
