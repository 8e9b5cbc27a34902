"""Arguments that several commands take, and what is read from them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from segbatch.config.base import read_config, refuse_blank
from segbatch.labels import LABEL_COLORS, LABEL_SUFFIX, REDUCE_ZERO

Output = Annotated[str, typer.Argument(help="output of a run: a folder or prefix", show_default=False)]
Limit = Annotated[int, typer.Option(min=0, help="maximum number of rows to show")]
Ignore = Annotated[list[int], typer.Option(help="label value to ignore; may be repeated")]
ClassMapFile = Annotated[
    str | None,
    typer.Option(
        "--map", help="YAML or JSON file: label value -> class, or ignore; class -> class that it is merged into"
    ),
]
LabelSuffix = Annotated[str, typer.Option(help=LABEL_SUFFIX)]
LabelColors = Annotated[str | None, typer.Option(help=LABEL_COLORS)]
ReduceZero = Annotated[bool, typer.Option("--reduce-zero-label", help=REDUCE_ZERO)]
RunConfig = Annotated[
    str | None, typer.Option("--config", help="configuration of the run or of its nights, for the storage_options")
]


def read_class_map(uri: str | None) -> dict[Any, Any] | None:
    refuse_blank(map=uri)
    return read_config(uri) if uri is not None else None


def read_storage_options(config: str | None, output: str) -> dict[str, Any]:
    """Return how a configuration of a job, or of nights, accesses one of its outputs."""
    if config is None:
        return {}
    plain = read_config(config)
    if "datasets" not in plain:
        return plain.get("storage_options") or {}
    from segbatch.config.nightly import NightlySpec

    return NightlySpec.create(**plain).storage_options_of(output)
