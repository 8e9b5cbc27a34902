"""The ``crf`` mapping of a job: keys, types and help texts are those of the fields of ``crf.CRFSettings``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from segbatch.config.base import refuse_unknown
from segbatch.crf.params import CRFSettings
from segbatch.errors import SpecError

CRFValue = float | int | str


def _crf_fields() -> dict[str, FieldInfo]:
    kinds: dict[str, Any] = get_type_hints(CRFSettings)
    settings = [f for f in fields(CRFSettings) if f.metadata]
    kinds |= {f.name: Literal[f.metadata["choices"]] for f in settings if f.metadata["choices"]}
    return {
        f.name: FieldInfo(annotation=kinds[f.name], default=f.default, description=f.metadata["help"]) for f in settings
    }


CRF_FIELDS = _crf_fields()


def crf_values(given: Mapping[str, Any]) -> dict[str, CRFValue]:
    """Return the parameters that are given, checked and converted to their types; no others.

    Raises:
        SpecError: Names the key, its value and the remedy.
    """
    settings = crf_settings(given)
    return {name: getattr(settings, name) for name in given}


def crf_settings(given: Mapping[str, Any]) -> CRFSettings:
    """Return the parameters that are given, checked and converted to their types, and defaults of the others.

    Raises:
        SpecError: Names the key, its value and the remedy.
    """
    refuse_unknown(given, CRF_FIELDS, "crf.")
    values: dict[str, Any] = {}
    for name, value in given.items():
        kind: Any = CRF_FIELDS[name].annotation
        try:
            values[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError as e:
            message = e.errors()[0]["msg"]
            raise SpecError(f"crf.{name}: got {value!r}; {message[0].lower()}{message[1:]}") from None
    try:
        return CRFSettings(**values)
    except ValueError as e:
        raise SpecError(f"crf.{e}") from None
