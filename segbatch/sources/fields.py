"""Columns of a table's schema and fields of its structs, by path."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from segbatch.errors import SourceError
from segbatch.sources.cells import holds_bytes
from segbatch.sources.ids import is_text, plain

_MAX_SHOWN = 30
_MAX_TYPE = 60


@dataclass(frozen=True)
class Fields:
    """Columns of a schema and fields of its structs.

    Attributes:
        kinds: Types by path, without columns that share a name.
        repeated: Names that several columns share.
    """

    schema: pa.Schema
    kinds: dict[str, pa.DataType] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()

    @staticmethod
    def of(schema: pa.Schema, but: str | None = None) -> Fields:
        kinds: dict[str, pa.DataType] = {}
        repeated = frozenset(name for name, count in Counter(schema.names).items() if count > 1)

        def add(path: str, kind: pa.DataType) -> None:
            if path == but:
                return
            kinds[path] = kind
            for inner in kind if pa.types.is_struct(kind) else ():
                add(f"{path}.{inner.name}", inner.type)

        for column in schema:
            if column.name not in repeated:
                add(column.name, column.type)
        return Fields(schema, kinds, repeated)

    def refuse_repeated(self, name: str, option: str) -> None:
        if name in self.repeated:
            count = self.schema.names.count(name)
            raise SourceError(
                f"{count} columns are called {name!r}, so that none of them can be read; rename them, or choose "
                f"another one by {option}; the columns are {describe(self.schema)}"
            )

    def all(self, name: str) -> list[pa.Field]:
        """Return all columns of a name, with the fields of their structs."""
        columns = [column for column in self.schema if column.name == name]
        return columns + [inner for c in columns if pa.types.is_struct(c.type) for inner in c.type]

    def path_beside(self, image: str) -> str | None:
        """Return the path of the text that names the image if its bytes, the struct field ``image``, are null."""
        parent, _, name = image.rpartition(".")
        path = f"{parent}.path"
        return path if name == "bytes" and path in self.kinds and is_text(plain(self.kinds[path])) else None

    def images(self, below: str | None = None) -> list[str]:
        """Return the paths whose type can hold images, of one column or of all."""
        return [
            path
            for path, kind in self.kinds.items()
            if (below is None or path == below or path.startswith(f"{below}."))
            # A writer that saw no bytes at all has given them the type null.
            and (holds_bytes(kind) or (pa.types.is_null(kind) and self.path_beside(path) is not None))
        ]

    def texts(self) -> list[str]:
        return [path for path, kind in self.kinds.items() if is_text(plain(kind))]


def describe(schema: pa.Schema) -> str:
    """Return ``image (binary), label (int64)`` for messages."""
    listed = [f"{f.name} ({short(f.type)})" for f in schema][:_MAX_SHOWN]
    return ", ".join(listed) + (", …" if len(schema) > _MAX_SHOWN else "") or "none"


def short(kind: pa.DataType) -> str:
    """Return a type in at most 60 characters."""
    return str(kind)[:_MAX_TYPE]
