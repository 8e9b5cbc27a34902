"""The built-in network, whose weights are part of the package. Does not import torch."""

from __future__ import annotations

from segbatch.config.training import TrainingRecipe
from segbatch.crf.params import CRFSettings
from segbatch.labels import CAMVID_LABELS, VOC_LABELS
from segbatch.models.architecture import Architecture
from segbatch.models.backbones import named_backbone
from segbatch.models.deferred import Deferred
from segbatch.models.info import CRFDefaults
from segbatch.models.tiles import Geometry
from segbatch.models.weights import Weights

_VOC_TERMS = "the photographs trained on carry their owners' terms; for demonstration and tests"
_CAMVID_TERMS = "CamVid is CC BY-NC 4.0: not for commercial use; for demonstration and tests"

DEEPLABV3PLUS_MOBILENET_V2 = Architecture(
    name="deeplabv3plus_mobilenet_v2",
    summary="DeepLab v3+ on MobileNetV2 (Chen et al. 2018); comes with the package",
    network=Deferred("segbatch.models.deeplabv3plus:DeepLabV3Plus"),
    head="classifier.weight",
    # The encoder's stride, as in training: more accurate than padding to 8 (see data/README.md).
    geometry=Geometry(stride=4, multiple=16, activations=24),
    parameters=(2151904, 129),
    weights={
        "voc": Weights(
            "voc",
            "package",
            "deeplabv3plus_mobilenet_v2_voc.safetensors",
            VOC_LABELS,
            accuracy="mIoU 0.484, pixel accuracy 0.820 on 205 VOC photographs that were not trained on",
            terms=_VOC_TERMS,
            crf=CRFDefaults(
                CRFSettings(),
                "DeepLab's; none of 72 others raised the mean IoU on 51 COCO photographs by 0.1 points",
            ),
            temperature=1.12,
        ),
        "camvid": Weights(
            "camvid",
            "package",
            "deeplabv3plus_mobilenet_v2_camvid.safetensors",
            CAMVID_LABELS,
            accuracy="mIoU 0.722, pixel accuracy 0.939 on CamVid val (101 frames)",
            terms=_CAMVID_TERMS,
            crf=CRFDefaults(
                CRFSettings(w_bilateral=1.5, theta_alpha=5, theta_beta=2, w_spatial=0),
                "found by tune-crf on 32 frames of CamVid train",
            ),
            temperature=1.16,
        ),
    },
    # MobileNetV2's decay (Sandler et al. 2018, sec. 6.1), the crop and scales of DeepLab (Chen et al. 2018, sec. 4).
    recipe=TrainingRecipe(weight_decay=4e-5, crop=(513, 513), scale=(0.5, 2.0)),
    backbone=named_backbone("mobilenetv2_100"),
    is_light=True,
)
