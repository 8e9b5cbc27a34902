"""Networks by name: ``build`` loads one, ``describe`` gives its classes and weights, ``names`` lists all.

Only ``build`` imports torch, and ``describe`` of what is compared with its network: weights in a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbatch.errors import SpecError
from segbatch.models.deferred import imported
from segbatch.models.info import DeviceOptions, ModelEntry, ModelInfo, ModelRequest
from segbatch.protocols import Model
from segbatch.registry import Registry

__all__ = ["MODELS", "ModelInfo", "build", "describe", "entry", "names", "supports_bf16"]

# Name -> module and attribute of its ``ModelEntry``, imported on first use. A new network is one file and one line.
MODELS: Registry[str] = Registry("model", "segbatch models")
MODELS.add("deeplabv3plus_mobilenet_v2", "segbatch.models.catalog.deeplabv3plus:DEEPLABV3PLUS_MOBILENET_V2")
MODELS.add("deeplabv3_mobilenet_v3_large", "segbatch.models.catalog.torchvision:DEEPLABV3_MOBILENET_V3_LARGE")
MODELS.add("deeplabv3_resnet50", "segbatch.models.catalog.torchvision:DEEPLABV3_RESNET50")
MODELS.add("deeplabv3_resnet101", "segbatch.models.catalog.torchvision:DEEPLABV3_RESNET101")
MODELS.add("fcn_resnet50", "segbatch.models.catalog.torchvision:FCN_RESNET50")
MODELS.add("fcn_resnet101", "segbatch.models.catalog.torchvision:FCN_RESNET101")
MODELS.add("lraspp_mobilenet_v3_large", "segbatch.models.catalog.torchvision:LRASPP_MOBILENET_V3_LARGE")
MODELS.add("fcn32s", "segbatch.models.catalog.zoo:FCN32S")
MODELS.add("fcn16s", "segbatch.models.catalog.zoo:FCN16S")
MODELS.add("fcn8s", "segbatch.models.catalog.zoo:FCN8S")
MODELS.add("fcn8s_atonce", "segbatch.models.catalog.zoo:FCN8S_ATONCE")
MODELS.add("deeplab_v1", "segbatch.models.catalog.zoo:DEEPLAB_V1")
MODELS.add("deeplab_v1_largefov", "segbatch.models.catalog.zoo:DEEPLAB_V1_LARGEFOV")
MODELS.add("deeplab_v1_msc_largefov", "segbatch.models.catalog.zoo:DEEPLAB_V1_MSC_LARGEFOV")
MODELS.add("segnet", "segbatch.models.catalog.zoo:SEGNET")
MODELS.add("segnet_basic", "segbatch.models.catalog.zoo:SEGNET_BASIC")
MODELS.add("deconvnet", "segbatch.models.catalog.zoo:DECONVNET")
MODELS.add("edeconvnet", "segbatch.models.catalog.edeconvnet:EDECONVNET")
MODELS.add("crfasrnn", "segbatch.models.catalog.zoo:CRFASRNN")
MODELS.add("dpn", "segbatch.models.catalog.zoo:DPN_VGG16")
MODELS.add("null", "segbatch.models.null:NULL")


def build(
    name: str,
    *,
    weights: str = "default",
    classes: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    threads: int | None = None,
    tile_pixels: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model, in eval mode on its device, ready for ``scores``.

    Args:
        name: One of ``MODELS``, or ``package.module:factory``.
        weights: A named set, ``default``, the URI of a file (``state_dict.load``; for networks that come from Caffe
            also ``.caffemodel``), or ``random`` (``random:SEED``): untrained, for tests and benchmarks.
        classes: URI of a file of class names.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``fp32`` or ``bf16``; see ``supports_bf16``.
        batch_size: Images of 512 x 512 pixels per forward pass. By default 8; on CPUs fewer for networks whose layers
            have large outputs (``runner.TorchModel``).
        threads: Number of torch threads, set for this process.
        tile_pixels: Larger images are run as overlapping tiles. By default the network's own limit.
        storage_options: Options for fsspec.

    Raises:
        SpecError: An argument is invalid.
        ModelError: The weights or the device are not available.
    """
    if threads is not None and threads < 1:
        raise SpecError(f"threads must be at least 1; got {threads}")
    execution = DeviceOptions(device, precision, batch_size, threads, tile_pixels)
    return entry(name).build(ModelRequest(weights, classes, storage_options), execution)


def describe(
    name: str,
    weights: str = "default",
    classes: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    check: bool = False,
) -> ModelInfo:
    """Describe what ``build`` with the same arguments gives, without a network on a device.

    Weights that are a file are read.

    Args:
        check: Whether to download published weights, and so know the digest of their content.

    Raises:
        SpecError: As ``build``.
        ModelError: As ``build``.
    """
    return entry(name).describe(ModelRequest(weights, classes, storage_options, check))


def names() -> list[ModelInfo]:
    """Describe each model with each of its named sets of weights, the default model first."""
    return [info for name in MODELS for info in entry(name).infos()]


def supports_bf16(device: str = "auto") -> bool:
    """Whether ``precision="bf16"`` is native, and so faster than fp32, on ``device`` of this machine."""
    from segbatch.models import runner

    return runner.supports_bf16(device)


def entry(name: str) -> ModelEntry:
    """Return the entry of a registered name or of ``package.module:factory``. Raises ``SpecError`` if unknown."""
    if ":" in name:
        from segbatch.models.custom import CustomEntry

        return CustomEntry(name)
    found: ModelEntry = imported(MODELS[name])
    return found
