"""A network in training: initial weights, batches, frozen modules and parameter groups."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segbatch import models
from segbatch.config.training import TrainSpec
from segbatch.errors import SpecError
from segbatch.labels import LabelSet
from segbatch.models import backbones, loading, state_dict
from segbatch.models.architecture import Architecture
from segbatch.models.info import ModelRequest
from segbatch.models.runner import TorchModel
from segbatch.models.unwrap import StateDict
from segbatch.models.weights import choose, read_labels
from segbatch.training.augment import padded


def architecture_of(name: str) -> Architecture:
    """Return the network ``name``. Raises ``SpecError`` if segbatch cannot train it."""
    architecture = models.entry(name).architecture()
    if architecture is None:
        trainable = [n for n in models.MODELS if models.entry(n).architecture() is not None]
        raise SpecError(f"model {name!r} is not one network to train; these are: {', '.join(trainable)}")
    return architecture


def labels_of(spec: TrainSpec, architecture: Architecture) -> LabelSet:
    """Return the classes to train: of the spec, else of the initial weights, else the network's default.

    Raises:
        SpecError: The initial weights have a number of classes whose names are not known.
    """
    if spec.classes is not None:
        return read_labels(spec.classes, None, architecture.name, spec.storage_options)
    if spec.init != "scratch" and spec.init.partition(":")[0] != "backbone":
        return architecture.describe(ModelRequest(spec.init, None, spec.storage_options)).labels
    named = [w.labels for w in architecture.weights.values()]
    return named[0] if named else architecture.labels


def init_network(spec: TrainSpec, architecture: Architecture, labels: LabelSet) -> tuple[nn.Module, str]:
    """Return the network to train, on the CPU, and a description of its initial weights.

    Weights that ``spec.init`` names are loaded. Layers whose shape depends on the number of classes are re-initialized
    if the number differs.

    Raises:
        ModelError: Other tensors are missing or of another shape.
        SpecError: The network has no backbone for ImageNet weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = (architecture.train_network or architecture.network)(len(labels))
    if spec.init == "scratch":
        return network, "random weights"
    if spec.init == "backbone" or spec.init.startswith("backbone:"):
        uri = spec.init.removeprefix("backbone").removeprefix(":")
        if architecture.backbone is None:
            raise SpecError(
                f"init: {architecture.name} has no backbone that was trained on ImageNet; give scratch, or weights of "
                "the whole network"
            )
        return network, backbones.load(network, architecture.backbone, uri, spec.storage_options)
    chosen = choose(architecture.name, architecture.weights, spec.init)
    data = models.weights.read_uri(chosen, "init", spec.storage_options) if isinstance(chosen, str) else chosen.read()
    state = loading.take(architecture, data, chosen if isinstance(chosen, str) else chosen.source).state
    return network, _load(network, state, class_keys(architecture), spec.init, architecture.name)


def _load(network: nn.Module, state: StateDict, heads: set[str], source: str, model: str) -> str:
    own = network.state_dict()
    # This network does not have the fixed upsampling of an earlier stage (FCN-32s before 16s before 8s).
    state = {key: value for key, value in state.items() if key in own or not key.startswith("upscore")}
    reinitialized = sorted(k for k in heads if k in own and (k not in state or state[k].shape != own[k].shape))
    fits = {key: value for key, value in state.items() if key not in reinitialized}
    state_dict.check_keys(fits, {key: value for key, value in own.items() if key not in reinitialized}, source, model)
    network.load_state_dict(fits, strict=False)
    for name, parameter in network.named_parameters():
        if name in reinitialized and name not in state and name.startswith("score_pool"):
            nn.init.zeros_(parameter)  # the skip that a stage of FCN adds (Long et al. 2015, sec. 4.2)
    return f"weights {source}" + (
        f"; {', '.join(reinitialized)} re-initialized for {len(own[reinitialized[0]])} classes" if reinitialized else ""
    )


def class_keys(architecture: Architecture) -> set[str]:
    """Return the keys of the state dict whose shape depends on the number of classes."""
    with torch.device("meta"):
        one, other = (architecture.network(classes).state_dict() for classes in (3, 5))
    return {key for key, value in one.items() if value.shape != other[key].shape}


def collate(
    examples: Sequence[tuple[np.ndarray, np.ndarray]], architecture: Architecture, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return a batch of examples, preprocessed and padded to one size that the network accepts.

    Args:
        examples: Images uint8 (H, W, 3) and class ids int32 (H, W), negative where ignored.

    Returns:
        Images float32 (N, 3, H, W) and class ids int64 (N, H, W), on ``device``.
    """
    geometry, preprocess = architecture.geometry, architecture.preprocess
    height, width = (max(truth.shape[axis] for _, truth in examples) for axis in (0, 1))
    size = geometry.window or tuple(-(-side // geometry.multiple) * geometry.multiple for side in (height, width))
    fill = "edge" if geometry.pad == "edge" else preprocess.mean_color()
    at_size = [padded(image, truth, size, fill) for image, truth in examples]  # type: ignore[arg-type]
    images = torch.from_numpy(np.stack([image for image, _ in at_size])).to(device)
    truth = torch.from_numpy(np.stack([truth for _, truth in at_size])).to(device, torch.int64)
    x = images.permute(0, 3, 1, 2)
    if preprocess.bgr:
        x = x.flip(1)
    scale, shift = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in preprocess.affine())
    # NHWC is faster on a GPU; training on a CPU, it was measured to be slower.
    layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    return (x.float() * scale + shift).contiguous(memory_format=layout), truth


def frozen(network: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """Return the modules that ``freeze`` names, by a prefix of their names or a pattern such as ``conv*``.

    Raises:
        SpecError: No module has such a name.
    """
    modules = []
    for prefix in prefixes:
        named = [
            module
            for name, module in network.named_modules()
            if name and (fnmatchcase(name, prefix) or fnmatchcase(name, f"{prefix}.*"))
        ]
        if not named:
            known = ", ".join(name for name, _ in network.named_children())
            raise SpecError(f"freeze: no module is called {prefix!r}; this network consists of {known}")
        modules += named
    return modules


def set_train_mode(network: nn.Module, spec: TrainSpec) -> None:
    """Set training mode, except for frozen modules, and for normalizations if ``spec.freeze_norm``."""
    network.train()
    for module in network.modules():
        if spec.freeze_norm and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for module in frozen(network, spec.freeze):
        module.eval()


def parameter_groups(network: nn.Module, spec: TrainSpec, heads: set[str]) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups: weights decay, biases and normalizations do not.

    What ``spec.freeze`` names is in no group, and ``requires_grad`` is cleared.

    Args:
        heads: Keys of the parameters whose learning rate is multiplied by ``spec.head_lr``.
    """
    for module in frozen(network, spec.freeze):
        module.requires_grad_(False)
    norms = {id(p) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) for p in m.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        normalizes, bias = id(parameter) in norms, name.endswith("bias")
        scale = (spec.head_lr if name in heads else 1.0) * (spec.bias_lr if bias and not normalizes else 1.0)
        decay = 0.0 if bias or normalizes else spec.weight_decay
        groups.setdefault((scale, decay), []).append(parameter)
    # ``initial_lr`` is what a scheduler starts from that resumes.
    return [
        {"params": p, "lr": spec.lr * scale, "initial_lr": spec.lr * scale, "weight_decay": decay}
        for (scale, decay), p in groups.items()
    ]


def inference_model(
    architecture: Architecture, labels: LabelSet, state: Mapping[str, Tensor], device: torch.device, batch_size: int
) -> TorchModel:
    """Return the model that ``segbatch run --weights`` builds of ``state``."""
    network = architecture.network(len(labels))
    network.load_state_dict(copy.deepcopy(dict(state)))
    return TorchModel(
        *(architecture.name, network, labels, architecture.geometry, architecture.preprocess),
        device=str(device),
        batch_size=batch_size,
    )
