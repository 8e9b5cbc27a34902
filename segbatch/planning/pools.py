"""How many workers of each kind, and what each holds, so that the job always fits and reading never starves."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError

# Shares of the cores that the pools reserve where the network runs on CPU. They are bookkeeping for Ray's
# scheduler: the pools have a worker a core each, and the operating system gives a core to whoever has work.
# What is not reserved is left for read tasks; without it Ray waits for ever and says nothing.
_SEGMENT_SHARE, _REFINE_SHARE = 0.4, 0.4
_READ_CPUS = 0.2
# A pool that can grow asks for no worker that would have fewer chunks than this: starting a node takes minutes.
_CHUNKS_EACH = 4


@dataclass(frozen=True)
class Hardware:
    """What may be used: cores and GPUs in total, and of the largest node.

    ``elastic``: a cluster, which nodes may join and leave. ``most_*``: what its autoscaler may bring it to, in total
    and of GPUs in one node; 0 if there is none, or it does not tell.
    """

    cpus: float
    gpus: float
    node_cpus: float
    node_gpus: float
    elastic: bool = False
    most_cpus: float = 0
    most_gpus: float = 0
    most_node_gpus: float = 0

    @staticmethod
    def local(spec: JobSpec) -> Hardware:
        cpus = spec.num_cpus or len(os.sched_getaffinity(0))
        gpus = 0 if spec.device == "cpu" else _local_gpus()
        return Hardware(cpus, gpus, cpus, gpus)

    def grown(self) -> Hardware:
        """As its autoscaler may make it."""
        cpus, gpus = max(self.cpus, self.most_cpus), max(self.gpus, self.most_gpus)
        return replace(self, cpus=cpus, gpus=gpus, node_cpus=cpus, node_gpus=max(self.node_gpus, self.most_node_gpus))


@dataclass(frozen=True)
class Pools:
    """Workers of each stage at first, and what one of them holds. ``*_most``: what the pool may grow to (0: fixed).

    A pool that can grow can shrink to one worker too, when nodes are taken away or it is not what is waited for.
    """

    segment_actors: int
    segment_cpus: float
    segment_gpus: float
    refine_actors: int
    refine_cpus: float
    read_cpus: float
    threads: int
    device: str
    segment_most: int = 0
    refine_most: int = 0

    def describe(self) -> str:
        cpus = f"{self.segment_cpus:g} CPU"
        cpus = f"({cpus} + {self.segment_gpus:g} GPU)" if self.segment_gpus else cpus
        segment, refine = (f" (1 to {most})" if most else "" for most in (self.segment_most, self.refine_most))
        return (
            f"{self.segment_actors} segment{segment} x {cpus}, "
            f"{self.refine_actors} refine{refine} x {self.refine_cpus:g} CPU, reads at {self.read_cpus:g} CPU each"
        )


def plan_pools(spec: JobSpec, hardware: Hardware, chunks: int) -> Pools:
    """Pools for ``chunks`` pieces of work (an estimate). Raises ``PlanError`` with the arithmetic if it cannot fit.

    On a cluster they are what fits it now, and follow it from there. If its nodes are yet to come (all of them, or
    those with GPUs), the pools begin with one worker each, which makes the autoscaler start them.
    """
    wanted = spec.device != "cpu" and hardware.most_gpus > 0
    if hardware.most_cpus >= 1 and (hardware.cpus < 1 or (wanted and not hardware.gpus)):
        pools = replace(_fitting(spec, hardware.grown(), chunks), segment_actors=1, refine_actors=1)
    else:
        pools = _fitting(spec, hardware, chunks)
    if not hardware.elastic:
        return pools
    needed = -(-max(1, chunks) // _CHUNKS_EACH)
    refine_needed = 4 * needed if pools.segment_gpus else needed
    return replace(
        pools,
        segment_most=spec.segment_actors or max(pools.segment_actors, needed),
        refine_most=spec.refine_actors or max(pools.refine_actors, refine_needed),
    )


def _fitting(spec: JobSpec, hardware: Hardware, chunks: int) -> Pools:
    """Pools that this hardware holds at once."""
    on_gpu = spec.device != "cpu" and hardware.gpus > 0
    if spec.device.startswith("cuda") and not hardware.gpus:
        raise PlanError(f"device: {spec.device} asked for, but there is no GPU; use device auto or cpu")
    chunks = max(1, chunks)
    cores = hardware.cpus
    if not on_gpu:
        segment = spec.segment_actors or min(chunks, max(1, int(cores)))
        refine = spec.refine_actors or min(chunks, max(1, int(cores)))
        segment_cpus = _fraction(_SEGMENT_SHARE * cores / segment)
        refine_cpus = _fraction(_REFINE_SHARE * cores / refine)
        return _checked(
            Pools(segment, segment_cpus, 0.0, refine, refine_cpus, _READ_CPUS, spec.threads or 1, "cpu"),
            hardware,
        )
    gpus_each = spec.num_gpus or 1.0
    if gpus_each > hardware.node_gpus:
        raise PlanError(f"num_gpus: {gpus_each:g} a worker, but no node has more than {hardware.node_gpus:g} GPUs")
    most = int(hardware.gpus / gpus_each + 1e-6)
    segment = spec.segment_actors or min(chunks, most)
    if segment > most:
        raise PlanError(
            f"segment_actors: {segment} x {gpus_each:g} GPU = {segment * gpus_each:g}, "
            f"but there are {hardware.gpus:g} GPUs; ask for at most {most}, or a smaller num_gpus"
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
            f"the workers do not fit: {pools.describe()} = {held + pools.read_cpus:g} CPUs with one read, "
            f"but there are {hardware.cpus:g}; ask for fewer segment_actors or refine_actors"
        )
    return pools


def _fraction(cpus: float) -> float:
    """Rounded down to what Ray can count (1/10000), and at most one core."""
    return min(1.0, int(cpus * 1000) / 1000)


def _local_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([d for d in visible.split(",") if d.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
