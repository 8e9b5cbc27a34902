"""Blobs of ``.caffemodel`` files: the messages of Caffe's protobuf that contain weights.

A file is untrusted input. Nothing in it is executed; every length is checked against the available bytes; messages nest
to a fixed depth; memory is bounded by the size of the file, as each returned number was read from its own bytes, and
the number of blobs is limited. Field numbers are those of ``caffe.proto`` (BVLC Caffe), the wire format is the
published encoding of protobuf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from segbatch.errors import ModelError

# NetParameter
_LAYERS_V1, _LAYER = 2, 100
# Of V1LayerParameter and LayerParameter: name, blobs.
_FIELDS = {_LAYERS_V1: (4, 6), _LAYER: (1, 7)}
# BlobProto; its old shape is num, channels, height, width.
_OLD_SHAPE, _DATA, _SHAPE, _DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8
_DIM = 1  # of BlobShape
_MAX_RANK = 8
_MAX_BLOBS = 10_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Value = int | memoryview


class _Damaged(Exception):
    """The file is damaged; the message does not name it."""


def read(data: bytes, source: str) -> dict[str, Tensor]:
    """Return the blobs as float32 tensors, named ``LAYER/INDEX``, in the order of the file.

    Reads both ``layers`` (V1LayerParameter) and ``layer`` (LayerParameter); blobs with a ``shape``, or with num,
    channels, height and width; float data, packed or not, and double data. Layers without blobs are omitted.

    Raises:
        ModelError: The file is damaged, or contains no blobs; names ``source``.
    """
    blobs: dict[str, Tensor] = {}
    try:
        for number, value in _fields(memoryview(data)):
            if number in _FIELDS:
                _read_layer(_message(value, "a layer"), *_FIELDS[number], blobs)
    except _Damaged as e:
        raise ModelError(f"weights {source!r} cannot be read as a .caffemodel: {e}; the file may be cut short") from e
    if not blobs:
        raise ModelError(
            f"weights {source!r} hold no layer with blobs; give the .caffemodel itself, not a .prototxt or .solverstate"
        )
    return blobs


def _read_layer(message: memoryview, name_field: int, blobs_field: int, blobs: dict[str, Tensor]) -> None:
    name, messages = "", []
    for number, value in _fields(message):
        if number == name_field:
            name = str(_message(value, "the name of a layer"), "utf-8", "backslashreplace")
        elif number == blobs_field:
            messages.append(_message(value, "a blob"))
            if len(blobs) + len(messages) > _MAX_BLOBS:
                raise _Damaged(f"there are more than {_MAX_BLOBS} blobs")
    for index, blob in enumerate(messages):
        key = f"{name}/{index}"
        if key in blobs:
            raise _Damaged(f"two layers are called {name!r}")
        blobs[key] = _read_blob(blob, key)


@dataclass
class _Blob:
    """The fields of a BlobProto so far; repeated fields may come in parts."""

    old: dict[int, int] = field(default_factory=dict)
    shape: list[int] | None = None
    singles: bytearray = field(default_factory=bytearray)
    doubles: bytearray = field(default_factory=bytearray)


def _read_blob(message: memoryview, key: str) -> Tensor:
    blob, whole = _Blob(), None
    for number, value in _fields(message):
        if number == _DATA:
            # Caffe writes one part, which needs no copy.
            if whole is None and not blob.singles and isinstance(value, memoryview):
                whole = value
                continue
            if whole is not None:
                blob.singles += whole
                whole = None
            blob.singles += _message(value, f"the data of blob {key!r}")
        elif number == _DOUBLE_DATA:
            blob.doubles += _message(value, f"the data of blob {key!r}")
        elif number == _SHAPE:
            blob.shape = (blob.shape or []) + _dims(_message(value, f"the shape of blob {key!r}"))
        elif number in _OLD_SHAPE:
            if not isinstance(value, int):
                raise _Damaged(f"the shape of blob {key!r} is not a number")
            blob.old[number] = value
    singles = blob.singles if whole is None else whole
    if len(singles) % 4 or len(blob.doubles) % 8:
        raise _Damaged(f"the data of blob {key!r} ends within a number")
    numbers = np.frombuffer(singles, "<f4") if len(singles) else np.frombuffer(blob.doubles, "<f8")
    shape = blob.shape if blob.shape is not None else [blob.old.get(number, 0) for number in _OLD_SHAPE]
    return _shaped(numbers, shape, key)


def _shaped(numbers: np.ndarray, shape: list[int], key: str) -> Tensor:
    # Caffe's dimensions are signed; as varints, negative ones are huge.
    if len(shape) > _MAX_RANK or any(side >= 2**31 for side in shape):
        raise _Damaged(f"blob {key!r} has the shape {tuple(shape)}")
    if math.prod(shape) != len(numbers):
        raise _Damaged(f"blob {key!r} of shape {tuple(shape)} holds {len(numbers)} numbers")
    # A double too large for float32 is infinite, as in Caffe; a NaN stays one.
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def _dims(message: memoryview) -> list[int]:
    dims: list[int] = []
    for number, value in _fields(message):
        if number != _DIM:
            continue
        for dim in [value] if isinstance(value, int) else _varints(value):
            dims.append(dim)
            if len(dims) > _MAX_RANK:
                raise _Damaged(f"a blob has more than {_MAX_RANK} dimensions")
    return dims


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _message(value: Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise _Damaged(f"{what} is a number")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """(number, value) of each field: an int for a varint, else the bytes, of fixed or stated length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise _Damaged("a field has the number 0")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _Damaged(f"a field has the wire type {kind}")
        if length > len(message) - at:
            raise _Damaged(f"{length} bytes are announced where {len(message) - at} are left")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at position ``at``, less than 2**64, and the position after it."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value >= 2**64:
                raise _Damaged("a number has more than 64 bits")
            return value, at + index + 1
    raise _Damaged("a number does not end")
