"""What the Ray cluster that this process has joined offers, now and when it has grown."""

from __future__ import annotations

import ray

from segbatch.planning.pools import Hardware


def offered(is_named: bool = False) -> Hardware:
    """Return the CPUs and GPUs of all live nodes, and what an autoscaler may add.

    Args:
        is_named: The job names this cluster, which may therefore grow.
    """
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    cpus = [n.get("CPU", 0.0) for n in nodes]
    gpus = [n.get("GPU", 0.0) for n in nodes]
    max_cpus, max_gpus, max_node_gpus = _autoscaler_limits()
    return Hardware(
        sum(cpus),
        sum(gpus),
        max(cpus, default=0.0),
        max(gpus, default=0.0),
        is_named or len(nodes) > 1 or max_cpus > 0,
        max_cpus,
        max_gpus,
        max_node_gpus,
    )


def _autoscaler_limits() -> tuple[float, float, float]:
    """CPUs and GPUs that an autoscaler may bring the cluster to, and GPUs of its largest node; zeros if unknown."""
    try:
        # Ray 2.60 has no public name for it; its own autoscaling of datasets reads it here.
        config = ray._private.state.state.get_cluster_config()
        groups = list(config.node_group_configs) if config is not None else []
        limits = [float(sum(g.resources.get(key, 0) * max(0, g.max_count) for g in groups)) for key in ("CPU", "GPU")]
        return limits[0], limits[1], float(max((g.resources.get("GPU", 0) for g in groups), default=0))
    except Exception:  # Ray failures: a private interface; pools then follow the cluster as it grows
        return 0.0, 0.0, 0.0
