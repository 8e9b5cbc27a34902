"""Caffe networks as lists of layers, written out as real files, and run by NumPy, literally.

The lists are written from the authors' definitions, not from the networks under test; NumPy's layers know
nothing of torch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Blobs = dict[str, list[np.ndarray]]
# V1LayerParameter.LayerType
_V1_TYPES = {"Convolution": 4, "Deconvolution": 39, "ReLU": 18, "Pooling": 17, "Eltwise": 25, "LRN": 15}


@dataclass(frozen=True)
class Layer:
    kind: str
    name: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


class Net:
    """Layers in order; each method appends one and returns the name of what comes out."""

    def __init__(self, seed: int = 0) -> None:
        self.layers: list[Layer] = []
        self.blobs: Blobs = {}
        self.channels = {"data": 3}
        self._rng = np.random.default_rng(seed)

    def _add(self, kind: str, name: str, bottoms: Sequence[str], channels: int, *tops: str, **options: Any) -> str:
        tops = tops or (name,)
        self.layers.append(Layer(kind, name, tuple(bottoms), tops, options))
        self.channels[tops[0]] = channels
        return tops[0]

    def conv(self, bottom: str, name: str, outputs: int, kernel: int = 3, **options: int) -> str:
        inputs = self.channels[bottom]
        # Pixels are of the order of 50; all later values of that of 1.
        scale = np.sqrt(2 / (inputs * kernel**2)) / (50 if bottom == "data" else 1)
        weight = self._rng.normal(0, scale, (outputs, inputs, kernel, kernel))
        self.blobs[name] = [weight.astype(np.float32), self._rng.normal(0, 0.2, outputs).astype(np.float32)]
        return self._add("Convolution", name, [bottom], outputs, kernel=kernel, outputs=outputs, **options)

    def deconv(self, bottom: str, name: str, outputs: int, kernel: int, *, bias: bool = True, **options: int) -> str:
        inputs = self.channels[bottom]
        scale = options.get("stride", 1) * np.sqrt(2 / (inputs * kernel**2))
        weight = self._rng.normal(0, scale, (inputs, outputs, kernel, kernel)).astype(np.float32)
        self.blobs[name] = [weight, *([self._rng.normal(0, 0.2, outputs).astype(np.float32)] if bias else [])]
        return self._add("Deconvolution", name, [bottom], outputs, kernel=kernel, outputs=outputs, bias=bias, **options)

    def bn(self, bottom: str, name: str) -> str:
        """In place; blobs of the shape (1, C, 1, 1), as SegNet's and DeconvNet's Caffe wrote them."""
        shape = (1, self.channels[bottom], 1, 1)
        self.blobs[name] = [self._rng.uniform(0.5, 1.5, shape).astype(np.float32)]
        self.blobs[name].append(self._rng.normal(0, 0.3, shape).astype(np.float32))
        return self._add("BN", name, [bottom], self.channels[bottom], bottom)

    def relu(self, bottom: str) -> str:
        return self._add("ReLU", f"relu_{bottom}", [bottom], self.channels[bottom], bottom)

    def pool(self, bottom: str, name: str, kernel: int = 2, *, mask: bool = False, **options: Any) -> str:
        tops = (name, f"{name}_mask") if mask else (name,)
        return self._add("Pooling", name, [bottom], self.channels[bottom], *tops, kernel=kernel, mask=mask, **options)

    def unpool(self, bottom: str, mask: str, like: str, name: str) -> str:
        """To the size of ``like``."""
        return self._add("Unpooling", name, [bottom, mask, like], self.channels[bottom])

    def lrn(self, bottom: str, name: str) -> str:
        return self._add("LRN", name, [bottom], self.channels[bottom])

    def scale(self, bottom: str, name: str, value: float) -> str:
        self.blobs[name] = [np.full(self.channels[bottom], value, np.float32)]
        return self._add("Scale", name, [bottom], self.channels[bottom])

    def crop(self, bottom: str, like: str, name: str, offset: int) -> str:
        return self._add("Crop", name, [bottom, like], self.channels[bottom], offset=offset)

    def add(self, bottoms: Sequence[str], name: str) -> str:
        return self._add("Eltwise", name, bottoms, self.channels[bottoms[0]])

    def interp(self, bottom: str, name: str, zoom: int) -> str:
        return self._add("Interp", name, [bottom], self.channels[bottom], zoom=zoom)

    def mean_field(self, bottom: str, name: str) -> str:
        """CRF-as-RNN's layer: blobs Ws, Wb, C of the shape (1, 1, classes, classes), near where its training begins."""
        classes = self.channels[bottom]
        self.blobs[name] = [
            (weight * np.eye(classes) + self._rng.normal(0, 0.3, (1, 1, classes, classes))).astype(np.float32)
            for weight in (3, 5, -1)
        ]
        return self._add("MultiStageMeanfield", name, [bottom, bottom, "data"], classes)

    def vgg_block(self, bottom: str, block: int, channels: int, depth: int, *, bn: str = "", **first: int) -> str:
        """Convolutions with ReLU; ``bn`` is how their BN layers are called, with ``{}`` for ``1_1``."""
        for i in range(1, depth + 1):
            options = {"pad": 1, **(first if i == 1 or "dilation" in first else {})}
            bottom = self.conv(bottom, f"conv{block}_{i}", channels, **options)
            if bn:
                self.bn(bottom, bn.format(f"{block}_{i}"))
            self.relu(bottom)
        return bottom


# Files


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3) + _varint(value)


def message(field_number: int, content: bytes) -> bytes:
    return _varint(field_number << 3 | 2) + _varint(len(content)) + content


def blob(values: np.ndarray, form: str = "shape") -> bytes:
    """A BlobProto: ``shape``, ``old`` (num, channels, height, width), ``unpacked`` floats, or ``double``."""
    flat = values.ravel()
    if form == "old":
        sides = (1,) * (4 - values.ndim) + values.shape
        head = b"".join(number(i, side) for i, side in enumerate(sides, 1))
    elif form == "unpacked":
        head = message(7, b"".join(number(1, side) for side in values.shape))
    else:
        head = message(7, message(1, b"".join(map(_varint, values.shape))))
    if form == "double":
        return head + message(8, flat.astype("<f8").tobytes())
    if form == "unpacked":
        return head + b"".join(_varint(5 << 3 | 5) + struct.pack("<f", value) for value in flat)
    return head + message(5, flat.astype("<f4").tobytes())


def caffemodel(net: Net, form: str = "shape", *, v1: bool = False) -> bytes:
    """The network's blobs as a ``.caffemodel``, with data and loss layers that have none."""
    out = message(1, b"a network")
    names = ["data", *(layer.name for layer in net.layers), "loss"]
    kinds = {layer.name: layer.kind for layer in net.layers}
    for name in names:
        blobs = net.blobs.get(name, [])
        if v1:
            content = message(4, name.encode()) + number(5, _V1_TYPES.get(kinds.get(name, ""), 0))
            out += message(2, content + b"".join(message(6, blob(b, form)) for b in blobs))
        else:
            content = message(1, name.encode()) + message(2, kinds.get(name, "Data").encode())
            content += message(3, b"bottom") + number(10, 1)
            out += message(100, content + b"".join(message(7, blob(b, form)) for b in blobs))
    return out


def prototxt(net: Net, height: int, width: int) -> str:
    """The network as text, for OpenCV."""
    text = 'input: "data"\n' + "".join(f"input_dim: {side}\n" for side in (1, 3, height, width))
    return text + "".join(map(_layer_text, net.layers))


def _layer_text(layer: Layer) -> str:
    o = layer.options
    if layer.kind in ("Convolution", "Deconvolution"):
        body = f"convolution_param {{ num_output: {o['outputs']} kernel_size: {o['kernel']} pad: {o.get('pad', 0)} "
        body += f"stride: {o.get('stride', 1)} dilation: {o.get('dilation', 1)} "
        body += f"bias_term: {str(o.get('bias', True)).lower()} }}"
    elif layer.kind == "Pooling":
        body = f"pooling_param {{ pool: {o.get('how', 'MAX')} kernel_size: {o['kernel']} "
        body += f"stride: {o.get('stride', 1)} pad: {o.get('pad', 0)} }}"
    elif layer.kind == "Crop":
        body = f"crop_param {{ axis: 2 offset: {o['offset']} }}"
    elif layer.kind == "Interp":
        body = f"interp_param {{ zoom_factor: {o['zoom']} }}"
    elif layer.kind == "LRN":
        body = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
    else:
        body = {"Eltwise": "eltwise_param { operation: SUM }", "Scale": "scale_param { bias_term: false }"}.get(
            layer.kind, ""
        )
    ends = [f'bottom: "{b}"' for b in layer.bottoms] + [f'top: "{t}"' for t in layer.tops]
    return f'layer {{ name: "{layer.name}" type: "{layer.kind}" {" ".join(ends)} {body} }}\n'


# NumPy


def run(net: Net, image: np.ndarray) -> np.ndarray:
    """What the last layer gives for ``image`` (3, H, W), in float64."""
    values = {"data": image.astype(np.float64)}
    for layer in net.layers:
        inputs = [values[b] for b in layer.bottoms]
        blobs = [b.astype(np.float64) for b in net.blobs.get(layer.name, [])]
        outputs = _LAYERS[layer.kind](layer.options, blobs, *inputs)
        values.update(zip(layer.tops, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    return values[net.layers[-1].tops[0]]


def _taps(x: np.ndarray, kernel: int, stride: int, dilation: int) -> Iterable[tuple[int, int, np.ndarray]]:
    """For each tap of the kernel, the values under it at every output."""
    extent = kernel + (kernel - 1) * (dilation - 1)
    rows, columns = ((side - extent) // stride + 1 for side in x.shape[1:])
    for i in range(kernel):
        for j in range(kernel):
            top, left = i * dilation, j * dilation
            yield (
                i,
                j,
                x[:, top : top + rows * stride : stride, left : left + columns * stride : stride][:, :rows, :columns],
            )


def _conv(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    pad = o.get("pad", 0)
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    taps = _taps(x, o["kernel"], o.get("stride", 1), o.get("dilation", 1))
    y = sum(np.tensordot(blobs[0][:, :, i, j], values, 1) for i, j, values in taps)
    return y + blobs[1][:, None, None]


def _deconv(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    kernel, stride, pad = o["kernel"], o.get("stride", 1), o.get("pad", 0)
    _, height, width = x.shape
    y = np.zeros((o["outputs"], (height - 1) * stride + kernel, (width - 1) * stride + kernel))
    for i in range(kernel):
        for j in range(kernel):
            put = y[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            put += np.tensordot(blobs[0][:, :, i, j].T, x, 1)
    y = y[:, pad : y.shape[1] - pad, pad : y.shape[2] - pad]
    return y + blobs[1][:, None, None] if o["bias"] else y


def _pool(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray) -> Any:
    kernel, stride, pad = o["kernel"], o.get("stride", 1), o.get("pad", 0)
    _, height, width = x.shape
    sides = []
    for side in (height, width):
        out = -(-(side + 2 * pad - kernel) // stride) + 1
        sides.append(out - 1 if pad and (out - 1) * stride >= side + pad else out)
    y, mask = np.zeros((len(x), *sides)), np.zeros((len(x), *sides), int)
    for r in range(sides[0]):
        for c in range(sides[1]):
            top, left = r * stride - pad, c * stride - pad
            bottom, right = min(top + kernel, height + pad), min(left + kernel, width + pad)
            area = (bottom - top) * (right - left)
            top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
            seen = x[:, top:bottom, left:right].reshape(len(x), -1)
            if o.get("how") == "AVE":
                y[:, r, c] = seen.sum(axis=1) / area
                continue
            best = seen.argmax(axis=1)
            y[:, r, c] = seen.max(axis=1)
            mask[:, r, c] = (top + best // (right - left)) * width + left + best % (right - left)
    return (y, mask) if o.get("mask") else y


def _unpool(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray, mask: np.ndarray, like: np.ndarray) -> Any:
    y = np.zeros((len(x), like.shape[1] * like.shape[2]))
    for channel, places, values in zip(y, mask.reshape(len(x), -1), x.reshape(len(x), -1), strict=True):
        channel[places] = values
    return y.reshape(len(x), *like.shape[1:])


def _lrn(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    squares = np.pad(x**2, ((2, 2), (0, 0), (0, 0)))
    total = sum(squares[i : i + len(x)] for i in range(5))
    return x / (1 + 1e-4 / 5 * total) ** 0.75


def _crop(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray, like: np.ndarray) -> np.ndarray:
    n = o["offset"]
    return x[:, n : n + like.shape[1], n : n + like.shape[2]]


def _interp(o: dict[str, Any], blobs: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    for axis in (1, 2):
        side = x.shape[axis]
        at = np.arange((side - 1) * o["zoom"] + 1) / o["zoom"]
        low = np.minimum(at.astype(int), max(side - 2, 0))
        shape = [-1 if a == axis else 1 for a in range(3)]
        part = (at - low).reshape(shape)
        x = x.take(low, axis) * (1 - part) + x.take(np.minimum(low + 1, side - 1), axis) * part
    return x


_LAYERS: dict[str, Any] = {
    "Convolution": _conv,
    "Deconvolution": _deconv,
    "Pooling": _pool,
    "Unpooling": _unpool,
    "LRN": _lrn,
    "Crop": _crop,
    "Interp": _interp,
    "ReLU": lambda o, blobs, x: np.maximum(x, 0),
    "BN": lambda o, blobs, x: x * blobs[0][0] + blobs[1][0],
    "Scale": lambda o, blobs, x: x * blobs[0][:, None, None],
    "Eltwise": lambda o, blobs, *x: sum(x),
}
