"""Choice of the image and id columns of a Parquet table, by types, first values and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from segbatch.errors import SourceError
from segbatch.sources.cells import holds_bytes, is_list
from segbatch.sources.fields import Fields, describe, short
from segbatch.sources.first_values import ColumnSample, FirstValues
from segbatch.sources.formats import ReadOptions
from segbatch.sources.ids import is_id, is_text, plain

ID_NAMES = (
    *("image_id", "id", "key", "__key__", "uri", "path", "uuid", "guid", "filename", "file_name", "image_name"),
    "__index_level_0__",  # as pandas calls an index without a name
)
# A column of these names is read even if its values cannot be decoded: each becomes an error row.
_IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "bytes", "image_bytes", "image_data", "data", "content")
# One of several columns of images is chosen by these names, if no other one has a word of _IMAGE_WORDS.
_SAYS_IMAGE = ("image", "img", "picture", "photo", "photograph")
_IMAGE_WORDS = frozenset(
    "image images img imgs jpg jpeg png webp tif tiff bmp photo photos photograph picture pictures pic rgb raw "
    "original orig full frame camera cam left right front rear input source content data bytes file".split()
)
_ADDRESS_WORDS = frozenset("uri url path link href".split())
_NO_IMAGE_WORDS = frozenset(
    "thumb thumbs thumbnail thumbnails preview previews icon mask masks seg segmentation label labels annotation "
    "depth".split()
)
_MAX_SHOWN = 30


class NoImages(SourceError):
    """No column of a table holds images."""


class SeveralColumns(SourceError):
    """Several columns may hold the images, and no option chooses one."""


@dataclass(frozen=True)
class Columns:
    """Paths of the columns to read, ``image.bytes`` for a field of a struct.

    Attributes:
        image: Encoded images.
        path: Text that names an image whose bytes are null. None: there is no such column.
        id: Ids. None: rows are named by their numbers.
    """

    image: str
    path: str | None
    id: str | None


@dataclass(frozen=True)
class ColumnChoice:
    """Columns, and why they were chosen.

    Attributes:
        image: Description of the images, for a plan.
        ids: Description of the ids, for a plan.
        warnings: Columns that look like ids and are not used.
        by_values: Whether types and names alone would have chosen other images, or none.
        has_paths: Whether the images are null, and named by ``columns.path``.
        no_image: Description of the first values if there are some and none is an image, else "".
    """

    columns: Columns
    image: str
    ids: str
    warnings: tuple[str, ...]
    by_values: bool
    has_paths: bool
    no_image: str


def choose(values: FirstValues, options: ReadOptions) -> ColumnChoice:
    """Choose the columns of a table.

    Raises:
        SourceError: ``SeveralColumns``, ``NoImages``, or options that do not fit the table.
    """
    fields = Fields.of(values.schema, options.label_column)
    if options.image_column is not None:
        sample, by_values = _by_option(fields, values, options.image_column), False
    else:
        sample = _by_content(fields, values, options.is_resumed)
        by_values = sample.path != _by_type_and_name(fields)
    path = fields.path_beside(sample.path)
    chosen, ids, warnings = choose_id(fields, options, ID_NAMES, sample.path)
    if chosen is None and path is not None:
        chosen, ids = path, f"column {path}"
    if chosen is None:
        ids = "row numbers, as no column is called " + ", ".join(ID_NAMES) + " (--id-column)"
    columns = Columns(sample.path, path, chosen)
    image = f"column {shown(sample.path)}: {sample.description}"
    no_image = "" if sample.has_images or not sample.lengths else sample.description
    return ColumnChoice(columns, image, ids, warnings, by_values, sample.has_paths, no_image)


def _by_option(fields: Fields, values: FirstValues, name: str) -> ColumnSample:
    """Return the column that the option names. Raises ``SourceError`` if it cannot hold images."""
    fields.refuse_repeated(name, "--image-column")
    kind = fields.kinds.get(name)
    if kind is None:
        message = f"no column {name!r}; the columns are {describe(fields.schema)}; give one as --image-column"
        raise SourceError(message) if fields.images() else NoImages(message)
    paths = fields.images(name)
    preferred = [path for path in paths if path == f"{name}.bytes"]
    paths = preferred or paths
    if len(paths) > 1:
        raise SeveralColumns(f"column {name!r} has several fields: give one as --image-column, {' or '.join(paths)}")
    if paths:
        return values.sample(paths[0], fields.path_beside(paths[0]))
    if is_text(plain(kind)) and (sample := values.sample(name)).has_images:
        return sample
    raise SourceError(f"column {name!r} is {_no_images(kind)}")


def _no_images(kind: pa.DataType) -> str:
    """Describe a type that does not hold image bytes, with the remedy."""
    if is_text(plain(kind)):
        return f"{kind}, not image bytes (if paths or URIs, give it as uri_column)"
    if not is_list(plain(kind)):
        return f"{short(kind)}, not image bytes"
    item = plain(plain(kind).value_type)
    if is_list(item) or pa.types.is_primitive(item):
        return f"{short(kind)}: numbers, not an encoded image (write pixels as PNG or JPEG)"
    return f"{short(kind)}: several values per row (write one row per image)"


def _by_type_and_name(fields: Fields) -> str | None:
    """Return the column that types and names alone identify as the images, or None.

    It is the column of run records that name none. Another choice is recorded, so that no output mixes two.
    """
    paths = {shown(path): path for path in fields.images() if not is_list(plain(fields.kinds[path]))}
    paths = {name: path for name, path in paths.items() if name in fields.schema.names}
    name = next((name for name in _IMAGE_NAMES if name in paths), next(iter(paths)) if len(paths) == 1 else None)
    return None if name is None else paths[name]


def _by_content(fields: Fields, values: FirstValues, is_resumed: bool) -> ColumnSample:
    """Return the only column that holds images. Raises ``SeveralColumns`` or ``NoImages``."""
    try:
        return _choose_by_values(fields, values)
    except SeveralColumns:
        path = _by_type_and_name(fields)
        if path is None or not is_resumed:
            raise
        return values.sample(path, fields.path_beside(path))  # the column of the existing rows


def _choose_by_values(fields: Fields, values: FirstValues) -> ColumnSample:
    typed = [values.sample(path, fields.path_beside(path)) for path in fields.images()]
    encoded = [sample for path in fields.texts() if (sample := values.sample(path)).has_images]
    holding = [s for s in typed if s.has_images or s.has_paths] + encoded
    for name in fields.repeated:
        if (_words(name) & _IMAGE_WORDS or not holding) and any(holds_bytes(f.type) for f in fields.all(name)):
            fields.refuse_repeated(name, "--image-column")
    if len(holding) > 1:
        return _choose_by_name(holding)
    if holding:
        _refuse_thumbnails(fields, holding[0])
        return holding[0]
    possible = [s for s in typed if s.is_empty or (shown(s.path).lower() in _IMAGE_NAMES and not s.is_digest)]
    if len(possible) > 1:
        named = [s for s in possible if shown(s.path).lower() in _IMAGE_NAMES]
        possible = named if len(named) == 1 else possible
    if len(possible) > 1:
        raise SeveralColumns(_several("several columns may hold the images", possible))
    if not possible:
        described = [f"{shown(s.path)}: {s.description}" for s in typed]
        lists = {path: kind for path, kind in fields.kinds.items() if is_list(plain(kind)) and not holds_bytes(kind)}
        described += [f"{path}: {_no_images(kind)}" for path, kind in lists.items()]
        held = f" ({'; '.join(described[:_MAX_SHOWN])})" if described else ""
        raise NoImages(
            f"no column holds encoded images (JPEG, PNG, …, not pixels){held}; "
            f"the columns are {describe(fields.schema)}; "
            "set the option image_column, or uri_column if a column holds paths or URIs of images"
        )
    return possible[0]


def _refuse_thumbnails(fields: Fields, sample: ColumnSample) -> None:
    """Raise ``SeveralColumns`` if the images are called thumbnails or masks, and another column may name the images."""
    column = sample.path.partition(".")[0]
    others = [name for name in fields.schema.names if name != column and _words(name) & (_IMAGE_WORDS | _ADDRESS_WORDS)]
    if others and _words(column) & _NO_IMAGE_WORDS:
        raise SeveralColumns(
            f"the only images are in column {shown(sample.path)} ({sample.description}), and "
            f"{' or '.join(others)} may be meant; give --image-column {shown(sample.path)} if they are, or "
            "--format manifest with --uri-column if another column names the images"
        )


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _choose_by_name(holding: Sequence[ColumnSample]) -> ColumnSample:
    """Return the column whose name says image, unless its images are smaller than those of another column."""
    named = [s for s in holding if _IMAGE_WORDS & _words(shown(s.path))]
    is_said = len(named) == 1 and shown(named[0].path).lower() in _SAYS_IMAGE
    if is_said and all(named[0].is_as_large_as(s) for s in holding):
        return named[0]
    raise SeveralColumns(_several("several columns hold images", holding))


def _several(what: str, samples: Iterable[ColumnSample]) -> str:
    described = ", ".join(f"{shown(s.path)}: {s.description}" for s in samples)
    return f"{what} ({described}); choose one by the option image_column (--image-column)"


def choose_id(
    fields: Fields, options: ReadOptions, names: Sequence[str], image: str
) -> tuple[str | None, str, tuple[str, ...]]:
    """Return (column of the ids or None, its description for a plan, warnings of columns that cannot be used).

    The column that the option names, else the first of ``names`` that exists, in any case of letters.

    Raises:
        SourceError: The named column does not exist, or holds no values that can be ids.
    """
    wanted = options.id_column
    if wanted is not None:
        fields.refuse_repeated(wanted, "--id-column")
        if wanted not in fields.kinds or not is_id(fields.kinds[wanted]):
            raise SourceError(
                f"id_column = {wanted!r} is not a column of text, bytes, numbers or times; "
                f"the columns are {describe(fields.schema)}; set the option id_column"
            )
        return wanted, f"column {wanted} ({short(fields.kinds[wanted])})", ()
    others: list[str] = []
    unfit: list[str] = []
    for name in names:
        for column in sorted({c for c in fields.schema.names if c.lower() == name}, key=lambda c: c != name):
            if column in fields.repeated and not others:
                fields.refuse_repeated(column, "--id-column")
            kind = fields.kinds.get(column)
            if column == image or kind is None:
                continue
            if is_id(kind):
                others.append(column)
            elif not others:
                unfit.append(f"column {column!r} is {short(kind)}, which cannot be an id, and is not used")
    if not others:
        return None, "", tuple(unfit)
    chosen, *others = others
    also = f"; not used: {', '.join(others)} (--id-column)" if others else ""
    return chosen, f"column {chosen} ({short(fields.kinds[chosen])}){also}", tuple(unfit)


def shown(path: str) -> str:
    """Return the name of an image column for messages."""
    return path.removesuffix(".bytes")
