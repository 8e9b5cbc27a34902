"""What segbatch stores as JSON: records with a format version, which later versions of segbatch read."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from segbatch.errors import JobError
from segbatch.skipped import Skipped

# 1.1: the palettes of masks have the entries of the classes, not 256.
FORMAT_VERSION = "1.1"
VERSION_KEY = "format_version"

StoredSkipped = Annotated[
    Skipped,
    BeforeValidator(lambda value: value if isinstance(value, Skipped) else Skipped.from_json(value)),
    PlainSerializer(Skipped.to_json),
]


class NewerFormat(JobError):
    """A record has a newer major format version than this version of segbatch reads."""

    kind = "output"


def check_version(version: object, where: str, written_by: str = "") -> None:
    """Raise ``NewerFormat`` for a newer major version than that of ``FORMAT_VERSION``.

    Args:
        version: ``"MAJOR.MINOR"``, or None for what was written before versions were: this is major 1.
        where: The file, for the message.
        written_by: Version of segbatch that wrote it, if that is known.

    Raises:
        ValueError: ``version`` is neither.
    """
    if version is not None and int(str(version).partition(".")[0]) > int(FORMAT_VERSION.partition(".")[0]):
        raise NewerFormat(
            f"{where}: written by segbatch {written_by or '(a later version)'} in format {version}, this version reads "
            f"{FORMAT_VERSION}; upgrade segbatch"
        )


class StoredRecord(BaseModel):
    """Base of the records that are stored as JSON. Unknown keys, which a later minor version writes, are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def parse(cls, data: bytes | dict[str, Any], where: str) -> Self:
        """Read a record from JSON text, or from plain data.

        Args:
            data: The content.
            where: The file, for messages.

        Raises:
            NewerFormat: It has a newer major format version.
            ValueError: It is not such a record.
        """
        plain = data if isinstance(data, dict) else json.loads(data)
        if not isinstance(plain, dict):
            raise ValueError("it is not a mapping")
        versions = plain.get("versions")
        written_by = versions.get("segbatch", "") if isinstance(versions, dict) else ""
        check_version(plain.get(VERSION_KEY), where, written_by)
        try:
            return cls.model_validate(plain)
        except ValidationError as e:
            first = e.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data, with its format version."""
        return {VERSION_KEY: FORMAT_VERSION, **self.model_dump(mode="json")}
