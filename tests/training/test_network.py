"""Networks in training: the grid of the loss, initial weights, parameter groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from segbatch import models
from segbatch.config.training import RECIPE_FIELDS, TrainSpec
from segbatch.errors import ModelError, SegbatchError, SpecError
from segbatch.models import backbones
from segbatch.models.catalog.deeplabv3plus import DEEPLABV3PLUS_MOBILENET_V2
from segbatch.models.catalog.zoo import DEEPLAB_V1, DEEPLAB_V1_LARGEFOV, FCN8S
from segbatch.models.deeplabv3plus import DeepLabV3Plus
from segbatch.models.zoo.deeplab_v1 import DeepLab, DeepLabLargeFOV
from segbatch.models.zoo.fcn import FCN
from segbatch.training.network import (
    _load,
    architecture_of,
    class_keys,
    frozen,
    init_network,
    labels_of,
    parameter_groups,
    set_train_mode,
)
from tests.training.test_objective import NEEDED


def columns(side: int) -> torch.Tensor:
    """Labels (1, side, side) that tell the pixel's row and column."""
    at = torch.arange(side)
    return (1000 * at[:, None] + at)[None]


@torch.no_grad()
def test_the_loss_of_largefov_is_on_the_pixels_at_its_scores() -> None:
    network = DeepLabLargeFOV(5, narrow=16).eval()
    x = torch.randn(1, 3, 321, 321) * 50
    scores, truth = DEEPLAB_V1_LARGEFOV.training_scores(network, x, columns(321))
    assert scores.shape[2:] == truth.shape[1:] == (41, 41)
    at = truth[0, :, 0] // 1000
    assert at.tolist() == list(range(0, 321, 8))
    torch.testing.assert_close(network(x)[:, :, at][..., at], scores)


@torch.no_grad()
def test_the_loss_of_deeplab_is_on_the_pixels_that_its_test_network_scores() -> None:
    """The training network has no padding in pool4, and one cell less; inside, both give the same scores."""
    trained, tested = DeepLab(5, pool4_padding=0, narrow=16).eval(), DeepLab(5, narrow=16).eval()
    tested.load_state_dict(trained.state_dict())
    x = torch.randn(1, 3, 306, 306) * 50
    scores, truth = DEEPLAB_V1.training_scores(trained, x, columns(306))
    assert scores.shape[2:] == truth.shape[1:] == (39, 39)
    at = truth[0, :, 0] // 1000
    inner = slice(14, -14)
    got, shipped = scores[:, :, inner, inner], tested(x)[:, :, at[inner]][..., at[inner]]
    torch.testing.assert_close(shipped, got, rtol=1e-3, atol=1e-3 * got.abs().max().item())


@torch.no_grad()
def test_the_loss_of_other_networks_is_on_every_pixel() -> None:
    network = DeepLabV3Plus(4).eval()
    x, labels = torch.randn(1, 3, 32, 48), torch.zeros(1, 32, 48, dtype=torch.int64)
    scores, truth = DEEPLABV3PLUS_MOBILENET_V2.training_scores(network, x, labels)
    assert scores.shape == (1, 4, 32, 48)
    assert truth.shape == (1, 32, 48)


def test_weights_of_other_classes_keep_all_but_the_head() -> None:
    spec = TrainSpec.create(**NEEDED, init="voc")
    entry = architecture_of(spec.model)
    camvid = entry.weights["camvid"].labels
    network, told = init_network(spec, entry, camvid)
    assert "classifier.bias, classifier.weight re-initialized for 11 classes" in told
    heads = class_keys(entry)
    assert heads == {"classifier.bias", "classifier.weight"}
    state = network.state_dict()
    assert state["classifier.weight"].shape == (11, 128, 1, 1)
    original = init_network(spec, entry, entry.weights["voc"].labels)[0].state_dict()
    assert all((state[key] == original[key]).all() for key in state if key not in heads)
    assert labels_of(spec, entry) == entry.weights["voc"].labels


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    spec = TrainSpec.create(**NEEDED, init=str(tmp_path / "w.safetensors"))
    entry = architecture_of(spec.model)
    with pytest.raises(ModelError, match=r"1 unexpected: conv\.weight"):
        init_network(spec, entry, labels_of(spec, entry))


def test_a_mobilenet_of_timm_becomes_the_backbone(tmp_path: Path) -> None:
    teacher = timm.create_model("mobilenetv2_100", num_classes=3).eval()
    for name, value in teacher.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_()
    save_file(teacher.state_dict(), tmp_path / "timm.safetensors")
    network = DeepLabV3Plus(4).eval()
    assert DEEPLABV3PLUS_MOBILENET_V2.backbone is not None
    told = backbones.load(network, DEEPLABV3PLUS_MOBILENET_V2.backbone, str(tmp_path / "timm.safetensors"), {})
    assert told.startswith("255 tensors of ")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():  # up to stride 16, after which the network here has dilation
        ours, theirs = network.backbone[:14](x), teacher.blocks[:5](teacher.bn1(teacher.conv_stem(x)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_vgg16_becomes_the_trunk(tmp_path: Path) -> None:
    given, network = FCN(3, narrow=16), FCN(5, narrow=16)
    save_file(given.state_dict(), tmp_path / "vgg.safetensors")
    assert FCN8S.backbone is not None
    backbones.load(network, FCN8S.backbone, str(tmp_path / "vgg.safetensors"), {})
    assert (network.conv5_3.weight == given.conv5_3.weight).all()
    assert (network.fc7.weight == given.fc7.weight).all()
    assert network.score_fr.weight.shape[0] == 5


def test_what_is_no_such_backbone_is_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet.safetensors")
    uri = f"backbone:{tmp_path / 'resnet.safetensors'}"
    for model, error, says in (
        ("deeplabv3plus_mobilenet_v2", ModelError, "do not fit the backbone"),
        ("segnet_basic", SpecError, "segnet_basic has no backbone"),
    ):
        spec = TrainSpec.create(**NEEDED, model=model, init=uri)
        entry = architecture_of(model)
        with pytest.raises(error, match=says):
            init_network(spec, entry, labels_of(spec, entry))


# Large networks of torchvision, built as their smaller variants are.
SLOW = {"deeplabv3_resnet101", "fcn_resnet101", "fcn_resnet50", "deeplabv3_resnet50"}


@pytest.mark.parametrize(
    "model", [n for n in models.MODELS if n not in SLOW and models.entry(n).architecture() is not None]
)
def test_every_network_of_the_registry_can_be_trained(model: str) -> None:
    """Its paper's defaults are a valid spec, and its layers fall into groups that are all of it."""
    entry = architecture_of(model)
    spec = TrainSpec.create(**NEEDED, model=model, ignore=[255]).completed_by(entry.recipe)
    with torch.device("meta"):
        network = entry.network(len(labels_of(spec, entry)))
    groups = parameter_groups(network, spec, class_keys(entry))
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in network.parameters())
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])


def test_what_is_given_wins_over_the_recipe_of_the_network() -> None:
    given = TrainSpec.create(**NEEDED, model="fcn8s", lr=0.5, momentum=0.9)
    spec = given.completed_by(FCN8S.recipe)
    assert (spec.lr, spec.momentum, spec.batch_size, spec.reduction) == (0.5, 0.9, 1, "sum")
    assert (spec.scale, spec.completed_by(FCN8S.recipe)) == ((1.0, 1.0), spec)
    whole = TrainSpec.create(**NEEDED, crop=None)
    assert whole.completed_by(DEEPLABV3PLUS_MOBILENET_V2.recipe).crop is None


def test_the_help_marks_what_some_recipe_sets() -> None:
    architectures = [models.entry(n).architecture() for n in models.MODELS]
    recipes = [architecture.recipe for architecture in architectures if architecture is not None]
    assert set().union(*recipes) == RECIPE_FIELDS


def test_what_is_not_one_network_is_refused() -> None:
    for name in ("edeconvnet", "null"):
        with pytest.raises(SegbatchError, match=r"is not one network to train; these are: .*fcn8s"):
            architecture_of(name)


def test_frozen_modules_are_not_trained() -> None:
    network = DeepLabV3Plus(4)
    spec = TrainSpec.create(**NEEDED, freeze=["backbone.1"], head_lr=10, freeze_norm=False)
    groups = parameter_groups(network, spec, {"classifier.weight", "classifier.bias"})
    trained = {id(p) for g in groups for p in g["params"]}
    assert not any(id(p) in trained or p.requires_grad for p in network.backbone[1].parameters())
    assert all(id(p) in trained for p in network.backbone[10].parameters())  # not taken for a part of backbone.1
    assert {g["lr"] for g in groups for p in g["params"] if p is network.classifier.weight} == {10 * spec.lr}
    set_train_mode(network, spec)
    assert not network.backbone[1].training
    assert network.backbone[2].training
    assert set(frozen(network, ["back*"])) == set(network.backbone.modules())
    with pytest.raises(SpecError, match=r"no module is called 'trunk'; this network consists of backbone, low"):
        parameter_groups(network, TrainSpec.create(**NEEDED, freeze=["trunk"]), set())


@pytest.mark.parametrize("stage", [(32, 16), (16, 8)])
def test_a_stage_of_fcn_starts_from_the_one_before(stage: tuple[int, int]) -> None:
    before, after = (FCN(5, finest=finest, narrow=16) for finest in stage)  # type: ignore[arg-type]
    state = before.state_dict()
    heads = {key for key in after.state_dict() if "score" in key}
    said = _load(after, dict(state), heads, "before", "after")
    now = after.state_dict()
    shared = [key for key in now if key in state]
    assert "fc7.weight" in shared
    assert "score_fr.weight" in shared
    assert all(torch.equal(now[key], state[key]) for key in shared)
    skip = f"score_pool{4 if stage[1] == 16 else 3}"
    assert f"{skip}.weight" in said
    assert not now[f"{skip}.weight"].any()  # so that training goes on from the same scores (Long et al. 2015, sec. 4.2)


def test_a_key_that_no_stage_has_is_still_refused() -> None:
    network = FCN(5, finest=16, narrow=16)
    with pytest.raises(ModelError, match="stranger"):
        _load(network, {**network.state_dict(), "stranger.weight": torch.zeros(1)}, set(), "file", "fcn16s")
