"""Networks by name: ``build`` one to run it, ``describe`` one to plan with it, ``names`` to choose.

Importing this package imports no torch; asking for a network does.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from segbatch.errors import SpecError
from segbatch.models.info import DeviceOptions, ModelEntry, ModelInfo, ModelRequest
from segbatch.protocols import Model
from segbatch.registry import Registry

__all__ = ["MODELS", "ModelInfo", "build", "describe", "entry", "names", "supports_bf16"]

# Name -> where its ``Entry`` is, imported when asked for. A new network is one file and one line here.
MODELS: Registry[str] = Registry("model")
MODELS.add("deeplabv3plus_mobilenet_v2", "segbatch.models.deeplabv3plus:DEEPLABV3PLUS_MOBILENET_V2")
MODELS.add("deeplabv3_mobilenet_v3_large", "segbatch.models.torchvision:DEEPLABV3_MOBILENET_V3_LARGE")
MODELS.add("deeplabv3_resnet50", "segbatch.models.torchvision:DEEPLABV3_RESNET50")
MODELS.add("deeplabv3_resnet101", "segbatch.models.torchvision:DEEPLABV3_RESNET101")
MODELS.add("fcn_resnet50", "segbatch.models.torchvision:FCN_RESNET50")
MODELS.add("fcn_resnet101", "segbatch.models.torchvision:FCN_RESNET101")
MODELS.add("lraspp_mobilenet_v3_large", "segbatch.models.torchvision:LRASPP_MOBILENET_V3_LARGE")
MODELS.add("fcn32s", "segbatch.models.zoo.fcn:FCN32S")
MODELS.add("fcn16s", "segbatch.models.zoo.fcn:FCN16S")
MODELS.add("fcn8s", "segbatch.models.zoo.fcn:FCN8S")
MODELS.add("fcn8s_atonce", "segbatch.models.zoo.fcn:FCN8S_ATONCE")
MODELS.add("deeplab_v1", "segbatch.models.zoo.deeplab_v1:DEEPLAB_V1")
MODELS.add("deeplab_v1_largefov", "segbatch.models.zoo.deeplab_v1:DEEPLAB_V1_LARGEFOV")
MODELS.add("deeplab_v1_msc_largefov", "segbatch.models.zoo.deeplab_v1:DEEPLAB_V1_MSC_LARGEFOV")
MODELS.add("segnet", "segbatch.models.zoo.segnet:SEGNET")
MODELS.add("segnet_basic", "segbatch.models.zoo.segnet:SEGNET_BASIC")
MODELS.add("deconvnet", "segbatch.models.zoo.deconvnet:DECONVNET")
MODELS.add("edeconvnet", "segbatch.models.zoo.edeconvnet:EDECONVNET")
MODELS.add("crfasrnn", "segbatch.models.zoo.crfasrnn:CRFASRNN")
MODELS.add("dpn", "segbatch.models.zoo.dpn:DPN_VGG16")
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
    """The model ``name`` (or ``package.module:factory``), in eval mode on its device, ready for ``scores``.

    ``weights``: a named set, ``default``, the URI of a checkpoint (``state_dict.load``; for networks that come
    from Caffe, of a ``.caffemodel``), or ``random`` (``random:SEED``), which is untrained, for tests
    and benchmarks. ``classes``: URI of a file of class names. ``device``: ``auto`` (a GPU if there is one),
    ``cpu``, ``cuda``, ``cuda:N``. ``precision``: ``fp32`` or ``bf16`` (see ``supports_bf16``). ``batch_size``
    counts images of 512 x 512 (default: 8, on CPUs fewer of those whose layers' outputs are large: ``TorchModel``).
    ``threads`` sets torch's threads of this process. ``tile_pixels``: larger images are run as overlapping tiles
    (default: the network's). ``storage_options`` go to fsspec. Raises ``SpecError`` for what is asked wrongly,
    ``ModelError`` for what cannot be had.
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
    """What ``build`` with the same arguments would give: classes, stride, digest, size, stated accuracy.

    No network is put on a device, and nothing is downloaded that comes from a publisher's URL, unless
    ``check``: then published weights are fetched into the cache and compared with the network. A file of
    weights is read. Raises ``SpecError`` or ``ModelError`` for all that ``build`` would find wrong with these
    arguments.
    """
    return entry(name).describe(ModelRequest(weights, classes, storage_options, check))


def names() -> list[ModelInfo]:
    """One description for each model and each of its named sets of weights, the built-in default first."""
    return [info for name in MODELS for info in entry(name).infos()]


def supports_bf16(device: str = "auto") -> bool:
    """Whether ``precision="bf16"`` is native, and so faster than fp32, on ``device`` of this machine."""
    from segbatch.models import runner

    return runner.supports_bf16(device)


def entry(name: str) -> ModelEntry:
    """What the registry holds under ``name``, or stands for ``package.module:factory``. Raises ``SpecError``."""
    if ":" in name:
        from segbatch.models.custom import CustomEntry

        return CustomEntry(name)
    module, _, attribute = MODELS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
