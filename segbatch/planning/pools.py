"""Choose how many workers each stage has and what each reserves, so that Ray can schedule the job without deadlock."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError

# Fractions of the cores that each pool reserves where the network runs on CPUs. They only bound what Ray schedules:
# each pool has one worker per core (the segment pool half as many where the refiner takes most of the time), and the
# operating system runs the worker that has work. Read tasks use the cores that are not reserved, one task for two
# cores, since each takes a process that needs a second to start; without any, Ray 2.60 deadlocks silently.
_SEGMENT_SHARE, _REFINE_SHARE, _READ_SHARE = 0.4, 0.4, 0.2
_READ_CPUS = 0.2
# Chunks per worker below which a pool does not grow: starting a node takes minutes.
_CHUNKS_EACH = 4


@dataclass(frozen=True)
class Hardware:
    """The cores and GPUs that a job may use.

    Attributes:
        cpus, gpus: In total.
        node_cpus, node_gpus: Of the largest node.
        elastic: Whether nodes may join and leave.
        max_cpus, max_gpus, max_node_gpus: What an autoscaler may reach, in total and in one node; 0 if unknown.
    """

    cpus: float
    gpus: float
    node_cpus: float
    node_gpus: float
    elastic: bool = False
    max_cpus: float = 0
    max_gpus: float = 0
    max_node_gpus: float = 0

    @staticmethod
    def local(spec: JobSpec) -> Hardware:
        cpus = spec.num_cpus or len(os.sched_getaffinity(0))
        gpus = 0 if spec.device == "cpu" else _local_gpus()
        return Hardware(cpus, gpus, cpus, gpus)

    def grown(self) -> Hardware:
        """Return the hardware that its autoscaler may reach."""
        cpus, gpus = max(self.cpus, self.max_cpus), max(self.gpus, self.max_gpus)
        return replace(self, cpus=cpus, gpus=gpus, node_cpus=cpus, node_gpus=max(self.node_gpus, self.max_node_gpus))


@dataclass(frozen=True)
class Pools:
    """The workers of each stage at the start of a job, and what each worker reserves.

    ``max_segment_actors`` and ``max_refine_actors`` are what the pools may grow to; 0 means a fixed size. A pool that
    can grow can also shrink to one worker. ``workers_per_node`` is how many workers the largest node may hold.
    """

    segment_actors: int
    segment_cpus: float
    segment_gpus: float
    refine_actors: int
    refine_cpus: float
    read_cpus: float
    threads: int
    device: str
    max_segment_actors: int = 0
    max_refine_actors: int = 0
    workers_per_node: int = 1

    def describe(self) -> str:
        cpus = f"{self.segment_cpus:g} CPU"
        cpus = f"({cpus} + {self.segment_gpus:g} GPU)" if self.segment_gpus else cpus
        segment, refine = (
            f" (1 to {limit})" if limit else "" for limit in (self.max_segment_actors, self.max_refine_actors)
        )
        return (
            f"{self.segment_actors} segment{segment} x {cpus}, "
            f"{self.refine_actors} refine{refine} x {self.refine_cpus:g} CPU, reads at {self.read_cpus:g} CPU each"
        )


def plan_pools(spec: JobSpec, hardware: Hardware, chunks: int, is_refine_bound: bool = False) -> Pools:
    """Choose the pools for an estimated number of chunks.

    On a cluster they fit its current nodes, and follow it as it grows and shrinks. If none of its nodes has started, or
    none with a GPU, each pool starts with one worker, which makes the autoscaler start the nodes.

    Raises:
        PlanError: The workers do not fit, with the arithmetic.
    """
    if _waits_for_nodes(spec, hardware):
        pools = replace(_fitting(spec, hardware.grown(), chunks, is_refine_bound), segment_actors=1, refine_actors=1)
    else:
        pools = _fitting(spec, hardware, chunks, is_refine_bound)
    if not hardware.elastic:
        return _per_node(pools, hardware)
    needed = -(-max(1, chunks) // _CHUNKS_EACH)
    refine_needed = 4 * needed if pools.segment_gpus else needed
    pools = replace(
        pools,
        max_segment_actors=spec.segment_actors or max(pools.segment_actors, needed),
        max_refine_actors=spec.refine_actors or max(pools.refine_actors, refine_needed),
    )
    return _per_node(pools, hardware)


def _per_node(pools: Pools, hardware: Hardware) -> Pools:
    """Return the pools with the workers that the largest node has CPUs for, at most all."""
    workers = max(pools.segment_actors, pools.max_segment_actors) + max(pools.refine_actors, pools.max_refine_actors)
    cpus = max(hardware.node_cpus, 1.0)
    return replace(pools, workers_per_node=max(1, min(workers, int(cpus / min(pools.segment_cpus, pools.refine_cpus)))))


def on_gpus(spec: JobSpec, hardware: Hardware) -> bool:
    """Whether the segment workers of a job hold GPUs, those of nodes included that the autoscaler starts first."""
    reachable = hardware.grown() if _waits_for_nodes(spec, hardware) else hardware
    return _may_use_gpus(spec) and reachable.gpus > 0


def _waits_for_nodes(spec: JobSpec, hardware: Hardware) -> bool:
    """Whether the job waits for the autoscaler: none of its nodes has started, or none with a GPU."""
    wants_gpu = _may_use_gpus(spec) and hardware.max_gpus > 0
    return hardware.max_cpus >= 1 and (hardware.cpus < 1 or (wants_gpu and not hardware.gpus))


def refuse_missing_gpus(spec: JobSpec, hardware: Hardware) -> None:
    """Raise ``PlanError`` for a job that names GPUs on hardware that has none and cannot get any."""
    requested = f"num_gpus: {spec.num_gpus:g} per segment actor" if spec.num_gpus else ""
    if spec.device == "cpu" and requested:
        raise PlanError(f"{requested} requested, but device is cpu; leave out one of the two")
    if spec.device.startswith("cuda"):
        if spec.num_gpus == 0:
            raise PlanError(f"num_gpus: 0 requested, but device is {spec.device}; leave out one of the two")
        requested = requested or f"device: {spec.device}"
    if requested and not hardware.gpus and not hardware.max_gpus:
        where = (
            "no node of the cluster has one" if hardware.elastic else "nvidia-smi and CUDA_VISIBLE_DEVICES show none"
        )
        raise PlanError(
            f"{requested} requested, but there is no GPU ({where}); use --num-gpus 0 --device auto to run on CPUs"
        )


def _may_use_gpus(spec: JobSpec) -> bool:
    return spec.device != "cpu" and spec.num_gpus != 0


def _fitting(spec: JobSpec, hardware: Hardware, chunks: int, is_refine_bound: bool) -> Pools:
    """Choose pools that this hardware can run at once."""
    refuse_missing_gpus(spec, hardware)
    chunks = max(1, chunks)
    cores = hardware.cpus
    if not _may_use_gpus(spec) or not hardware.gpus:
        most = max(1, int(cores))
        segment = spec.segment_actors or min(chunks, -(-most // 2) if is_refine_bound else most)
        refine = spec.refine_actors or min(chunks, most)
        segment_cpus = _fraction(_SEGMENT_SHARE * cores / segment)
        refine_cpus = _fraction(_REFINE_SHARE * cores / refine)
        read_cpus = _fraction(_READ_SHARE * cores / max(1, int(cores) // 2))
        return _checked(
            Pools(segment, segment_cpus, 0.0, refine, refine_cpus, read_cpus, spec.threads or 1, "cpu"),
            hardware,
        )
    gpus_each = spec.num_gpus or 1.0
    if gpus_each > hardware.node_gpus:
        raise PlanError(f"num_gpus: {gpus_each:g} a worker, but no node has more than {hardware.node_gpus:g} GPUs")
    fitting = int(hardware.gpus / gpus_each + 1e-6)
    segment = spec.segment_actors or min(chunks, fitting)
    if segment > fitting:
        raise PlanError(
            f"segment_actors: {segment} x {gpus_each:g} GPU = {segment * gpus_each:g}, "
            f"but there are {hardware.gpus:g} GPUs; ask for at most {fitting}, or a smaller num_gpus"
        )
    segment_cpus = _fraction(min(1.0, 0.25 * cores / segment))
    left = cores - segment * segment_cpus - max(2 * _READ_CPUS, 0.1 * cores)
    refine = spec.refine_actors or min(4 * chunks, max(1, int(left)))
    refine_cpus = _fraction(min(1.0, max(left, 0.1) / refine))
    return _checked(
        Pools(segment, segment_cpus, gpus_each, refine, refine_cpus, _READ_CPUS, spec.threads or 1, "cuda"),
        hardware,
    )


def _checked(pools: Pools, hardware: Hardware) -> Pools:
    held = pools.segment_actors * pools.segment_cpus + pools.refine_actors * pools.refine_cpus
    if held + pools.read_cpus > hardware.cpus + 1e-6 or min(pools.segment_cpus, pools.refine_cpus) < 0.01:
        raise PlanError(
            f"cannot schedule the workers: {pools.describe()} = {held + pools.read_cpus:g} CPUs with one read, "
            f"{hardware.cpus:g} available; lower segment_actors or refine_actors"
        )
    return pools


def _fraction(cpus: float) -> float:
    """Round down to thousandths, which Ray can count, and to at most one core."""
    return min(1.0, int(cpus * 1000) / 1000)


def _local_gpus() -> int:
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if devices is not None:
        return len([d for d in devices.split(",") if d.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
