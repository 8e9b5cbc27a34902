"""Training in one process, or in several by Ray Train on the same batches."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

import ray
import ray.train

from segbatch.config.base import spec_of
from segbatch.config.job import JobSpec
from segbatch.config.training import TrainSpec
from segbatch.errors import PlanError
from segbatch.isolation.failures import failure
from segbatch.logs import LogReporter
from segbatch.protocols import Reporter
from segbatch.ray_backend.connection import cluster
from segbatch.storage.store import Store
from segbatch.training import artifacts
from segbatch.training.job import prepare
from segbatch.training.result import TrainingResult
from segbatch.training.trainer import train as train_here

# A lost worker or node costs the updates since the last checkpoint, this many times.
_MAX_FAILURES = 3


def train(spec: TrainSpec | None = None, /, *, reporter: Reporter | None = None, **settings: Any) -> TrainingResult:
    """Train a network on labeled images, or resume; see ``training.trainer.train``.

    With ``workers`` above 1, each is a process that takes a part of every batch, and holds a GPU if the cluster has
    as many. A lost worker is replaced, and all resume from the last checkpoint. Every worker must be able to write to
    the output.

    Args:
        spec: What to train, on which images; or give the fields of ``TrainSpec`` as ``settings``.
        reporter: Receives losses and metrics, line by line; by default the logger ``segbatch`` does.

    Raises:
        SegbatchError: The last checkpoint is kept; the same call resumes.
    """
    spec = spec_of(TrainSpec, spec, settings)
    if spec.workers == 1:
        return train_here(spec, reporter=reporter)
    if spec.labels is not None:  # shards would be copied here, and again by the workers
        prepare(spec, Reporter())
    if spec.overwrite:
        store = Store(spec.output, spec.storage_options)
        artifacts.refuse_foreign(store)
        artifacts.clear(store)
        spec = spec.model_copy(update={"overwrite": False})
    cores = spec.threads or 1
    fields = {"inputs": spec.inputs, "address": spec.address}
    with cluster(JobSpec.create(**fields)) as hardware:
        gpus = spec.device != "cpu" and hardware.gpus >= spec.workers
        if not gpus and hardware.cpus < spec.workers * cores:
            raise PlanError(
                f"workers: {spec.workers} of {cores} cores do not fit on {hardware.cpus:g} cores; ask for fewer "
                "workers, or fewer --threads"
            )
        return _train_in_workers(spec, gpus, cores, reporter or LogReporter())


def _train_in_workers(spec: TrainSpec, gpus: bool, cores: int, reporter: Reporter) -> TrainingResult:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue

    queue: Any = Queue(actor_options={"num_cpus": 0})
    results: list[TrainingResult] = []
    reporter.phase("starting workers")
    thread = threading.Thread(target=_forward, args=(queue, reporter, results))
    thread.start()
    try:
        with tempfile.TemporaryDirectory() as folder:  # for Ray's own files; checkpoints go to the output
            TorchTrainer(
                _worker,
                train_loop_config={"spec": spec, "queue": queue},
                torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=spec.workers,
                    use_gpu=gpus,
                    resources_per_worker={"CPU": cores, **({"GPU": 1} if gpus else {})},
                ),
                run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=_MAX_FAILURES)),
            ).fit()
    except Exception as e:  # Ray boundary: Ray Train wraps what a worker raises in errors of its own
        raise failure(e) from e
    finally:
        queue.put(None)
        thread.join()
        queue.shutdown()
    return results[-1]


def _worker(config: dict[str, Any]) -> None:
    """Train in one process of the group that Ray Train initialized."""
    is_main = ray.train.get_context().get_world_rank() == 0
    result = train_here(config["spec"], reporter=_QueueReporter(config["queue"]) if is_main else Reporter())
    if is_main:
        config["queue"].put(("", result))


class _QueueReporter(Reporter):
    """Sends the messages of the main worker to the driver."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def message(self, text: str) -> None:
        self._queue.put((text, None))


def _forward(queue: Any, reporter: Reporter, results: list[TrainingResult]) -> None:
    """Report each message of the main worker as it arrives, and keep the result that it sends last."""
    while (item := queue.get()) is not None:
        text, result = item
        reporter.closed()
        if result is None:
            reporter.message(text)
        else:
            results.append(result)
