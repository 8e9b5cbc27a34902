"""Networks of 2014 to 2016, whose weights are files of their authors (Caffe) or ports of these.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from segbatch.config.training import TrainingRecipe
from segbatch.labels import CAMVID_LABELS
from segbatch.models.architecture import Architecture
from segbatch.models.backbones import Backbone
from segbatch.models.deferred import Deferred
from segbatch.models.tiles import Geometry
from segbatch.models.weights import CAFFE_BGR, RAW_BGR

_ZOO = "segbatch.models.zoo"
# For networks whose scores are the size of the image: 21 classes of 2**20 pixels are 88 MB.
_TILE_PIXELS = 2**20
_VGG16 = Backbone("vgg16", Deferred(f"{_ZOO}.ports:load_trunk"))
_VGG16_BN = Backbone("vgg16_bn", Deferred(f"{_ZOO}.ports:load_trunk"))
# The stride of pool5, so that tiles have the phase of the whole image.
_FCN_GEOMETRY = Geometry(stride=1, multiple=32, pad="mean", tile_pixels=_TILE_PIXELS)
_DEEPLAB_GEOMETRY = Geometry(stride=1, multiple=8, pad="mean", tile_pixels=_TILE_PIXELS)
_SEGNET_GEOMETRY = Geometry(stride=1, multiple=8, tile_pixels=_TILE_PIXELS)


def _fcn_recipe(lr: float) -> TrainingRecipe:
    """Return the recipe of the solvers published with FCN, at the rate of one network.

    "Heavy learning" (Long et al. 2015): one image of its own size, the loss summed over its pixels, high momentum;
    biases at twice the rate.
    """
    return TrainingRecipe(
        batch_size=1,
        momentum=0.99,
        weight_decay=5e-4,
        reduction="sum",
        schedule="fixed",
        bias_lr=2.0,
        flip=False,
        lr=lr,
    )


def _fcn(
    name: str, summary: str, finest: Literal[32, 16, 8], lr: float, each_class: int, at_once: bool = False
) -> Architecture:
    return Architecture(
        name=name,
        summary=f"{summary} on VGG16 (Long et al. 2015)",
        network=partial(Deferred(f"{_ZOO}.fcn:FCN"), finest=finest, at_once=at_once),
        head="score_fr.weight",
        geometry=_FCN_GEOMETRY,
        parameters=(134260544, each_class),
        preprocess=CAFFE_BGR,
        convert=partial(Deferred(f"{_ZOO}.fcn:convert"), finest, at_once),
        recipe=_fcn_recipe(lr),
        backbone=_VGG16,
    )


FCN32S = _fcn("fcn32s", "FCN-32s", 32, 1e-10, 4097)
FCN16S = _fcn("fcn16s", "FCN-16s", 16, 1e-12, 4610)
FCN8S = _fcn("fcn8s", "FCN-8s", 8, 1e-14, 4867)
FCN8S_ATONCE = _fcn("fcn8s_atonce", "FCN-8s, trained at once,", 8, 1e-10, 4867, at_once=True)


def _deeplab(
    name: str,
    title: str,
    network: str,
    parameters: tuple[int, int],
    *,
    convert: str = "convert",
    side: int = 321,
    train_network: Callable[..., Any] | None = None,
) -> Architecture:
    return Architecture(
        name=name,
        summary=f"{title} on VGG16 (Chen et al. 2015); for a dense CRF",
        network=Deferred(f"{_ZOO}.deeplab_v1:{network}"),
        head="fc8.weight",
        geometry=_DEEPLAB_GEOMETRY,
        parameters=parameters,
        preprocess=CAFFE_BGR,
        convert=Deferred(f"{_ZOO}.deeplab_v1:{convert}"),
        # Chen et al. 2015, sec. 4.1, with the poly schedule of their later solvers instead of steps.
        recipe=TrainingRecipe(batch_size=20, lr=1e-3, head_lr=10.0, bias_lr=2.0, weight_decay=5e-4, crop=(side, side)),
        train_network=train_network,
        training_scores=Deferred(f"{_ZOO}.deeplab_v1:coarse_scores"),
        backbone=_VGG16,
    )


DEEPLAB_V1 = _deeplab(
    "deeplab_v1",
    "DeepLab v1",
    "DeepLab",
    (65054528, 4097),
    side=306,
    train_network=partial(Deferred(f"{_ZOO}.deeplab_v1:DeepLab"), pool4_padding=0),
)
DEEPLAB_V1_LARGEFOV = _deeplab("deeplab_v1_largefov", "DeepLab v1 LargeFOV", "DeepLabLargeFOV", (20483904, 1025))
DEEPLAB_V1_MSC_LARGEFOV = _deeplab(
    "deeplab_v1_msc_largefov", "DeepLab v1 MSc-LargeFOV", "multi_scale", (21676480, 1670), convert="convert_multi_scale"
)

# Badrinarayanan et al. 2015, sec. 3.1 and 4.
_SEGNET_RECIPE = TrainingRecipe(
    batch_size=12, lr=0.1, schedule="fixed", weight_decay=5e-4, balance="median-frequency", flip=False
)
SEGNET = Architecture(
    name="segnet",
    summary="SegNet on VGG16 (Badrinarayanan et al. 2015)",
    network=Deferred(f"{_ZOO}.segnet:SegNet"),
    head="conv1_1_D.weight",
    geometry=_SEGNET_GEOMETRY,
    parameters=(29443008, 577),
    preprocess=RAW_BGR,
    labels=CAMVID_LABELS,
    convert=Deferred(f"{_ZOO}.segnet:convert"),
    recipe=_SEGNET_RECIPE,
    train_network=Deferred(f"{_ZOO}.segnet:train_network"),
    backbone=_VGG16_BN,
)
SEGNET_BASIC = Architecture(
    name="segnet_basic",
    summary="SegNet-Basic (Badrinarayanan et al. 2015)",
    network=Deferred(f"{_ZOO}.segnet:SegNetBasic"),
    head="conv_classifier.weight",
    geometry=_SEGNET_GEOMETRY,
    parameters=(1415872, 65),
    preprocess=RAW_BGR,
    labels=CAMVID_LABELS,
    convert=Deferred(f"{_ZOO}.segnet:convert_basic"),
    recipe=_SEGNET_RECIPE,
)
DECONVNET = Architecture(
    name="deconvnet",
    summary="DeconvNet on VGG16, windows of 224 x 224 (Noh et al. 2015)",
    network=Deferred(f"{_ZOO}.deconvnet:DeconvNet"),
    head="seg_score.weight",
    geometry=Geometry(stride=1, multiple=32, window=(224, 224), pad="mean"),
    parameters=(251804288, 65),
    preprocess=CAFFE_BGR,
    convert=Deferred(f"{_ZOO}.deconvnet:convert"),
    # Noh et al. 2015, sec. 4.2; batch normalization needs more than one image.
    recipe=TrainingRecipe(batch_size=64, lr=0.01, weight_decay=5e-4, crop=(224, 224)),
    backbone=_VGG16_BN,
)
CRFASRNN = Architecture(
    name="crfasrnn",
    summary="FCN-8s with mean field as layers (Zheng et al. 2015)",
    network=Deferred(f"{_ZOO}.crfasrnn:CRFasRNN"),
    head="score_fr.weight",
    geometry=_FCN_GEOMETRY,  # mean field sees one tile at a time
    parameters=(134260544, 4868, 35),
    preprocess=CAFFE_BGR,
    convert=Deferred(f"{_ZOO}.crfasrnn:convert"),
    refines="mean-field layers",
    # From a trained FCN-8s, at another rate (Zheng et al. 2015, sec. 6).
    recipe=_fcn_recipe(lr=1e-13),
    backbone=_VGG16,
)
DPN_VGG16 = Architecture(
    name="dpn",
    summary="Deep Parsing Network on VGG16 (Liu et al. 2015)",
    network=Deferred(f"{_ZOO}.dpn:DPN"),
    head="fc8.weight",
    geometry=_DEEPLAB_GEOMETRY,
    parameters=(134260544, 4097, 405),
    preprocess=CAFFE_BGR,
    convert=Deferred(f"{_ZOO}.dpn:convert"),
    refines="b12 to b15",
    backbone=_VGG16,
)
