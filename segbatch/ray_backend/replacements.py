"""Private parts of Ray 2.60 that are replaced for a while, where it has no option for what a job needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import ray._private.utils
import ray._private.worker
from ray._private import ray_constants
from ray._private.node import Node
from ray._private.parameter import RayParams


def on_loopback() -> AbstractContextManager[None]:
    """Make Ray's servers bind to loopback, which they do if that is the node's address.

    Ray 2.60 replaces ``_node_ip_address="127.0.0.1"`` by the machine's address, unless clusters are disabled, as they
    are by default on macOS and Windows. Ray reads that setting from ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER`` when it is
    imported, which has happened already.
    """
    return _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False)


@contextmanager
def fewer_processes() -> Iterator[None]:
    """Start Ray without the monitor of its autoscaler, the monitor of its logs, and the server of its dashboard.

    Nobody uses them on one machine. On two cores they are half of the 6 CPU seconds that Ray takes to start, and Ray
    waits for the server before it starts the rest.
    """
    with_all = RayParams.__init__

    def parameters(self: RayParams, *args: Any, **options: Any) -> None:
        with_all(self, *args, **{"no_monitor": True, "include_log_monitor": False, **options})

    with ExitStack() as replaced:
        replaced.enter_context(_replaced(RayParams, "__init__", parameters))
        replaced.enter_context(_replaced(Node, "start_api_server", _nothing))
        yield


def kept_handler() -> AbstractContextManager[None]:
    """Keep the caller's handler of SIGTERM: that of ``ray.init`` ends the process from within Ray, which may abort."""
    return _replaced(ray._private.utils, "set_sigterm_handler", _nothing)


def quiet_errors() -> AbstractContextManager[None]:
    """Keep lines such as ``(raylet) ...``, about Ray's own processes, off the terminal."""
    return _replaced(ray._private.worker, "print_to_stdstream", _nothing)


@contextmanager
def without_statistics() -> Iterator[None]:
    """Run datasets without Ray Data's actor of statistics, which its dashboard reads: it is a process more to start."""
    from ray.data._internal.stats import _StatsManager

    senders = ("register_dataset_to_stats_actor", "update_execution_metrics", "update_iteration_metrics")
    with ExitStack() as replaced:
        for name in senders:
            replaced.enter_context(_replaced(_StatsManager, name, staticmethod(_nothing)))
        yield


def _nothing(*_: object, **__: object) -> None:
    pass


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = inspect.getattr_static(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
