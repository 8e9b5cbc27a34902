"""Weights that others published: what is taken under which name, and that it computes the same."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16, vgg16_bn

from segbatch import models
from segbatch.errors import ModelError
from segbatch.models import state_dict
from segbatch.models.catalog.zoo import FCN8S_ATONCE
from segbatch.models.weights import CAFFE_BGR
from segbatch.models.zoo.fcn import FCN
from segbatch.models.zoo.ports import from_torchvision, load_trunk
from segbatch.models.zoo.vgg16 import BLOCKS, VGG16
from tests.models.contract import photo
from tests.models.narrow import on_meta

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def _saved(state: dict[str, torch.Tensor]) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


def _features(build: object) -> nn.Module:
    """torchvision's convolutions, without its dense layers' 500 MB."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build(weights=None)  # type: ignore[operator]
    features = network.features.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in features:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return features.eval()


@pytest.mark.parametrize("build", [vgg16, vgg16_bn])
def test_torchvisions_trunk_computes_here_what_it_does_there(build: object):
    features = _features(build)
    trunk = VGG16(batch_norm=build is vgg16_bn).eval()
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    taken = load_trunk(trunk, state_dict.parse(_saved(state), "vgg16.pth"), "vgg16.pth")
    assert set(taken) == set(trunk.state_dict())
    rgb = torch.from_numpy(photo(64, 96)).permute(2, 0, 1)[None].float()
    bgr = rgb.flip(1) - torch.tensor(CAFFE_BGR.mean)[:, None, None]
    with torch.inference_mode():
        there = features[:2]((rgb / 255 - MEAN[:, None, None]) / STD[:, None, None])
        here = F.relu(trunk.conv1_1(bgr)) if build is vgg16 else trunk.conv1_1(bgr)
        torch.testing.assert_close(here[:, :, 1:-1, 1:-1], there[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
        # Behind the first convolution nothing is changed: the rest is compared on what the first gives.
        there = features[1:](features[0](rgb / 255))
        first = features[0](rgb / 255)
        x = trunk.conv1_1.bn(first) if build is vgg16_bn else first
        x = F.relu(trunk.get_submodule("conv1_2")(F.relu(x)))
        x = trunk.pool1(x)
        for block in range(2, 6):
            x = trunk.get_submodule(f"pool{block}")(trunk.block(block, x))
    torch.testing.assert_close(x, there, rtol=1e-4, atol=1e-4)


def test_dense_layers_become_convolutions():
    dense = torch.arange(4 * 2 * 49, dtype=torch.float32).reshape(4, 98)
    names = {"features.0.weight": torch.zeros(1, 3, 3, 3), "features.0.bias": torch.zeros(1)}
    others = {"classifier.3.weight": torch.ones(4, 4), "classifier.6.weight": torch.ones(9, 4)}
    found = from_torchvision({**names, "classifier.0.weight": dense, **others})
    assert torch.equal(found["fc6.weight"], dense.reshape(4, 2, 7, 7))
    assert found["fc7.weight"].shape == (4, 4, 1, 1)
    assert "classifier.6.weight" in found
    x = torch.arange(98, dtype=torch.float64).reshape(1, 2, 7, 7)
    assert torch.equal(F.conv2d(x, found["fc6.weight"].double()).flatten(), F.linear(x.flatten(), dense.double()))


def test_the_original_caffe_trunk_with_its_dense_layers(tmp_path: Path):
    network = FCN(5, narrow=32)
    state = network.state_dict()
    blobs = {}
    for key in (k for k in state if k.startswith(("conv", "fc"))):
        layer, part = key.rsplit(".", 1)
        value = torch.randn_like(state[key])
        if part == "bias":
            value = value.reshape(1, 1, 1, -1)
        elif layer == "fc6":
            value = value.reshape(1, 1, value.shape[0], -1)
        blobs[f"{layer}/{int(part == 'bias')}"] = value
    blobs["fc8/0"] = torch.zeros(1000, 128)
    before = state["score_fr.weight"].clone()
    load_trunk(network, blobs, "vgg.safetensors")
    after = network.state_dict()
    assert torch.equal(after["fc6.weight"].flatten(), blobs["fc6/0"].flatten())
    assert torch.equal(after["conv5_3.bias"], blobs["conv5_3/1"].flatten())
    assert torch.equal(after["score_fr.weight"], before)


def test_a_trunk_that_does_not_fit_changes_nothing_and_says_all():
    network = VGG16(narrow=32)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = dict(before)
    state = {k: torch.ones_like(v) for k, v in state.items()}
    del state["conv3_2.weight"]
    state["conv4_1.bias"] = torch.zeros(3)
    with pytest.raises(ModelError) as caught:
        load_trunk(network, state, "trunk.pth")
    for part in ("trunk.pth", "1 missing: conv3_2.weight", "1 of another shape: conv4_1.bias (3,) for (16,)"):
        assert part in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


# The parameters of the public PyTorch ports of FCN, which keep Caffe's names.
_CONVS = [f"conv{b}_{i}" for b, (_, n) in enumerate(BLOCKS, 1) for i in range(1, n + 1)] + ["fc6", "fc7", "score_fr"]
PORTS = {
    "fcn32s": (_CONVS, ["upscore"]),
    "fcn16s": ([*_CONVS, "score_pool4"], ["upscore2", "upscore16"]),
    "fcn8s": ([*_CONVS, "score_pool3", "score_pool4"], ["upscore2", "upscore8", "upscore_pool4"]),
    "fcn8s_atonce": ([*_CONVS, "score_pool3", "score_pool4"], ["upscore2", "upscore8", "upscore_pool4"]),
}


@pytest.mark.parametrize("name", PORTS)
def test_the_pytorch_ports_of_fcn_fit_as_they_are(name: str):
    entry = models.entry(name)
    own = on_meta(entry.network, 21).state_dict()  # type: ignore[attr-defined]
    convs, ups = PORTS[name]
    keys = [f"{c}.{part}" for c in convs for part in ("weight", "bias")] + [f"{u}.weight" for u in ups]
    state = entry.convert({key: own[key] for key in keys})  # type: ignore[attr-defined]
    state_dict.check(state, on_meta(entry.network, 21), "port.pth", name)  # type: ignore[attr-defined]


def test_the_constants_that_ports_leave_out_are_those_of_the_network():
    own = FCN(3, at_once=True, narrow=16).state_dict()
    without = {k: v for k, v in own.items() if not k.startswith("scale_")}
    found = FCN8S_ATONCE.convert(without)
    for name in ("scale_pool3.weight", "scale_pool4.weight"):
        assert torch.equal(found[name], own[name])


def test_a_trunk_alone_is_no_network(tmp_path: Path):
    state = {f"features.{k}": v for k, v in _features(vgg16).state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(ModelError) as caught:
        models.describe("fcn8s", weights=str(tmp_path / "vgg16.pth"))
    assert "missing: fc6.weight, fc6.bias, fc7.weight" in str(caught.value)
    assert "unexpected" not in str(caught.value)


def test_hdf5_is_refused_with_the_way_to_convert_it(tmp_path: Path):
    (tmp_path / "w.caffemodel.h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(ModelError, match="HDF5, which is not supported") as caught:
        models.describe("fcn8s", weights=str(tmp_path / "w.caffemodel.h5"))
    code = re.search(r'python -c "(.+?)" \(', str(caught.value))
    assert code is not None
    # The command is carried out over what h5py gives for such a file: groups of datasets that [()] reads.
    (tmp_path / "h5py.py").write_text(
        "import numpy as np\n"
        "def File(name):\n"
        "    assert name == 'FILE.h5'\n"
        "    return {'data': {'conv1_1': {'0': np.ones((2, 3, 3, 3), 'f4'), '1': np.ones(2, 'f4')}}}\n"
    )
    subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, check=True)
    found = state_dict.parse((tmp_path / "FILE.safetensors").read_bytes(), "FILE.safetensors")
    assert {key: tuple(value.shape) for key, value in found.items()} == {"conv1_1/0": (2, 3, 3, 3), "conv1_1/1": (2,)}
