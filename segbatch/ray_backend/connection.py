"""Join a Ray cluster, or start Ray on this machine for as long as a job lasts, and leave the process as it was."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
from ray.job_config import JobConfig

from segbatch import shadowing
from segbatch.config.job import JobSpec
from segbatch.errors import PlanError, SpecError
from segbatch.planning.pools import Hardware, refuse_missing_gpus
from segbatch.ray_backend import local
from segbatch.ray_backend.address import ClusterAddress
from segbatch.ray_backend.cluster import offered
from segbatch.ray_backend.replacements import kept_handler, quiet_errors, without_statistics
from segbatch.ray_backend.search_path import DriverSearchPath
from segbatch.storage.failures import brief
from segbatch.text import redact

_TIMEOUT_SECONDS = 20.0
_PIPELINE = "segbatch.ray_backend.pipeline"
# Ray Data logs every dataset and every progress bar that is off, and logs a failure twice before it raises it.
_QUIET_LOGGERS = ("ray.data", "ray.train")


def is_remote(spec: JobSpec) -> bool:
    """Whether the job joins a cluster that exists: named by the spec, by RAY_ADDRESS, or joined already."""
    return ClusterAddress.of(spec) is not None or ray.is_initialized()


def is_connected() -> bool:
    """Whether this process has joined a cluster already."""
    return ray.is_initialized()


@contextmanager
def cluster(spec: JobSpec) -> Iterator[Hardware]:
    """Join the cluster that ``spec`` names, or start Ray on this machine.

    On exit, a Ray that was started here is stopped, a cluster that was joined here is left, and one that the caller had
    joined stays joined. The environment and Ray's loggers are then what they were before.

    Yields:
        What the cluster offers.

    Raises:
        PlanError: The cluster does not answer, or refuses this client.
        SegbatchError: Ray does not start on this machine.
    """
    joined_before = ray.is_initialized()
    is_own = not is_remote(spec)
    with _restored_environment(), _restored_loggers(), nullcontext() if joined_before else quiet_errors():
        hardware = join(spec)
        _quieten_loggers()
        try:
            refuse_missing_gpus(spec, hardware)
            with without_statistics() if is_own else nullcontext():
                yield hardware
        finally:
            if not joined_before:
                local.stop()


def join(spec: JobSpec) -> Hardware:
    """Do what ``cluster`` does on entry, and stay connected."""
    if hidden := shadowing.problem():
        raise SpecError(hidden)
    named = ClusterAddress.of(spec)
    if ray.is_initialized():
        return offered(named is not None)
    if named is None:
        hardware = Hardware.local(spec)
        refuse_missing_gpus(spec, hardware)
        with kept_handler(), _quiet_core(), _loading(_PIPELINE):
            local.start(hardware, logging_level=logging.ERROR, log_to_driver=False)
        return offered()
    with kept_handler(), _quiet_core() as terminal, _waiting(redact(named.address), terminal):
        named.check()
        # A client of Ray takes no JobConfig of another class: the head unpickles it.
        paths = JobConfig() if named.is_client else DriverSearchPath()
        try:
            ray.init(named.address, job_config=paths, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as e:  # Ray failures: it raises many types when it does not connect
            raise named.refused(brief(e), e) from e
    return offered(True)


@contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore the environment variables that ``ray.init`` sets."""
    before = {name: value for name, value in os.environ.items() if _is_of_ray(name)}
    try:
        yield
    finally:
        for name in [name for name in os.environ if _is_of_ray(name) and name not in before]:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _loading(module: str) -> Iterator[None]:
    """Import a module beside the block, which waits for other processes."""
    thread = threading.Thread(target=importlib.import_module, args=(module,), name="segbatch-load")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _is_of_ray(name: str) -> bool:
    return name.startswith("RAY_") or name == "PYTHONBREAKPOINT"


@contextmanager
def _restored_loggers() -> Iterator[None]:
    """Restore all that Ray alters of its loggers."""
    names = ("ray", *_QUIET_LOGGERS)
    before = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in names}
    propagates = {name: logging.getLogger(name).propagate for name in names}
    try:
        yield
    finally:
        for name, (level, handlers) in before.items():
            logger = logging.getLogger(name)
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate = propagates[name]


def _quieten_loggers() -> None:
    """Silence Ray's loggers, whose failures reach the caller as exceptions."""
    importlib.import_module(_PIPELINE)  # Ray Data sets their levels when it is imported
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _waiting(address: str, terminal: int) -> Iterator[None]:
    """Write the likely causes to ``terminal`` after a while: Ray itself waits silently for minutes."""
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

    What matters arrives as an exception. The core confirms its log level on stderr while it starts; that output is
    shown only if the start fails. ``RAY_BACKEND_LOG_LEVEL`` is honored where it is set.

    Yields:
        The descriptor of the terminal's stderr.
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
        except PlanError:  # its message has the reason
            raise
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ["RAY_BACKEND_LOG_LEVEL"]
