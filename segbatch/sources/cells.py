"""Values of a table that may be encoded images: binary, lists of bytes, and base64 text."""

from __future__ import annotations

import base64
import binascii
import re

import numpy as np
import pyarrow as pa

from segbatch.errors import RecordFailure
from segbatch.sources.ids import is_bytes, is_text, plain

_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type are bytes: binary, or lists of integers, but not tensors."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return False
    kind = plain(kind)
    return is_bytes(kind) or (is_list(kind) and pa.types.is_integer(kind.value_type))


def is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def cell_bytes(value: pa.Scalar) -> pa.Buffer:
    """Return the bytes of a value that is not null.

    Raises:
        RecordFailure: BadEncoding: a list of numbers that are not bytes, or text that is not base64.
    """
    while isinstance(value, pa.DictionaryScalar | pa.ExtensionScalar):
        value = value.value
    if is_list(value.type):
        return _from_numbers(value.values)
    data: pa.Buffer = value.as_buffer()
    return _from_base64(data.to_pybytes().decode("utf-8", "replace")) if is_text(value.type) else data


def _from_numbers(values: pa.Array) -> pa.Buffer:
    numbers = np.empty(0, np.uint8) if values.null_count else values.to_numpy(zero_copy_only=False)
    # Spark and Java write bytes from -128 on.
    if values.null_count or (len(numbers) and (numbers.min() < -128 or numbers.max() > 255)):
        raise RecordFailure("read", "BadEncoding", f"a list of {len(values)} numbers that are not all bytes")
    return pa.py_buffer(numbers.astype(np.uint8).tobytes())


def _from_base64(text: str) -> pa.Buffer:
    body = text[prefix.end() :] if (prefix := _DATA_URI.match(text)) else text
    body = "".join(body.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return pa.py_buffer(base64.b64decode(body + "=" * (-len(body) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise RecordFailure("read", "BadEncoding", f"text that is not base64: {text[:40]!r}") from None
