"""Parse class lists as tools write them: text, JSON, YAML, tables with or without a header, color maps."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from segbatch.contents import FIRST_BYTES, recognized
from segbatch.errors import SpecError
from segbatch.labels import LabelSet

FORMS = (
    "one name per line; a JSON list of names or of objects with name, id and color; a table with the columns name,r,g,b"
)
# Columns and keys, in lower case without spaces and underscores, in order of preference.
_NAME_KEYS = ("name", "classname", "class", "label", "labelname", "title", "category", "categoryname")
_ID_KEYS = ("id", "classid", "index", "idx", "labelid", "categoryid", "value", "classvalue", "labelvalue", "pixelvalue")
_COLOR_KEYS = ("color", "colour", "rgb", "colorrgb", "palette")
_KEYS = (*_NAME_KEYS, *_ID_KEYS, *_COLOR_KEYS, "classes", "labels", "names", "classnames", "labelnames")
_LISTS = ("classes", "names", "categories", "labels", "id2label", "label2id")
_RGB = (("r", "red"), ("g", "green"), ("b", "blue"))
_NUMBERED = re.compile(r"(\d+)(?:\s*[:,;=\t]\s*|\s+)(\S.*)")
_COLORED = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,:]+(\S.*)")
_CVAT = re.compile(r"([^:]+):(\d{1,3}),(\d{1,3}),(\d{1,3}):[^:]*:[^:]*")
_NAMED_COLOR = re.compile(r"(.+?)[,;\t]\s*(\d{1,3})[,;\t ]\s*(\d{1,3})[,;\t ]\s*(\d{1,3})")
_HEX = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_SEPARATORS = "\t,;|"
_COMMENT = re.compile(r"\s*#(?:\s|$)")  # CVAT's labelmap.txt begins with one
_YAML = re.compile(rf"^(?:{'|'.join(_LISTS)}|nc)\s*:(?:\s|$)", re.MULTILINE)
_PBTXT = re.compile(r"\s*item\s*\{")


@dataclass(frozen=True)
class ClassList:
    """Class names in order of their ids, and their colors (R, G, B); None if the file has no colors."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] | None

    def label_set(self) -> LabelSet:
        """Return a label set, with the colors of PASCAL VOC if there are none. Raises ``SpecError``."""
        return LabelSet.of(self.names, self.colors)


@dataclass(frozen=True)
class _Item:
    """One entry of a list: its name, and its id and color if it has them."""

    name: str
    id: object = None
    color: object = None


def parse_class_list(text: str, uri: str, *, needs_ids: bool = True) -> ClassList:
    """Return the classes in a file, whose form is recognized.

    Supported forms: one name per line; ``id name``, ``name,r,g,b`` or ``r g b name`` per line; tables with a header,
    such as class_dict.csv; labelmap.txt of CVAT, labels.txt of labelme; JSON and YAML lists of names or objects, or
    mappings from id to name, also under classes, names (YOLO), categories (COCO), labels (Mapillary) and id2label
    (Hugging Face). A header is never a class.

    Args:
        text: Content of the file.
        uri: Of the file, for messages.
        needs_ids: Whether ids, if there are any, must be 0 to n - 1; class i is the entry with id i.

    Raises:
        SpecError: The form is not recognized, or an entry is invalid; names the file and the entry.
    """
    other = (
        "a label map of TensorFlow (.pbtxt)" if _PBTXT.match(text) else recognized(text[:FIRST_BYTES].encode(), "JSON")
    )
    if other:
        raise SpecError(f"classes {uri!r}: the file is {other}; write {FORMS}")
    try:
        items = _items(text)
    except (ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError, csv.Error) as e:
        raise SpecError(f"classes {uri!r}: cannot read class names ({_reason(e)}); write {FORMS}") from e
    try:
        return _ordered(items, uri, needs_ids)
    except ValueError as e:
        raise SpecError(f"classes {uri!r}: {e}") from e


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _ordered(items: Sequence[_Item], uri: str, needs_ids: bool) -> ClassList:
    numbered = [item for item in items if item.id is not None]
    if numbered and len(numbered) < len(items):
        unnumbered = next(item.name for item in items if item.id is None)
        raise ValueError(
            f"{len(numbered)} of {len(items)} classes have an id, {unnumbered!r} has none; give all or none"
        )
    if numbered and needs_ids:
        by_id: dict[int, _Item] = {}
        for item in items:
            number = _whole(item.id, f"the id of {item.name!r}")
            if number in by_id:
                raise ValueError(f"{by_id[number].name!r} and {item.name!r} have the same id {number}")
            by_id[number] = item
        wrong = sorted(set(by_id) - set(range(len(items))))
        if wrong:
            raise ValueError(
                f"ids must be 0 to {len(items) - 1}, one for each of {len(items)} classes; {by_id[wrong[0]].name!r} "
                f"has the id {wrong[0]}. Class ids are the channels of the network: renumber, or name all channels"
            )
        items = [by_id[i] for i in range(len(items))]
    colors = [_color(item) for item in items if item.color is not None]
    if colors and len(colors) < len(items):
        uncolored = next(item.name for item in items if item.color is None)
        raise ValueError(
            f"{len(colors)} of {len(items)} classes have a color, {uncolored!r} has none; give all or none"
        )
    return ClassList(tuple(item.name for item in items), tuple(colors) or None)


def _whole(value: object, what: str) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"-?\d+(?:\.0+)?", str(value).strip()):
        raise ValueError(f"{what} is {value!r}, not an integer")
    return int(float(str(value)))


def _color(item: _Item) -> tuple[int, int, int]:
    value = item.color
    if isinstance(value, str):
        match = _HEX.fullmatch(value.strip())
        value = [int(part, 16) for part in match.groups()] if match else re.findall(r"[^\s,;()\[\]]+", value)
    if isinstance(value, Sequence) and len(value) == 4 and not isinstance(value, str):
        value = value[:3]  # RGBA
    try:
        red, green, blue = (_whole(v, "a component") for v in value)  # type: ignore[attr-defined]
        if not all(0 <= v <= 255 for v in (red, green, blue)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"the color of {item.name!r} is {item.color!r}; a color is three integers from 0 to 255: red, green, blue"
        ) from None
    return red, green, blue


def _items(text: str) -> list[_Item]:
    if text.lstrip().startswith(("[", "{")):
        return _of_plain(_json(text))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _COMMENT.match(line)]
    if _YAML.search(text) or (lines and all(line.startswith("- ") for line in lines)):
        return _of_plain(yaml.safe_load(text))
    return _of_lines(lines)


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once)


def _of_plain(loaded: Any) -> list[_Item]:
    """Return the items of a list or mapping, or of the one that a known tool writes under a key."""
    if isinstance(loaded, Mapping):
        held = [key for key in _LISTS if isinstance(loaded.get(key), list | Mapping)]
        if held:
            return _of_plain(loaded[held[0]])
        if all(re.fullmatch(r"-?\d+", str(key)) for key in loaded):
            return [_numbered(value, key) for key, value in loaded.items()]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in loaded.values()):
            return [_Item(str(name), number) for name, number in loaded.items()]
        if all(isinstance(value, list | str) for value in loaded.values()) and loaded:
            return [_Item(str(name), None, color) for name, color in loaded.items()]
        raise ValueError(f"a mapping with the keys {', '.join(map(str, list(loaded)[:5]))} is not a list of classes")
    if not isinstance(loaded, list):
        raise ValueError(f"{type(loaded).__name__} is not a list of classes")
    return [_of_entry(entry) for entry in loaded]


def _numbered(value: Any, number: object) -> _Item:
    item = _of_entry(value)
    return _Item(item.name, number, item.color)


def _of_entry(entry: Any) -> _Item:
    if not isinstance(entry, Mapping):
        if isinstance(entry, list | bool) or entry is None:
            raise ValueError(f"{entry!r} is not the name of a class")
        return _Item(str(entry))
    keys = {_key(key): key for key in entry}
    name, number, color = (next((keys[k] for k in ks if k in keys), None) for ks in (_NAME_KEYS, _ID_KEYS, _COLOR_KEYS))
    if name is None:
        raise ValueError(f"an entry without a name: {entry!r}")
    return _Item(str(entry[name]), None if number is None else entry[number], None if color is None else entry[color])


def _key(name: object) -> str:
    return re.sub(r"[\s_-]", "", str(name)).lower()


def _of_lines(lines: Sequence[str]) -> list[_Item]:
    if not lines:
        return []
    table = _table(lines)
    if table is not None:
        return table
    for pattern, item in _LINES:
        matches = [pattern.fullmatch(line) for line in lines]
        if len(lines) > 2 and matches[0] is None and all(matches[1:]):
            if not any(_key(word) in _KEYS for word in re.split(r"[\s,;:]+", lines[0])):
                raise ValueError(
                    f"the first line, {lines[0]!r}, has another form than all other lines, such as {lines[1]!r}"
                )
            matches = matches[1:]  # a header
        if all(matches):
            return [item(match) for match in matches if match]
    if _key(lines[0].rstrip(":")) in _KEYS:
        lines = lines[1:]  # a column of names with its header
    if lines[:2] == ["__ignore__", "_background_"]:
        lines = lines[1:]  # labelme: the id of the first is -1
    for separator in _SEPARATORS:
        fields = {len(line.split(separator)) for line in lines}
        if len(lines) > 1 and len(fields) == 1 and fields.pop() > 1:
            raise ValueError(f"a table without a header; its first line is {lines[0]!r}")
    return [_Item(line) for line in lines]


def _table(lines: Sequence[str]) -> list[_Item] | None:
    """Return the rows of a table whose header has a column of names and others; None for any other text."""
    separator = next((s for s in _SEPARATORS if s in lines[0]), None)
    if separator is None:
        return None
    columns = [_key(column) for column in next(csv.reader([lines[0]], delimiter=separator))]
    name = next((columns.index(k) for k in _NAME_KEYS if k in columns), None)
    number = next((columns.index(k) for k in _ID_KEYS if k in columns), None)
    color = next((columns.index(k) for k in _COLOR_KEYS if k in columns), None)
    parts = [next((columns.index(k) for k in keys if k in columns), None) for keys in _RGB]
    if name is None or len(columns) < 2:
        return None
    items = []
    for row in csv.reader(lines[1:], delimiter=separator, skipinitialspace=True):
        if len(row) != len(columns):
            raise ValueError(f"the header has {len(columns)} columns, and {separator.join(row)!r} has {len(row)}")
        rgb = [row[p] for p in parts if p is not None]
        given = rgb if len(rgb) == 3 else None if color is None else row[color]
        items.append(_Item(row[name].strip(), None if number is None else row[number], given))
    return items


# The pattern of a line of each form, and the item of its parts.
_LINES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], _Item]], ...] = (
    (_CVAT, lambda m: _Item(m[1].strip(), None, m.groups()[1:])),
    (_COLORED, lambda m: _Item(m[4].strip(), None, m.groups()[:3])),
    (_NAMED_COLOR, lambda m: _Item(m[1].strip(), None, m.groups()[1:])),
    (_NUMBERED, lambda m: _Item(m[2].strip(), m[1])),
)
