"""The reader of ``.caffemodel`` files: every form that Caffe wrote, and whatever else a file may hold."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbatch.errors import ModelError
from segbatch.models import state_dict
from segbatch.models.catalog.zoo import SEGNET_BASIC
from segbatch.models.info import ModelRequest
from segbatch.models.zoo import caffe
from segbatch.models.zoo.caffe_names import from_caffe
from tests.models.caffe_net import Net, blob, caffemodel, message, number


def small_net() -> Net:
    net = Net(3)
    net.bn(net.conv("data", "conv", 4), "norm")
    return net


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("form", ["shape", "old", "unpacked", "double"])
def test_every_form_gives_the_same_blobs(form: str, v1: bool) -> None:
    net = small_net()
    blobs = caffe.read(caffemodel(net, form, v1=v1), "w.caffemodel")
    assert list(blobs) == ["conv/0", "conv/1", "norm/0", "norm/1"]
    for key, value in blobs.items():
        name, _, index = key.rpartition("/")
        written = net.blobs[name][int(index)]
        assert value.dtype == torch.float32
        assert np.array_equal(value.numpy().ravel(), written.ravel())
        shape = (1,) * (4 - written.ndim) + written.shape if form == "old" else written.shape
        assert value.shape == shape


def test_data_may_come_in_pieces_and_mixed() -> None:
    values = np.arange(6, dtype="<f4")
    pieces = message(7, number(1, 2)) + message(5, values[:2].tobytes()) + message(7, number(1, 3))
    pieces += b"\x2d" + values[2:3].tobytes() + message(5, b"") + message(5, values[3:].tobytes())
    data = message(100, message(1, b"a/b") + message(7, pieces))
    (key, value), *rest = caffe.read(data, "w").items()
    assert (key, rest) == ("a/b/0", [])
    assert value.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_dimension_that_was_not_written_is_0_and_no_dimension_is_a_scalar() -> None:
    layers = message(1, b"x") + message(7, message(7, b"") + message(5, np.float32([7]).tobytes())) + message(7, b"")
    blobs = caffe.read(message(100, layers), "w")
    assert blobs["x/0"].shape == ()
    assert float(blobs["x/0"]) == 7
    assert blobs["x/1"].shape == (0, 0, 0, 0)


def test_doubles_beyond_float32_are_infinite_and_nan_stays() -> None:
    signalling = np.uint64(0x7FF0000000000001).view(np.float64)
    data = message(100, message(1, b"x") + message(7, blob(np.array([1e300, 2.0, signalling]), "double")))
    assert str(caffe.read(data, "w")["x/0"].tolist()) == "[inf, 2.0, nan]"


def layer(content: bytes) -> bytes:
    return message(100, message(1, b"fc") + message(7, content))


FOUR = np.float32([1, 2, 3, 4]).tobytes()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "hold no layer with blobs; give the .caffemodel itself"),
        (message(1, b"net") + message(100, message(1, b"relu")), "hold no layer with blobs"),
        (b"PK\x03\x04 a zip file", "announced|wire type|number"),
        (b'name: "a prototxt"', "announced|wire type|number"),
        (caffemodel(small_net())[:-5], "bytes are announced where"),
        (layer(message(5, FOUR) + message(7, number(1, 5))), r"'fc/0' of shape \(5,\) holds 4 numbers"),
        (layer(message(5, FOUR) + message(7, number(1, 2**64 - 4))), r"has the shape \(18446744073709551612,\)"),
        (layer(message(5, FOUR) + message(7, number(1, 2**30) * 4)), "holds 4 numbers"),
        (layer(message(5, FOUR) + message(7, number(1, 1) * 9)), "more than 8 dimensions"),
        (layer(message(5, FOUR) + message(7, message(1, b"\1" * 9))), "more than 8 dimensions"),
        (layer(message(5, FOUR[:-1]) + message(7, number(1, 4))), "ends within a number"),
        (layer(message(8, FOUR) + message(7, number(1, 1)) + message(8, b"x")), "ends within a number"),
        (layer(number(5, 3)), "data of blob 'fc/0' is a number"),
        (layer(number(7, 3)), "shape of blob 'fc/0' is a number"),
        (layer(message(1, b"x")), "is not a number"),
        (message(100, number(1, 3)), "the name of a layer is a number"),
        (message(100, number(7, 3)), "a blob is a number"),
        (number(100, 3), "a layer is a number"),
        (layer(b"") * 2, "two layers are called 'fc'"),
        (b"\xff" * 11, "does not end"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "the number 0"),
        (message(100, message(1, b"x") + message(7, b"") * 10_001), "more than 10000 blobs"),
        (b"".join(message(100, message(1, b"%d" % i) + message(7, b"")) for i in range(10_001)), "more than 10000"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says) as e:
        state_dict.parse(data, "some/w.caffemodel")
    assert "'some/w.caffemodel'" in str(e.value)


def test_memory_is_bounded_by_the_file() -> None:
    values = np.arange(500_000, dtype=np.float32)
    for form in ("shape", "old", "double"):
        data = message(100, message(1, b"x") + message(7, blob(values, form)))
        tracemalloc.start()
        read = caffe.read(data, "w")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert np.array_equal(read["x/0"].numpy().ravel(), values)
        assert peak < 2.5 * len(data)


def check_outcome(data: bytes) -> None:
    """Blobs whose numbers were all in the file, or a ``ModelError``; nothing else."""
    try:
        blobs = caffe.read(data, "w.caffemodel")
    except ModelError:
        return
    assert blobs
    assert all(value.dtype == torch.float32 for value in blobs.values())
    assert sum(value.numel() for value in blobs.values()) * 4 <= len(data)


VALID = [
    caffemodel(small_net(), form, v1=v1) for form in ("shape", "old", "unpacked", "double") for v1 in (False, True)
]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(st.binary(max_size=200))
@FUZZ
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    check_outcome(data)


@st.composite
def damaged(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A real file after a few changes: bytes replaced, cut out, doubled or put in, or its end lost."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(0, 20))
        how = draw(st.sampled_from(["replace", "cut", "double", "insert", "end"]))
        if how == "replace":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
        elif how == "cut":
            del data[at : at + length]
        elif how == "double":
            data[at:at] = data[at : at + length]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=12))
        else:
            del data[at:]
    return bytes(data)


@given(damaged(VALID))
@FUZZ
def test_damaged_files_are_read_or_refused(data: bytes) -> None:
    check_outcome(data)


FIELDS = st.recursive(
    st.one_of(
        st.builds(number, st.integers(1, 9), st.integers(0, 2**64 - 1)),
        st.builds(message, st.integers(1, 9), st.binary(max_size=16)),
    ),
    lambda inner: st.builds(
        message, st.sampled_from([2, 5, 6, 7, 100]), st.lists(inner, max_size=4).map(lambda parts: b"".join(parts))
    ),
    max_leaves=12,
)


@given(st.lists(FIELDS, max_size=4).map(lambda parts: b"".join(parts)))
@FUZZ
def test_any_messages_are_read_or_refused(data: bytes) -> None:
    check_outcome(data)


def tiny_segnet() -> Net:
    """SegNet-Basic's layers with one channel."""
    net = Net(1)
    for name in (*(f"conv{i}" for i in range(1, 5)), *(f"conv_decode{i}" for i in range(1, 5))):
        net.channels["in"] = 3 if name == "conv1" else 1
        net.bn(net.conv("in", name, 1, 7), f"{name}_bn")
    net.conv("conv_decode1", "conv_classifier", 21, 1)
    return net


TINY = caffemodel(tiny_segnet())


def test_what_the_fuzzer_damages_is_whole(tmp_path: Path) -> None:
    assert describe(TINY, tmp_path) == 21


def describe(data: bytes, folder: Path) -> int:
    path, classes = folder / "w.caffemodel", folder / "classes.txt"
    path.write_bytes(data)
    classes.write_text("\n".join(map(str, range(21))))
    entry = replace(SEGNET_BASIC, network=partial(SEGNET_BASIC.network, narrow=64))
    return len(entry.describe(ModelRequest(str(path), str(classes))).labels)


@given(damaged([TINY]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_weights_of_a_network_fit_or_are_refused(tmp_path: Path, data: bytes) -> None:
    with suppress(ModelError):
        assert describe(data, tmp_path) == 21


def test_names_are_mapped_one_by_one() -> None:
    convert = from_caffe({"conv1": "one.conv", "conv1_bn": "one.bn", "fc8_*": "fc8"})
    two = torch.tensor([1.0, 2.0])
    state = convert(
        {
            "conv1/0": torch.zeros(2, 1, 1, 1),
            "conv1/1": two.view(1, 1, 1, 2),
            "conv1_bn/0": two.view(1, 2, 1, 1),
            "conv1_bn/1": two.view(1, 2, 1, 1),
            "fc8_voc/0": torch.zeros(3, 2, 1, 1),
            "fc8_other/0": two,
            "conv1/2": two,
        }
    )
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "one.conv.weight": (2, 1, 1, 1), "one.conv.bias": (2,), "one.bn.weight": (2,), "one.bn.bias": (2,),
        "one.bn.running_mean": (2,), "one.bn.running_var": (2,), "fc8.weight": (3, 2, 1, 1),
        "fc8_other/0": (2,), "conv1/2": (2,),
    }  # fmt: skip
    # Statistics that leave values as they are: Caffe's were folded into scale and shift.
    norm = torch.nn.BatchNorm2d(2).eval()
    norm.load_state_dict({k.removeprefix("one.bn."): v for k, v in state.items() if ".bn." in k}, strict=False)
    x = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(norm(x), x * two[:, None, None] + two[:, None, None])


def test_state_dicts_of_torch_are_left_alone() -> None:
    state = {"conv1_1.weight": torch.zeros(1)}
    assert from_caffe({"conv1_1": "conv1_1"})(state) is state
