"""torchvision's networks: the contract, equality with torchvision's own forward pass, and no network access."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model_weights, segmentation

from segbatch import models
from segbatch.errors import ModelError
from segbatch.labels import VOC_LABELS
from segbatch.models import weights as weights_module
from tests.models.contract import ModelContract, photo

SMALL = [(1, 1), (17, 65), (48, 64)]


class TestDeepLabV3MobileNet(ModelContract):
    name = "deeplabv3_mobilenet_v3_large"


class TestLRASPP(ModelContract):
    name = "lraspp_mobilenet_v3_large"


class TestFCNResNet50(ModelContract):
    name = "fcn_resnet50"
    sizes = SMALL


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3_resnet101", "fcn_resnet101"])
def test_large_networks_run_at_their_stride(name: str) -> None:
    model = models.build(name, weights="random", device="cpu")
    (scores,) = model.scores([photo(30, 41)])
    assert scores.shape == (21, 4, 6)
    assert model.stride == 8


@pytest.mark.parametrize("name", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "deeplabv3_resnet50"])
def test_upsampled_scores_are_torchvisions_own(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    original = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, **auxiliary).eval()
    path = tmp_path / "published.pth"
    torch.save(original.state_dict(), path)
    image = photo(64, 96)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():
        expected = original(x[None])["out"]
    (scores,) = models.build(name, weights=str(path), device="cpu").scores([image])
    got = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], (64, 96), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [name for name in models.MODELS if hasattr(segmentation, name)])
def test_published_weights_are_described_as_by_torchvision(name: str) -> None:
    published = get_model_weights(name).DEFAULT
    (weights,) = models.entry(name).architecture().weights.values()  # type: ignore[union-attr]
    assert weights.source == published.url
    assert weights.digest.removeprefix("sha256:") == published.url.removesuffix(".pth").rpartition("-")[2]
    assert weights.labels.names == tuple(c.strip("_") for c in published.meta["categories"])
    transforms = published.transforms()
    assert (weights.preprocess.mean, weights.preprocess.std) == (tuple(transforms.mean), tuple(transforms.std))
    ((measured, metrics),) = published.meta["_metrics"].items()
    stated = f"mIoU {metrics['miou'] / 100:.3f}, pixel accuracy {metrics['pixel_acc'] / 100:.3f} on {measured}"
    assert weights.accuracy == stated


def test_describing_published_weights_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    info = models.describe("deeplabv3_resnet50")
    assert info.classes[0] == "background"
    assert len(info.classes) == 21
    assert info.digest == "sha256:cd0a2569"
    assert info.accuracy.startswith("mIoU 0.664, pixel accuracy 0.924")
    assert not list(tmp_path.rglob("*"))


def test_no_network_is_said_at_once_with_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A name that never resolves (RFC 2606): the failure is real on machines with and without a network.
    weights = weights_module.Weights(
        "published", "url", "https://weights.invalid/net-cd0a2569.pth", VOC_LABELS, digest="sha256:cd0a2569"
    )
    start = time.monotonic()
    with pytest.raises(ModelError) as e:
        weights.read()
    assert time.monotonic() - start < 30
    for said in ("https://weights.invalid/net-cd0a2569.pth", "--weights URI", "TORCH_HOME", str(tmp_path), "built-in"):
        assert said in str(e.value)


def test_a_download_is_checked_kept_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    published = tmp_path / "net.pth"
    published.write_bytes(b"the weights")
    digest = f"sha256:{hashlib.sha256(b'the weights').hexdigest()[:8]}"
    weights = weights_module.Weights("p", "url", published.as_uri(), VOC_LABELS, digest=digest)
    assert weights.read() == b"the weights"
    published.unlink()
    assert weights.read() == b"the weights"
    kept = tmp_path / "home" / "hub" / "checkpoints" / "net.pth"
    kept.write_bytes(b"the weigh")
    with pytest.raises(ModelError, match="delete it"):
        weights.read()


def test_another_file_at_the_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "net.pth").write_bytes(b"not the weights")
    url = (tmp_path / "net.pth").as_uri()
    weights = weights_module.Weights("p", "url", url, VOC_LABELS, digest="sha256:cd0a2569")
    with pytest.raises(ModelError, match=r"expected cd0a2569"):
        weights.read()
    assert not list((tmp_path / "home").rglob("*.pth"))


def test_the_cache_is_torch_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert str(weights_module._hub_checkpoints()) == f"{torch.hub.get_dir()}/checkpoints"
        monkeypatch.delenv(variable)
    assert str(weights_module._hub_checkpoints()) == f"{torch.hub.get_dir()}/checkpoints"
