"""What the specs share: made from plain data, from a YAML or JSON file, or from both."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import yaml
from pydantic import BaseModel, ValidationError

from segbatch.contents import recognized
from segbatch.errors import SpecError
from segbatch.storage.uri import as_plain
from segbatch.text import redact, redact_text

S = TypeVar("S", bound=BaseModel)
_LARGEST_CONFIG = 16 * 2**20
_MOST_VALUES = 1_000_000
# Fields whose values no message shows.
_SECRET = ("storage_options", "webhook.url", "webhook.headers")


def read_config(uri: str | Path, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises ``SpecError`` that names the file and the line."""
    try:
        with fsspec.open(as_plain(str(uri)), "rb", **(storage_options or {})) as f:
            data = f.read(_LARGEST_CONFIG + 1)
        if len(data) > _LARGEST_CONFIG:
            raise SpecError(f"{uri}: a configuration of more than {_LARGEST_CONFIG:,} bytes; give the right file")
        if other := recognized(data, {"JSON"}):
            raise SpecError(f"{uri}: not a configuration, but {other}")
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        _check_aliases(root, str(uri))
        loaded = None if root is None else loader.construct_document(root)
    except FileNotFoundError:
        raise SpecError(f"{uri}: no such configuration file") from None
    except yaml.YAMLError as e:
        raise SpecError(f"{uri}: not valid YAML: {_without_snippet(e)}") from None
    except RecursionError:
        raise SpecError(f"{uri}: the configuration nests too deeply; write it flat, as in README.md") from None
    except SpecError:
        raise
    except Exception as e:  # clients of stores have exceptions of their own
        raise SpecError(f"{uri}: cannot read the configuration: {e}") from None
    if not isinstance(loaded, dict):
        raise SpecError(
            f"{uri}: a configuration is a mapping of keys, such as `inputs:`; found {type(loaded).__name__}"
        )
    return loaded


def _without_snippet(error: yaml.YAMLError) -> str:
    """What is wrong, and where; PyYAML's own text quotes the line, which may hold a secret."""
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else str(error)  # type: ignore[attr-defined]


def _check_aliases(root: yaml.Node | None, uri: str) -> None:
    """Refuse YAML whose aliases, written out, would come to very many values, or to no end ("billion laughs")."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node | None) -> int:
        if not isinstance(node, yaml.CollectionNode):
            return 1
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_VALUES + 1  # what it is found to be if it contains itself
            parts = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(root) > _MOST_VALUES:
        raise SpecError(
            f"{uri}: with its aliases (*name) written out, the configuration has more than {_MOST_VALUES:,} values, or "
            "contains itself; write it without aliases, and long lists of inputs as a glob or a manifest"
        )


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` that are not None; ``crf`` is merged key by key."""
    merged = dict(base)
    for key, value in over.items():
        if key == "crf" and isinstance(value, dict):
            merged["crf"] = {**(merged.get("crf") or {}), **value}
        elif value is not None:
            merged[key] = value
    return merged


def public_fields(spec: BaseModel) -> dict[str, Any]:
    """The fields of a spec as plain data without its ``storage_options``, every URI redacted."""

    def public(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: public(item) for key, item in value.items()}
        if isinstance(value, list):
            return [public(item) for item in value]
        return redact(value) if isinstance(value, str) else value

    plain: dict[str, Any] = public(spec.model_dump(mode="json", exclude={"storage_options"}))
    return plain


def parse_spec(kind: type[S], fields: dict[str, Any]) -> S:
    """A spec of the class ``kind``. Raises ``SpecError`` that names the field, the value and the remedy."""
    check_keys(kind, fields)
    try:
        return kind(**fields)
    except ValidationError as e:
        raise SpecError("\n".join(_explain(err) for err in e.errors())) from None


def check_keys(model: type[BaseModel], given: Mapping[str, Any], where: str = "") -> None:
    """Raise ``SpecError`` for a key that is no field of ``model``, or of a model within it, naming the nearest."""
    known = model.model_fields
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {where + near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise SpecError(f"unknown key {where + str(key)!r}; {hint}")
        inner = known[key].annotation
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, BaseModel):
            check_keys(inner, value, f"{where}{key}.")


def _explain(error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{field}: required, and not given"
    given = redact_text(json.dumps(error["input"], default=str))  # before it is cut: half a URI hides its "@"
    if field == "webhook" or field.startswith(_SECRET):
        given = "(hidden)"
    return f"{field}: got {given[:200]}; {error['msg'][0].lower() + error['msg'][1:]}"
