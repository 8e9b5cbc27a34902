"""Turn the fields of a spec into command-line flags: name, default and help are defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel

from segbatch.config.crf_mapping import CRF_FIELDS
from segbatch.config.job import INPUT_FORMATS, JobSpec
from segbatch.config.training import RECIPE_FIELDS, TrainSpec

# The first field of each group in the help.
_GROUPS: dict[type[BaseModel], dict[str, str]] = {
    JobSpec: {
        "format": "Input",
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


def with_spec_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command(..., fields)`` a flag for every field of JobSpec; ``fields`` receives those that are given.

    ``crf`` is spread into ``--crf-theta-alpha`` and the like. Flags that are not given are absent from
    ``fields``, so that a configuration file, then the default, decides.
    """
    return _with_flags(command, JobSpec)


def with_train_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same for the fields of TrainSpec."""
    return _with_flags(command, TrainSpec)


def _with_flags(command: Callable[..., None], spec: type[BaseModel]) -> Callable[..., None]:
    given_by_caller = inspect.signature(command, eval_str=True).parameters.values()
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in given_by_caller if p.name != "fields"]
    flags = _flags(spec)

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        fields: dict[str, Any] = {}
        for name in flags:
            value = given.pop(name)
            if value is None or value == []:
                continue
            if name.startswith("crf_"):
                fields.setdefault("crf", {})[name.removeprefix("crf_")] = value
            else:
                fields[name] = value
        command(**given, fields=fields)

    parameters = [*flags.values(), *own]
    parameters.sort(key=lambda p: p.name != "inputs")
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    del wrapped.__wrapped__
    return wrapped


def _flags(spec: type[BaseModel]) -> dict[str, inspect.Parameter]:
    flags: dict[str, inspect.Parameter] = {}
    group = "Output"
    for name, info in spec.model_fields.items():
        group = _GROUPS[spec].get(name, group)
        if _is_mapping(info.annotation) and name != "crf":  # given in --config alone
            continue
        if name == "inputs":
            argument = typer.Argument(help=info.description, show_default=False)
            flags[name] = _parameter(name, Annotated[list[str] | None, argument])
        elif name == "crf":
            for key, field in CRF_FIELDS.items():
                of_weights = f" (default: that of the weights; DeepLab's {field.default})"
                default = _default(field) if key == "engine" else of_weights
                flags[f"crf_{key}"] = _option(f"crf_{key}", field, group, default)
        else:
            default = _default(info)
            if spec is TrainSpec and name in RECIPE_FIELDS:
                default = f"{default[:-1]}; another for some networks)" if default else " (another for some networks)"
            elif info.annotation is bool:
                default = ""
            flags[name] = _option(name, info, "Output" if name == "output" else group, default)
    return flags


def _option(name: str, info: Any, group: str, default: str) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind, metavar = _kind(info.annotation)
    if name == "format":
        metavar = "|".join(INPUT_FORMATS)
    names = (flag, "-o") if name == "output" else (flag,)
    if kind is bool:
        names = (f"{flag}/--no-{flag[2:]}",) if info.default else names
        metavar = None
    option = typer.Option(*names, help=f"{info.description}{default}", rich_help_panel=group, metavar=metavar)
    return _parameter(name, Annotated[kind | None, option])


def _default(info: Any) -> str:
    """Return the default of a flag as its help shows it."""
    if info.is_required() or not info.default:
        return ""
    several = isinstance(info.default, list | tuple)
    return f" (default: {' '.join(map(str, info.default)) if several else info.default})"


def _kind(annotation: Any) -> tuple[type, str | None]:
    """Return the type of a flag, and how its help shows it. The spec checks choices, as it does for YAML."""
    inner = [a for a in get_args(annotation) if a is not type(None)] if type(None) in get_args(annotation) else []
    if len(inner) == 1:
        annotation = inner[0]
    if get_origin(annotation) is Literal:
        return str, "|".join(get_args(annotation))
    return annotation, None


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(kind) is dict for kind in (annotation, *get_args(annotation)))


def _parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
