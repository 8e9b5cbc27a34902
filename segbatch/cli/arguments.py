"""Arguments that several commands take, and what is read from them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from segbatch.config.base import merge, read_config, refuse_blank
from segbatch.labels import LABEL_COLORS, LABEL_SUFFIX, REDUCE_ZERO
from segbatch.text import BLANK, is_blank

Output = Annotated[str, typer.Argument(help="output of a run: a folder or prefix", metavar="OUTPUT")]
MovedInputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[INPUT...]", help="inputs, if they were moved; by default those of the run"),
]
Labels = Annotated[str, typer.Option(help="folder or glob of label images, named like the inputs")]
Ignore = Annotated[list[int], typer.Option(metavar="N", help="label value to ignore; may be repeated")]
ClassMapFile = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="FILE",
        help="YAML or JSON file: label value -> class, or ignore; class -> class that it is merged into",
    ),
]
LabelSuffix = Annotated[str, typer.Option(help=LABEL_SUFFIX)]
LabelColors = Annotated[str | None, typer.Option(help=LABEL_COLORS)]
ReduceZero = Annotated[bool, typer.Option("--reduce-zero-label", help=REDUCE_ZERO)]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster: auto, or host:port of its head; by default RAY_ADDRESS, or else this machine"),
]
StorageOptions = Annotated[
    str | None,
    # --config is the name in earlier versions.
    typer.Option(
        "--storage-options",
        "--config",
        metavar="FILE",
        help="YAML or JSON file with a key storage_options, such as that of run --config or of nightly",
    ),
]
Configs = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="YAML or JSON file of the same settings; may be repeated, a later one takes "
        "precedence; flags take precedence over all",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="print warnings and errors only, and a result if the exit code is not 0")
]


def file_path(given: str) -> Path:
    """Return the path that an option names, which must not be blank."""
    if is_blank(given):
        raise typer.BadParameter(f"got {given!r}; {BLANK}")
    return Path(given)


def read_class_map(uri: str | None) -> dict[Any, Any] | None:
    refuse_blank(map=uri)
    return read_config(uri) if uri is not None else None


def read_storage_options(uri: str | None, output: str) -> dict[str, Any]:
    """Return how a configuration of a job, or of nights, accesses one of its outputs."""
    if uri is None:
        return {}
    plain = read_config(uri)
    if "datasets" not in plain:
        return plain.get("storage_options") or {}
    from segbatch.config.nightly import NightlySpec

    return NightlySpec.create(**plain).storage_options_of(output)


def read_configs(uris: list[str] | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of all files and flags; a later one takes precedence, key by key."""
    return functools.reduce(merge, [*map(read_config, uris or ()), flags], {})
