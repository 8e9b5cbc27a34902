"""``segbatch.build_dataset``: the masks of a job as a Ray dataset."""

from __future__ import annotations

from typing import Any

from ray.data import Dataset

from segbatch.config.base import spec_of
from segbatch.config.job import JobSpec
from segbatch.logs import Logs
from segbatch.planning.job import resolve
from segbatch.planning.plan import Plan
from segbatch.planning.pools import plan_pools
from segbatch.ray_backend.attempts import RayAttempts
from segbatch.ray_backend.connection import join
from segbatch.ray_backend.pipeline import chunk_dataset


def build_dataset(spec: JobSpec | None = None, /, **settings: Any) -> Dataset:
    """Return the masks of a job as a lazy Ray dataset, one row per record (``output.schema``).

    Nothing is written or resumed, ``output`` is not used, and error rows of a broken network are not held back. Joins
    the cluster as ``run`` does, and leaves Ray running, as the dataset needs it.

    Args:
        spec: What to compute, and where; or give the fields of ``JobSpec`` as ``settings``.

    Raises:
        SegbatchError: The job cannot be planned, or Ray does not start.
    """
    spec = spec_of(JobSpec, spec, settings)
    job = resolve(spec)
    job.source.check(job.shards)
    hardware = join(spec)
    plan = Plan.unwritten(job.with_precision(hardware), hardware.cpus)
    pools = plan_pools(spec, hardware, plan.chunks_total(), plan.job.is_refine_bound)
    return chunk_dataset(plan, pools, None, RayAttempts(), Logs.of(spec.log_format, spec.storage_options))
