"""torchvision's segmentation networks and their published weights, without the final upsampling.

The networks run at the image's own size. torchvision states accuracies at a shorter side of 520 pixels, near which the
weights were trained: much larger images are better scaled down first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models import segmentation

from segbatch.config.training import TrainingRecipe
from segbatch.labels import VOC_LABELS, LabelSet
from segbatch.models.architecture import Architecture
from segbatch.models.backbones import named_backbone
from segbatch.models.tiles import Geometry
from segbatch.models.unwrap import StateDict
from segbatch.models.weights import Preprocess, Weights

_TERMS = "trained on COCO photographs, which carry their owners' terms"


class Coarse(nn.Module):
    """Backbone and classifier of a torchvision network, keys unchanged: (N, 3, H, W) -> coarse logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone: nn.Module = network.get_submodule("backbone")
        self.classifier: nn.Module = network.get_submodule("classifier")
        # The classifier of LRASPP takes both feature maps, the others the last one.
        self._last_only = not isinstance(network, segmentation.LRASPP)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        return self.classifier(features["out"] if self._last_only else features)


def _coarse(builder: Callable[..., nn.Module], classes: int) -> nn.Module:
    return Coarse(builder(weights=None, weights_backbone=None, num_classes=classes))


def _without_auxiliary(state: StateDict) -> StateDict:
    """The state dict without the auxiliary classifier, which only training needs."""
    return {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}


def _published(name: str) -> Weights:
    """torchvision's default weights of a network; URL, hash, classes and accuracy are from its metadata."""
    enum = getattr(segmentation, _ENUMS[name]).DEFAULT
    transforms, meta = enum.transforms(), enum.meta
    names = [c.strip("_") for c in meta["categories"]]
    measured, metrics = next(iter(meta["_metrics"].items()))
    miou, pixel_accuracy = metrics["miou"] / 100, metrics["pixel_acc"] / 100
    return Weights(
        "published",
        "url",
        enum.url,
        VOC_LABELS if tuple(names) == VOC_LABELS.names else LabelSet.of(names),
        Preprocess(tuple(transforms.mean), tuple(transforms.std)),
        accuracy=f"mIoU {miou:.3f}, pixel accuracy {pixel_accuracy:.3f} on {measured}",
        terms=_TERMS,
        digest=f"sha256:{enum.url.rpartition('-')[2].removesuffix('.pth')}",
    )


def _architecture(name: str, summary: str, head: str, geometry: Geometry, parameters: tuple[int, int]) -> Architecture:
    return Architecture(
        name=name,
        summary=summary,
        network=partial(_coarse, getattr(segmentation, name)),
        head=head,
        geometry=geometry,
        parameters=parameters,
        weights={"published": _published(name)},
        convert=_without_auxiliary,
        # torchvision's references/segmentation/train.py.
        recipe=TrainingRecipe(lr=0.01, crop=(480, 480), scale=(0.5, 2.0)),
        backbone=named_backbone(_TIMM[name.partition("_")[2]]),
    )


_ENUMS = {
    "deeplabv3_resnet50": "DeepLabV3_ResNet50_Weights",
    "deeplabv3_resnet101": "DeepLabV3_ResNet101_Weights",
    "deeplabv3_mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights",
    "fcn_resnet50": "FCN_ResNet50_Weights",
    "fcn_resnet101": "FCN_ResNet101_Weights",
    "lraspp_mobilenet_v3_large": "LRASPP_MobileNet_V3_Large_Weights",
}
# timm's names of the backbones.
_TIMM = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "mobilenet_v3_large": "mobilenetv3_large_100",
}
_RESNET = Geometry(stride=8, multiple=8, activations=32)

DEEPLABV3_RESNET50 = _architecture(
    "deeplabv3_resnet50", "DeepLab v3 on ResNet-50 (Chen et al. 2017)", "classifier.4.weight", _RESNET, (39633472, 257)
)
DEEPLABV3_RESNET101 = _architecture(
    "deeplabv3_resnet101",
    "DeepLab v3 on ResNet-101 (Chen et al. 2017)",
    "classifier.4.weight",
    _RESNET,
    (58625600, 257),
)
DEEPLABV3_MOBILENET_V3_LARGE = _architecture(
    "deeplabv3_mobilenet_v3_large",
    "DeepLab v3 on MobileNetV3-Large (Chen et al. 2017, Howard et al. 2019)",
    "classifier.4.weight",
    Geometry(stride=16, multiple=16, activations=16),
    (11020080, 257),
)
FCN_RESNET50 = _architecture(
    "fcn_resnet50", "FCN on dilated ResNet-50 (Long et al. 2015)", "classifier.4.weight", _RESNET, (32946240, 513)
)
FCN_RESNET101 = _architecture(
    "fcn_resnet101", "FCN on dilated ResNet-101 (Long et al. 2015)", "classifier.4.weight", _RESNET, (51938368, 513)
)
LRASPP_MOBILENET_V3_LARGE = _architecture(
    "lraspp_mobilenet_v3_large",
    "LR-ASPP on MobileNetV3-Large (Howard et al. 2019)",
    "classifier.low_classifier.weight",
    Geometry(stride=8, multiple=16, activations=16),
    (3217968, 170),
)
