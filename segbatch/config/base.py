"""What the specs share: fields that say what they affect; made from plain data, a YAML or JSON file, or both."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from segbatch.contents import recognized
from segbatch.errors import MissingObject, ObjectTooLarge, SourceError, SpecError, StorageError
from segbatch.text import BLANK, is_blank, redact, redact_text

S = TypeVar("S", bound=BaseModel)
Effect = Literal["rows", "limit", "runtime", "call", "secret"]
_MAX_CONFIG_BYTES = 16 * 2**20
_MAX_VALUES = 1_000_000


def refuse_blank(**arguments: str | Sequence[str] | None) -> None:
    """Raise ``SpecError`` for a path or URI that is blank, naming the argument; None is not given."""
    for name, value in arguments.items():
        if any(map(is_blank, [value] if isinstance(value, str) else value or ())):
            raise SpecError(f"{name}: got {json.dumps(value)}; {BLANK}")


def setting(default: Any, help: str, *, effect: Effect, earlier: str = "", **constraints: Any) -> Any:
    """Define a field of a spec, once for the flag, the YAML key, the keyword and the job's identity.

    Args:
        default: ``...`` for a field that must be given.
        help: A noun phrase, shown by ``--help``.
        effect: What another value affects, and so where the value is kept and whether a resume may change it:
            ``rows``: a mask, or which records there are. In run.json and in the fingerprint; a change is refused.
            ``limit``: which records become error rows. In run.json; a change is a warning.
            ``runtime``: where and how fast a job runs. In run.json; may change.
            ``call``: one invocation. Not stored.
            ``secret``: access. Not stored, not shown in any message.
        earlier: The name of the field in earlier versions, which is still taken.
        constraints: As for ``pydantic.Field``.
    """
    if effect not in get_args(Effect):
        raise TypeError(f"effect is {effect!r}; give one of {', '.join(get_args(Effect))}")
    extra: dict[str, Any] = {"effect": effect, "earlier": earlier}
    return Field(default, description=help, repr=effect != "secret", json_schema_extra=extra, **constraints)


def effect_of(field: FieldInfo) -> Effect | None:
    """The effect of a field made by ``setting``, None for any other field."""
    extra = field.json_schema_extra
    return extra.get("effect") if isinstance(extra, dict) else None  # type: ignore[return-value]


def earlier_name(field: FieldInfo) -> str:
    """The name of a field in earlier versions, "" if it had the same."""
    extra = field.json_schema_extra
    return str(extra.get("earlier", "")) if isinstance(extra, dict) else ""


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of a ``Literal``, or of one that may be None; none for any other type."""
    kinds = (annotation, *get_args(annotation))
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def described(field: FieldInfo, choices: Collection[str] = (), default: str = "") -> str:
    """The description of a field; then, in parentheses, choices that it does not name, and a default."""
    text, choices = str(field.description), choices or choices_of(field.annotation)
    notes = [", ".join(choices)] if choices and not all(choice in text for choice in choices) else []
    notes += [f"default: {default}"] if default else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def shown_default(field: FieldInfo) -> str:
    """The default of a field as text; "" for one that means nothing by itself, such as False or no value."""
    if field.is_required() or not field.default or field.default in (True, "default"):
        return ""
    several = isinstance(field.default, list | tuple)
    return " ".join(map(str, field.default)) if several else str(field.default)


class Spec(BaseModel):
    """Settings of a command. Every field has an effect: a subclass with one that has none raises ``TypeError``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: object, info: ValidationInfo) -> object:
        # An empty variable of a shell would otherwise name the current folder.
        field = cls.model_fields[str(info.field_name)]
        if value != field.default and any(map(is_blank, value if isinstance(value, list) else [value])):
            raise ValueError(BLANK)
        return value

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        undeclared = [name for name, field in cls.model_fields.items() if effect_of(field) is None]
        if undeclared:
            raise TypeError(f"{cls.__name__}: {', '.join(undeclared)} without an effect; define fields by setting(...)")

    @classmethod
    def names(cls, *effects: Effect) -> frozenset[str]:
        """Names of the fields that have one of these effects."""
        return frozenset(name for name, field in cls.model_fields.items() if effect_of(field) in effects)

    def plain(self, *effects: Effect) -> dict[str, Any]:
        """The fields of these effects as JSON data, every URI redacted."""

        def public(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: public(item) for key, item in value.items()}
            if isinstance(value, list):
                return [public(item) for item in value]
            return redact(value) if isinstance(value, str) else value

        fields: dict[str, Any] = public(self.model_dump(mode="json", include=set(self.names(*effects))))
        return fields

    def public(self) -> dict[str, Any]:
        """The spec as it is stored: without what concerns one call, and without secrets."""
        return self.plain("rows", "limit", "runtime")


def read_config(uri: str | Path, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file.

    Raises:
        SpecError: It cannot be read, or is not a mapping; names the file and the line.
    """
    refuse_blank(config=str(uri))
    data = _read_file(str(uri), storage_options)
    if other := recognized(data, {"JSON"}):
        raise SpecError(f"{uri}: not a configuration, but {other}")
    try:
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        _check_aliases(root, str(uri))
        loaded = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date that the calendar does not have
        raise SpecError(f"{uri}: not valid YAML: {_without_snippet(e)}") from None
    except RecursionError:
        raise SpecError(f"{uri}: the configuration nests too deeply; write it flat, as in README.md") from None
    if not isinstance(loaded, dict):
        raise SpecError(
            f"{uri}: a configuration is a mapping of keys, such as `inputs:`; found {type(loaded).__name__}"
        )
    return loaded


def _read_file(uri: str, storage_options: Mapping[str, Any] | None) -> bytes:
    from segbatch.storage.resolve import read_object  # imports fsspec, which no help needs

    try:
        return read_object(uri, storage_options, _MAX_CONFIG_BYTES)
    except MissingObject:
        raise SpecError(f"{uri}: no such configuration file") from None
    except ObjectTooLarge as e:
        raise SpecError(
            f"{uri}: a configuration of {e.size:,} bytes, more than {_MAX_CONFIG_BYTES:,}; give the right file"
        ) from None
    except StorageError as e:
        remedy = "run the same command again when the store answers" if e.transient else "check the path or URI"
        raise SpecError(f"{uri}: the configuration {e.problem}; {remedy}", like=e if e.transient else None) from e
    except SourceError as e:
        raise SpecError(f"{uri}: cannot read the configuration: {e}") from None


def _without_snippet(error: Exception) -> str:
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
            sizes[id(node)] = _MAX_VALUES + 1  # what it is found to be if it contains itself
            parts = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
            sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if size(root) > _MAX_VALUES:
        raise SpecError(
            f"{uri}: with its aliases (*name) written out, the configuration has more than {_MAX_VALUES:,} values, or "
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


def parse_spec(kind: type[S], fields: dict[str, Any]) -> S:
    """A spec of the class ``kind``. Raises ``SpecError`` that names the field, the value and the remedy."""
    earlier = {earlier_name(field): name for name, field in kind.model_fields.items()}
    fields = {earlier.get(name, name): value for name, value in fields.items()}
    check_keys(kind, fields)
    try:
        return kind(**fields)
    except ValidationError as e:
        raise SpecError("\n".join(_explain(kind, err) for err in e.errors())) from None


def spec_of(kind: type[S], spec: S | None, settings: dict[str, Any]) -> S:
    """Return the spec that a call was given: as one object, or as keyword arguments.

    Raises:
        SpecError: Both were given, or the settings are not valid.
    """
    if spec is None:
        return parse_spec(kind, settings)
    if settings:
        raise SpecError(
            f"{', '.join(settings)}: given beside a {kind.__name__}; pass one {kind.__name__}, or settings alone"
        )
    if not isinstance(spec, kind):
        raise SpecError(f"got {type(spec).__name__} where a {kind.__name__} is expected; pass settings by name")
    return spec


def check_keys(model: type[BaseModel], given: Mapping[str, Any], where: str = "") -> None:
    """Raise ``SpecError`` for a key that is no field of ``model``, or of a model within it, naming the nearest."""
    refuse_unknown(given, model.model_fields, where)
    for key, value in given.items():
        inner = model_of(model.model_fields[key])
        if isinstance(value, Mapping) and inner is not None:
            check_keys(inner, value, f"{where}{key}.")


def refuse_unknown(given: Iterable[Any], known: Collection[str], where: str = "") -> None:
    """Raise ``SpecError`` for the first key of ``given`` that is not ``known``, naming the closest match."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {where + near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise SpecError(f"unknown key {where + str(key)!r}; {hint}")


def model_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model whose fields are keys of ``field``, if it is one, or one or None."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _is_secret(kind: type[BaseModel], path: Sequence[Any]) -> bool:
    """Whether what was given at ``path`` is a secret, or stands for a whole mapping that has one."""
    if not path:
        return any(effect_of(field) == "secret" for field in kind.model_fields.values())
    field = kind.model_fields.get(str(path[0]))
    if field is None or effect_of(field) == "secret":
        return field is not None
    inner = model_of(field)
    return inner is not None and _is_secret(inner, path[1:])


def _explain(kind: type[BaseModel], error: Any) -> str:
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{field}: required, and not given"
    given = redact_text(json.dumps(error["input"], default=str))  # before it is cut: half a URI hides its "@"
    if _is_secret(kind, error["loc"]):
        given = "(hidden)"
    message = error["msg"].removeprefix("Value error, ")
    return f"{field}: got {given[:200]}; {message[0].lower() + message[1:]}"
