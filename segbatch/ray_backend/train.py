"""Training in one process, or in several by Ray Train: the same images, in the same batches."""

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

# A worker or node that is lost costs what was learnt since the last checkpoint, this many times.
_MAX_FAILURES = 3


def train(spec: TrainSpec | None = None, /, *, reporter: Reporter | None = None, **settings: Any) -> TrainingResult:
    """Train a network on labeled images, or resume from the last checkpoint; see ``training.trainer.train``.

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
    if spec.labels is not None:  # shards are copied to be looked at: the workers do that, once
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
        return _together(spec, gpus, cores, reporter or LogReporter())


def _together(spec: TrainSpec, gpus: bool, cores: int, reporter: Reporter) -> TrainingResult:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue

    queue: Any = Queue(actor_options={"num_cpus": 0})
    outcome: list[TrainingResult] = []
    speaker = threading.Thread(target=_speak, args=(queue, reporter, outcome))
    speaker.start()
    try:
        with tempfile.TemporaryDirectory() as folder:  # for Ray's own notes; the checkpoints are ours
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
    except Exception as e:
        raise failure(e) from e
    finally:
        queue.put(None)
        speaker.join()
        queue.shutdown()
    return outcome[-1]


def _worker(config: dict[str, Any]) -> None:
    """What each process does, inside the group that Ray Train made."""
    first = ray.train.get_context().get_world_rank() == 0
    found = train_here(config["spec"], reporter=_QueueReporter(config["queue"]) if first else Reporter())
    if first:
        config["queue"].put(found)


class _QueueReporter(Reporter):
    """Sends the first worker's messages to the driver."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def message(self, text: str) -> None:
        self._queue.put(text)


def _speak(queue: Any, reporter: Reporter, outcome: list[TrainingResult]) -> None:
    """Report each message of the first worker as it arrives, and keep the result that it sends last."""
    while (item := queue.get()) is not None:
        if isinstance(item, TrainingResult):
            outcome.append(item)
        else:
            reporter.message(item)
