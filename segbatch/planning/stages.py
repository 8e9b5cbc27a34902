"""The stages of a job, described for its workers."""

from __future__ import annotations

from segbatch.models.info import DeviceOptions, ModelRequest
from segbatch.planning.job import Job
from segbatch.planning.pools import Pools
from segbatch.stages.config import RefineConfig, SegmentConfig
from segbatch.stages.previews import PreviewSample


def segment_config(job: Job, pools: Pools) -> SegmentConfig:
    """Describe the stage that decodes and scores."""
    spec = job.spec
    device = pools.device if spec.device == "auto" else spec.device
    return SegmentConfig(
        spec.model,
        ModelRequest(spec.weights, spec.classes, spec.storage_options),
        DeviceOptions(device, job.precision, spec.batch_size, pools.threads),
        job.model,
        prune=job.prune,
        max_pixels=spec.max_pixels,
        keep_images=job.refiner.needs_image,
        refuses_emulated_bf16=spec.precision == "auto" and job.precision == "bf16",
        sample=PreviewSample(
            spec.report_samples,
            records=sum(shard.records or 0 for shard in job.shards),
            unknown_bytes=sum(shard.size for shard in job.shards if shard.records is None),
        ),
    )


def refine_config(job: Job, pools: Pools) -> RefineConfig:
    """Describe the stage that refines, encodes and counts."""
    return RefineConfig(
        job.refiner,
        job.model.labels,
        job.model.stride,
        max_pixels=job.spec.max_pixels,
        temperature=job.model.temperature,
        has_marginal=job.spec.marginal,
        threads=pools.threads,
    )
