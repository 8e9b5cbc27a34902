"""The authors' networks, written out as ``.caffemodel``, give the scores here that OpenCV and NumPy give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segbatch import models
from segbatch.errors import ModelError
from segbatch.models.architecture import Architecture
from segbatch.models.info import DeviceOptions, ModelRequest
from segbatch.models.runner import TorchModel
from tests.models import caffe_net, caffe_systems
from tests.models.caffe_net import Net
from tests.models.contract import photo

CLASSES = 21
MEAN = np.float32([104.00698793, 116.66876762, 122.67891434])
# Name, network in Caffe's layers, size of the image.
OPENCV = [
    ("fcn32s", partial(caffe_systems.fcn, finest=32), (40, 33)),
    ("fcn16s", partial(caffe_systems.fcn, finest=16), (40, 33)),
    ("fcn8s", partial(caffe_systems.fcn, finest=8), (40, 33)),
    ("fcn8s_atonce", partial(caffe_systems.fcn, finest=8, at_once=True), (40, 33)),
    ("deeplab_v1", caffe_systems.deeplab, (66, 50)),
    ("deeplab_v1_largefov", caffe_systems.deeplab_largefov, (65, 49)),
    ("deeplab_v1_msc_largefov", partial(caffe_systems.deeplab_largefov, msc=True), (65, 49)),
]
NUMPY = [
    *OPENCV,
    ("segnet", caffe_systems.segnet, (45, 61)),
    ("segnet_basic", caffe_systems.segnet_basic, (45, 61)),
    ("deconvnet", caffe_systems.deconvnet, (224, 224)),
]


def narrow(name: str) -> Architecture:
    entry = models.entry(name)
    assert isinstance(entry, Architecture)
    return replace(entry, network=partial(entry.network, narrow=16))


def loaded(name: str, net: Net, folder: Path, **form: object) -> TorchModel:
    path = folder / f"{name}.caffemodel"
    path.write_bytes(caffe_net.caffemodel(net, **form))  # type: ignore[arg-type]
    classes = folder / "classes.txt"
    classes.write_text("\n".join(f"class {i}" for i in range(CLASSES)))
    return narrow(name).build(ModelRequest(str(path), str(classes)), DeviceOptions(device="cpu"))


def scores(model: TorchModel, x: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model.network(torch.from_numpy(x)[None])[0].numpy()


def opencv(net: Net, x: np.ndarray, **form: object) -> np.ndarray:
    text = caffe_net.prototxt(net, *x.shape[1:]).encode()
    binary = caffe_net.caffemodel(net, **form)  # type: ignore[arg-type]
    reference = cv2.dnn.readNetFromCaffe(np.frombuffer(text, np.uint8), np.frombuffer(binary, np.uint8))
    reference.setInput(x[None])
    return reference.forward()[0]


def pixels(height: int, width: int, seed: int) -> np.ndarray:
    """A picture as the networks see it: float32 (3, height, width) BGR minus the mean."""
    return np.ascontiguousarray((photo(height, width, seed)[..., ::-1] - MEAN).transpose(2, 0, 1))


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    # Scores that tell classes and places apart, so that agreement says something.
    assert expected.std(axis=0).mean() > 0.05
    assert expected.std(axis=(1, 2)).mean() > 0.01
    assert np.abs(got - expected).max() < 1e-3


@pytest.mark.parametrize(("name", "build", "size"), OPENCV, ids=[name for name, *_ in OPENCV])
def test_scores_are_those_of_opencv(
    name: str, build: Callable[..., Net], size: tuple[int, int], tmp_path: Path
) -> None:
    net, x = build(CLASSES, 7), pixels(*size, 1)
    assert_same(scores(loaded(name, net, tmp_path), x), opencv(net, x))


@pytest.mark.parametrize(("name", "build", "size"), NUMPY, ids=[name for name, *_ in NUMPY])
def test_scores_are_those_of_the_layers_in_numpy(
    name: str, build: Callable[..., Net], size: tuple[int, int], tmp_path: Path
) -> None:
    net, x = build(CLASSES, 8), pixels(*size, 2)
    assert_same(scores(loaded(name, net, tmp_path), x), caffe_net.run(net, x))


def test_a_photograph_gives_opencvs_scores_from_end_to_end(tmp_path: Path) -> None:
    """RGB uint8 in, scores at every pixel out, with the preprocessing and the window."""
    net, image = caffe_systems.fcn(CLASSES, 9, finest=8), photo(64, 96)
    (got,) = loaded("fcn8s", net, tmp_path).scores([image])
    blob = cv2.dnn.blobFromImage(image[..., ::-1].copy(), mean=MEAN.astype(float).tolist())
    assert_same(got, opencv(net, blob[0]))
    # SegNet takes BGR as it is.
    net = caffe_systems.segnet(CLASSES, 9)
    (got,) = loaded("segnet", net, tmp_path).scores([image])
    assert_same(got, caffe_net.run(net, image[..., ::-1].transpose(2, 0, 1)))


def test_deeplab_pads_with_the_mean_as_its_authors_did(tmp_path: Path) -> None:
    image = photo(56, 72)
    for name, build, side in [
        ("deeplab_v1", caffe_systems.deeplab, (58, 74)),
        ("deeplab_v1_largefov", caffe_systems.deeplab_largefov, (57, 73)),
    ]:
        net = build(CLASSES, 3)
        padded = np.zeros((3, *side), np.float32)
        padded[:, :56, :72] = (image[..., ::-1] - MEAN).transpose(2, 0, 1)
        (got,) = loaded(name, net, tmp_path).scores([image])
        assert_same(got, opencv(net, padded)[:, :56, :72])


def test_old_files_give_the_same(tmp_path: Path) -> None:
    net, x = caffe_systems.fcn(CLASSES, 5, finest=32), pixels(33, 40, 5)
    got = scores(loaded("fcn32s", net, tmp_path, form="old", v1=True), x)
    assert_same(got, opencv(net, x))


def test_all_that_does_not_fit_is_in_one_error(tmp_path: Path) -> None:
    net = caffe_systems.fcn(CLASSES, 1, finest=8)
    del net.blobs["conv3_2"]
    net.blobs["conv1_1"][0] = np.zeros((4, 1, 3, 3), np.float32)
    net.blobs["fc6"].append(np.zeros(3, np.float32))
    net.blobs["loss"] = [np.zeros(2, np.float32)]
    with pytest.raises(ModelError) as e:
        loaded("fcn8s", net, tmp_path)
    for part in (
        "2 missing: conv3_2.weight, conv3_2.bias",
        "2 unexpected: fc6/2, loss/0",
        "1 of another shape: conv1_1.weight (4, 1, 3, 3) for (4, 3, 3, 3)",
        "do not fit fcn8s",
    ):
        assert part in str(e.value)


@pytest.mark.parametrize("shape", [(), (0, 256, 1, 1), (40_000, 0, 1, 1)])
def test_a_score_layer_that_cannot_be_one_is_of_another_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    net = caffe_systems.fcn(CLASSES, 1, finest=8)
    net.blobs["score_fr"][0] = np.zeros(shape, np.float32)
    with pytest.raises(ModelError, match=r"of another shape: score_fr\.weight"):
        loaded("fcn8s", net, tmp_path)


def test_the_data_set_in_the_name_of_a_score_layer_does_not_matter(tmp_path: Path) -> None:
    net = caffe_systems.deeplab(CLASSES, 1)
    expected = loaded("deeplab_v1", net, tmp_path).network.fc8.weight
    net.layers = [replace(layer, name=layer.name.replace("voc12", "coco")) for layer in net.layers]
    net.blobs = {name.replace("voc12", "coco"): blobs for name, blobs in net.blobs.items()}
    assert torch.equal(loaded("deeplab_v1", net, tmp_path).network.fc8.weight, expected)


def test_weights_of_torch_have_the_same_names(tmp_path: Path) -> None:
    """A port's state dict with Caffe's layer names loads as it is."""
    net = caffe_systems.fcn(CLASSES, 2, finest=8)
    model = loaded("fcn8s", net, tmp_path)
    state = {
        f"{n}.{('weight', 'bias')[i]}": torch.from_numpy(b) for n, bs in net.blobs.items() for i, b in enumerate(bs)
    }
    path = tmp_path / "port.pth"
    torch.save(state, path)
    port = narrow("fcn8s").build(ModelRequest(str(path)), DeviceOptions(device="cpu"))
    image = photo(32, 32)
    assert np.array_equal(port.scores([image])[0], model.scores([image])[0])
