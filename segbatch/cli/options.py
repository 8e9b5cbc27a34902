"""Turn the fields of a spec into command-line flags: name, default and help are defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

from segbatch.cli.help import help_all
from segbatch.config.base import described, earlier_name, shown_default
from segbatch.config.crf_mapping import CRF_FIELDS
from segbatch.config.job import INPUT_FORMATS, JobSpec
from segbatch.config.training import RECIPE_FIELDS, TrainSpec

# How the help shows numbers.
_METAVARS: dict[Any, str] = {
    int: "N",
    float: "X",
    list[int]: "N",
    tuple[int, int]: "HEIGHT WIDTH",
    tuple[float, float]: "FROM TO",
}
# Numbers are taken as text and converted by ``_as_in_yaml``: the spec checks them, and its messages name the value.
_TEXTS: dict[Any, Any] = {
    int: str,
    float: str,
    list[int]: list[str],
    tuple[int, int]: tuple[str, str],
    tuple[float, float]: tuple[str, str],
}
# The first field of each group in the help.
GROUPS: dict[type[BaseModel], dict[str, str]] = {
    JobSpec: {
        "inputs": "Input",
        "model": "Network",
        "refiner": "Refinement",
        "chunk_size": "Output",
        "address": "Where it runs",
    },
    TrainSpec: {
        "inputs": "Images and labels",
        "model": "Network",
        "epochs": "Batches and augmentation",
        "lr": "Optimization",
        "workers": "Where it runs, and what it keeps",
    },
}


def with_spec_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give ``command(..., fields)`` a flag for every field of JobSpec; ``fields`` receives those that are given.

    ``crf`` is spread into ``--crf-theta-alpha`` and the like. Flags that are not given are absent from
    ``fields``, so that a configuration file, then the default, decides.

    Args:
        without: Fields that have no effect in this command.
    """
    return functools.partial(_with_flags, spec=JobSpec, without=without)


def with_train_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for the fields of TrainSpec."""
    return _with_flags(command, TrainSpec, ())


def _with_flags(command: Callable[..., None], spec: type[BaseModel], without: Collection[str]) -> Callable[..., None]:
    given_by_caller = inspect.signature(command, eval_str=True).parameters.values()
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in given_by_caller if p.name != "fields"]
    fields_of_flags = {**spec.model_fields, **{f"crf_{name}": field for name, field in CRF_FIELDS.items()}}
    numbers = {name for name, field in fields_of_flags.items() if _kind(field.annotation) in _TEXTS}
    flags = {name: flag for name, flag in _flags(spec).items() if name not in without}
    all_options = typer.Option("--help-all", is_eager=True, callback=help_all, help="show all options and exit")

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        del given["help_all"]
        fields: dict[str, Any] = {}
        for name in flags:
            value = given.pop(name)
            if value is None or value == []:
                continue
            if name in numbers:
                value = _as_in_yaml(value)
            if name.startswith("crf_"):
                fields.setdefault("crf", {})[name.removeprefix("crf_")] = value
            else:
                fields[name] = value
        command(**given, fields=fields)

    parameters = [*flags.values(), *own, _parameter("help_all", Annotated[bool, all_options], False)]
    parameters.sort(key=lambda p: p.name != "inputs")
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapped.__wrapped__
    return wrapped


def _as_in_yaml(value: Any) -> Any:
    """Return the value of a flag that takes numbers as YAML would have it: text that is a number as that number."""
    if isinstance(value, list | tuple):
        return [_as_in_yaml(item) for item in value]
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def _flags(spec: type[BaseModel]) -> dict[str, inspect.Parameter]:
    flags: dict[str, inspect.Parameter] = {}
    group = "Input"
    for name, info in spec.model_fields.items():
        group = GROUPS[spec].get(name, group)
        if _is_mapping(info.annotation) and name != "crf":  # given in --config alone
            continue
        if name == "inputs":
            argument = typer.Argument(help=info.description, metavar="INPUT...", rich_help_panel=group)
            flags[name] = _parameter(name, Annotated[list[str] | None, argument])
        elif name == "crf":
            for key, field in CRF_FIELDS.items():
                of_weights = f"those of the weights; DeepLab's {field.default}"
                default = shown_default(field) if key == "engine" else of_weights
                flags[f"crf_{key}"] = _option(f"crf_{key}", field, group, default)
        else:
            default = shown_default(info)
            if spec is TrainSpec and name in RECIPE_FIELDS:
                default = f"{default}; another for some networks".removeprefix("; ")
            flags[name] = _option(name, info, "Output" if name == "output" else group, default)
    return flags


def _option(name: str, info: Any, group: str, default: str) -> inspect.Parameter:
    """Return a flag, whose value the spec checks."""
    flag = "--" + name.replace("_", "-")
    kind = _kind(info.annotation)
    names = [flag, "-o"] if name == "output" else [flag]
    if kind is bool and info.default:
        names = [f"{flag}/--no-{flag[2:]}"]
    if earlier := earlier_name(info):
        names.append("--" + earlier.replace("_", "-"))
    text = described(info, INPUT_FORMATS if name == "format" else (), default)
    option = typer.Option(*names, help=text, rich_help_panel=group, metavar=_METAVARS.get(kind))
    return _parameter(name, Annotated[_TEXTS.get(kind, kind) | None, option])


def _kind(annotation: Any) -> Any:
    """Return the type of the values of a field: without None, and text for choices."""
    inner = [a for a in get_args(annotation) if a is not type(None)] if type(None) in get_args(annotation) else []
    if len(inner) == 1:
        annotation = inner[0]
    return str if get_origin(annotation) is Literal else annotation


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(kind) is dict for kind in (annotation, *get_args(annotation)))


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
