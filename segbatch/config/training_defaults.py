"""What the authors of each network trained with, as far as they say. Knows no torch."""

from __future__ import annotations

from typing import Any

# Long et al. 2015 and the solvers published with it ("heavy learning"): one image of its own size, the loss summed
# over its pixels, high momentum; biases learn twice as fast, as in most networks of Caffe's time.
_FCN = {
    "batch_size": 1,
    "momentum": 0.99,
    "weight_decay": 5e-4,
    "reduction": "sum",
    "schedule": "fixed",
    "bias_lr": 2.0,
    "flip": False,
}
# Chen et al. 2015, sec. 4.1, with the poly schedule of their later solvers instead of steps.
_DEEPLAB_V1 = {"batch_size": 20, "lr": 1e-3, "head_lr": 10.0, "bias_lr": 2.0, "weight_decay": 5e-4}
# Badrinarayanan et al. 2015, sec. 3.1 and 4.
_SEGNET = {
    "batch_size": 12,
    "lr": 0.1,
    "schedule": "fixed",
    "weight_decay": 5e-4,
    "balance": "median-frequency",
    "flip": False,
}
# torchvision's own reference for its segmentation networks.
_TORCHVISION = {"lr": 0.01, "crop": (480, 480), "scale": (0.5, 2.0)}

_DEFAULTS: dict[str, dict[str, Any]] = {
    "fcn32s": {**_FCN, "lr": 1e-10},
    "fcn16s": {**_FCN, "lr": 1e-12},
    "fcn8s": {**_FCN, "lr": 1e-14},
    "fcn8s_atonce": {**_FCN, "lr": 1e-10},
    # Zheng et al. 2015, sec. 6: from FCN-8s, as it was trained, at another rate.
    "crfasrnn": {**_FCN, "lr": 1e-13},
    "deeplab_v1": {**_DEEPLAB_V1, "crop": (306, 306)},
    "deeplab_v1_largefov": {**_DEEPLAB_V1, "crop": (321, 321)},
    "deeplab_v1_msc_largefov": {**_DEEPLAB_V1, "crop": (321, 321)},
    "segnet": _SEGNET,
    "segnet_basic": _SEGNET,
    # Noh et al. 2015, sec. 4.2; batch normalization needs more than one image.
    "deconvnet": {"batch_size": 64, "lr": 0.01, "weight_decay": 5e-4, "crop": (224, 224)},
    # Chen et al. 2018, sec. 4: MobileNetV2's decay, the scales of DeepLab.
    "deeplabv3plus_mobilenet_v2": {"weight_decay": 4e-5, "crop": (513, 513), "scale": (0.5, 2.0)},
}
# Fields of ``TrainSpec`` whose default depends on the network.
SETTINGS_OF_AUTHORS = frozenset(name for known in (*_DEFAULTS.values(), _TORCHVISION) for name in known)


def defaults_of(model: str) -> dict[str, Any]:
    """Fields of ``TrainSpec`` in which the training of ``model`` differs from its defaults."""
    if model.startswith(("deeplabv3_", "fcn_resnet", "lraspp_")):
        return dict(_TORCHVISION)
    return dict(_DEFAULTS.get(model, {}))
