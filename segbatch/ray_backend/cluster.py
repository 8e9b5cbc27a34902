"""Where the job runs: the cluster it is told of, or Ray on this machine for as long as the job lasts."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from segbatch.config.job import JobSpec
from segbatch.errors import PlanError
from segbatch.planning.pools import Hardware
from segbatch.ray_backend import local
from segbatch.text import redact

_TIMEOUT_SECONDS = 20.0


def is_remote(spec: JobSpec) -> bool:
    """Whether the job joins a cluster that exists: named by the spec, by RAY_ADDRESS, or joined already."""
    return bool(spec.address or os.environ.get("RAY_ADDRESS")) or ray.is_initialized()


def is_connected() -> bool:
    """Whether this process has joined a cluster already."""
    return ray.is_initialized()


@contextmanager
def cluster(spec: JobSpec) -> Iterator[Hardware]:
    """Ray, ready, and what it offers. A local one is stopped on leaving; one that was there stays as it was."""
    joined_before = ray.is_initialized()
    hardware = join(spec)
    try:
        yield hardware
    finally:
        if not joined_before:
            local.stop()


def join(spec: JobSpec) -> Hardware:
    """Start Ray here, or join the cluster that is named; what it offers."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # Ray Data tells of every dataset and every missing bar, and prints a failure twice more; the job has its own words.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    named = bool(spec.address or os.environ.get("RAY_ADDRESS"))
    if ray.is_initialized():
        return offered(named)
    if named:
        address = spec.address or os.environ["RAY_ADDRESS"]
        try:
            with _quiet_core() as terminal, _waiting(redact(address), terminal):
                ray.init(address=address, **quiet)
        except Exception as e:
            raise PlanError(f"address: cannot join the Ray cluster at {address!r}: {e}{_token_hint(str(e))}") from e
        return offered(named)
    here = Hardware.local(spec)
    with _quiet_core():
        local.start(here, **quiet)
    return offered()


@contextmanager
def _waiting(address: str, terminal: int) -> Iterator[None]:
    """Say after a while what may be wrong: Ray itself waits without a word for minutes, also for a wrong token."""
    text = (
        f"still no answer from the Ray cluster at {address!r}: is this the address of its head, and do RAY_AUTH_MODE "
        "and RAY_AUTH_TOKEN say here what they say there?\n"
    )
    timer = threading.Timer(_TIMEOUT_SECONDS, os.write, (terminal, text.encode()))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextmanager
def _quiet_core() -> Iterator[int]:
    """Keep Ray's C++ core off the terminal: it prints an error that is none for every actor pool.

    Yields the descriptor of the terminal's stderr.

    What matters comes as an exception. ``RAY_BACKEND_LOG_LEVEL``, if set, is left alone. The core confirms the level
    on stderr while it starts; that is held back, and shown if the start fails.
    """
    if "RAY_BACKEND_LOG_LEVEL" in os.environ:
        yield 2
        return
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield stderr
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ["RAY_BACKEND_LOG_LEVEL"]


def offered(named: bool = False) -> Hardware:
    """What the nodes of the cluster hold in all, and may come to. ``named``: the job was told of this cluster."""
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    cpus = [n.get("CPU", 0.0) for n in nodes]
    gpus = [n.get("GPU", 0.0) for n in nodes]
    most_cpus, most_gpus, most_node_gpus = _autoscaler_limits()
    elastic = named or len(nodes) > 1 or most_cpus > 0
    return Hardware(
        sum(cpus), sum(gpus), max(cpus, default=0.0), max(gpus, default=0.0),
        elastic, most_cpus, most_gpus, most_node_gpus,
    )  # fmt: skip


def _autoscaler_limits() -> tuple[float, float, float]:
    """CPUs and GPUs that an autoscaler may bring the cluster to, and GPUs of its largest node; zeros if none tells."""
    try:
        # Ray has no public name for it; its own autoscaling of datasets asks here.
        config = ray._private.state.state.get_cluster_config()
        groups = list(config.node_group_configs) if config is not None else []
        most = [float(sum(g.resources.get(key, 0) * max(0, g.max_count) for g in groups)) for key in ("CPU", "GPU")]
        return most[0], most[1], float(max((g.resources.get("GPU", 0) for g in groups), default=0))
    except Exception:  # what it may grow to is then learnt as it grows
        return 0.0, 0.0, 0.0


def _token_hint(message: str) -> str:
    if any(word in message.lower() for word in ("401", "unauthenticated", "unauthorized", "token")):
        return (
            "\nthe cluster asks for a token: Ray writes one on a machine's first ray.init and a later "
            "`ray start --head` enforces it; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_MODE=disabled) "
            "for the head and for every client"
        )
    return ""
