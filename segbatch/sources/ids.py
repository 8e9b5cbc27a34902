"""Text of values of any plain Arrow type, for ids."""

from __future__ import annotations

import datetime
import math
import zoneinfo
from decimal import Decimal
from typing import Any

import pyarrow as pa

_EPOCH = datetime.datetime(1970, 1, 1)
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def texts(values: pa.Array) -> list[str]:
    """Return the text of each value, ``""`` for null and NaN.

    Text is unchanged (bytes that are not UTF-8, which pyarrow accepts, are escaped). Integers are decimal, floats the
    shortest text that identifies them, without ``.0``; decimals keep their places. UUIDs are hyphenated; other bytes
    are text if they are printable UTF-8, else hex. Times are ISO 8601, with the offset of their zone. Dictionaries are
    decoded.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        return texts(values.dictionary_decode())
    if isinstance(kind, pa.UuidType):
        return ["" if v is None else str(v) for v in values.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return texts(values.storage)
    if is_text(kind):
        raw = values.cast(pa.large_binary()).to_pylist()
        return ["" if v is None else v.decode("utf-8", "backslashreplace") for v in raw]
    if pa.types.is_timestamp(kind):
        return ["" if v is None else _moment(v, kind) for v in values.cast(pa.int64()).to_pylist()]
    if pa.types.is_floating(kind):
        return [_float_text(v) for v in values.to_numpy(zero_copy_only=False)]
    return ["" if v is None else _text(v) for v in values.to_pylist()]


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, the storage of an extension, and any other type unchanged."""
    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def is_id(kind: pa.DataType) -> bool:
    """Whether ``texts`` of values of this type distinguish them."""
    kind = plain(kind)
    return is_text(kind) or is_bytes(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)


def number_text(value: float) -> str:
    """Return a Python float as an id: ``7`` for 7.0, ``""`` for NaN."""
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() and abs(value) < 2**63 else str(value)


def _float_text(value: Any) -> str:
    # The shortest text of NumPy's float16 and float32 is that of their own precision: 0.1, not 0.10000000149.
    number = float(value)
    whole = number.is_integer() and abs(number) < 2**63
    return number_text(number) if whole or math.isnan(number) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return value.hex()
        return text if text.isprintable() else value.hex()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _moment(ticks: int, kind: pa.TimestampType) -> str:
    """Return a timestamp in ISO 8601, with all nine digits of nanoseconds, which Python's datetime cannot hold."""
    seconds, fraction = divmod(ticks, _TICKS[kind.unit])
    nanoseconds = fraction * (10**9 // _TICKS[kind.unit])
    try:
        moment = _EPOCH + datetime.timedelta(seconds=seconds)
        if kind.tz is not None:
            moment = moment.replace(tzinfo=datetime.UTC).astimezone(_zone(kind.tz))
    except OverflowError:  # before the year 1 or after 9999
        return str(ticks)
    text, offset = moment.replace(tzinfo=None).isoformat(), moment.isoformat()[19:]
    if nanoseconds % 1000:
        text += f".{nanoseconds:09}"
    elif nanoseconds:
        text += f".{nanoseconds // 1000:06}"
    return text + offset


def _zone(name: str) -> datetime.tzinfo:
    if name[:1] in ("+", "-"):
        return datetime.datetime.fromisoformat(f"2000-01-01T00:00:00{name}").tzinfo or datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return datetime.UTC
