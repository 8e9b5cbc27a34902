"""torchvision's segmentation networks and their published weights. Does not import torchvision.

The networks run at the image's own size. torchvision states accuracies at a shorter side of 520 pixels, near which the
weights were trained: much larger images are better scaled down first.
"""

from __future__ import annotations

from functools import partial

from segbatch.config.training import TrainingRecipe
from segbatch.labels import VOC_LABELS
from segbatch.models.architecture import Architecture
from segbatch.models.backbones import named_backbone
from segbatch.models.deferred import Deferred
from segbatch.models.tiles import Geometry
from segbatch.models.weights import Weights

_NETWORKS = "segbatch.models.torchvision"
_TERMS = "trained on COCO photographs, which carry their owners' terms"
_FOLDER = "https://download.pytorch.org/models"


def _architecture(
    name: str,
    summary: str,
    head: str,
    geometry: Geometry,
    parameters: tuple[int, int],
    file: str,
    mean_iou: float,
    pixel_accuracy: float,
) -> Architecture:
    """Return an entry whose weights are torchvision's ``DEFAULT``, with the URL, hash and accuracy of its metadata."""
    published = Weights(
        "published",
        "url",
        f"{_FOLDER}/{file}",
        VOC_LABELS,
        accuracy=f"mIoU {mean_iou:.3f}, pixel accuracy {pixel_accuracy:.3f} on COCO-val2017-VOC-labels",
        terms=_TERMS,
        digest=f"sha256:{file.rpartition('-')[2].removesuffix('.pth')}",
    )
    return Architecture(
        name=name,
        summary=summary,
        network=partial(Deferred(f"{_NETWORKS}:coarse"), name),
        head=head,
        geometry=geometry,
        parameters=parameters,
        weights={"published": published},
        convert=Deferred(f"{_NETWORKS}:without_auxiliary"),
        # torchvision's references/segmentation/train.py.
        recipe=TrainingRecipe(lr=0.01, crop=(480, 480), scale=(0.5, 2.0)),
        backbone=named_backbone(_TIMM[name.partition("_")[2]]),
    )


# timm's names of the backbones.
_TIMM = {
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "mobilenet_v3_large": "mobilenetv3_large_100",
}
_RESNET = Geometry(stride=8, multiple=8, activations=32)

DEEPLABV3_RESNET50 = _architecture(
    "deeplabv3_resnet50",
    "DeepLab v3 on ResNet-50 (Chen et al. 2017)",
    "classifier.4.weight",
    _RESNET,
    (39633472, 257),
    "deeplabv3_resnet50_coco-cd0a2569.pth",
    0.664,
    0.924,
)
DEEPLABV3_RESNET101 = _architecture(
    "deeplabv3_resnet101",
    "DeepLab v3 on ResNet-101 (Chen et al. 2017)",
    "classifier.4.weight",
    _RESNET,
    (58625600, 257),
    "deeplabv3_resnet101_coco-586e9e4e.pth",
    0.674,
    0.924,
)
DEEPLABV3_MOBILENET_V3_LARGE = _architecture(
    "deeplabv3_mobilenet_v3_large",
    "DeepLab v3 on MobileNetV3-Large (Chen et al. 2017, Howard et al. 2019)",
    "classifier.4.weight",
    Geometry(stride=16, multiple=16, activations=16),
    (11020080, 257),
    "deeplabv3_mobilenet_v3_large-fc3c493d.pth",
    0.603,
    0.912,
)
FCN_RESNET50 = _architecture(
    "fcn_resnet50",
    "FCN on dilated ResNet-50 (Long et al. 2015)",
    "classifier.4.weight",
    _RESNET,
    (32946240, 513),
    "fcn_resnet50_coco-1167a1af.pth",
    0.605,
    0.914,
)
FCN_RESNET101 = _architecture(
    "fcn_resnet101",
    "FCN on dilated ResNet-101 (Long et al. 2015)",
    "classifier.4.weight",
    _RESNET,
    (51938368, 513),
    "fcn_resnet101_coco-7ecb50ca.pth",
    0.637,
    0.919,
)
LRASPP_MOBILENET_V3_LARGE = _architecture(
    "lraspp_mobilenet_v3_large",
    "LR-ASPP on MobileNetV3-Large (Howard et al. 2019)",
    "classifier.low_classifier.weight",
    Geometry(stride=8, multiple=16, activations=16),
    (3217968, 170),
    "lraspp_mobilenet_v3_large-d234d4ea.pth",
    0.579,
    0.912,
)
