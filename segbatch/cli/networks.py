"""Print networks: all of them as a table, one in full."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from segbatch.cli.tables import print_text

if TYPE_CHECKING:
    from segbatch.models import ModelInfo

_CRF = ("w_bilateral", "theta_alpha", "theta_beta", "w_spatial", "theta_gamma")
_FIELDS = (
    "name",
    "weights",
    "summary",
    "source",
    "classes",
    "stride",
    "parameters",
    "accuracy",
    "terms",
    "temperature",
)


def models_as_json(console: Console, infos: Sequence[ModelInfo]) -> None:
    """Print each network with each set of its weights, as README.md describes."""
    plain = [
        {field: getattr(info, field) for field in _FIELDS}
        | {"weights": info.weights or None, "crf": {**info.crf.parameters.to_dict(), "source": info.crf.source}}
        for info in infos
    ]
    console.print_json(data=plain, ensure_ascii=True)


def models(console: Console, infos: Sequence[ModelInfo]) -> None:
    """Print a line for each network and set of weights, the default first."""
    from segbatch import refiners

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("network", "--weights", "classes", "size", "stride", "accuracy"):
        table.add_column(title, justify="right" if title in ("classes", "size", "stride") else "left", no_wrap=True)
    for info in infos:
        size = f"{info.parameters / 1e6:.1f} M" if info.parameters else ""
        accuracy = info.accuracy.split(",")[0]
        table.add_row(info.name, info.weights or "URI", str(len(info.classes)), size, str(info.stride), accuracy)
    console.print(table)
    print_text(console, "\n`segbatch models NAME` prints classes, accuracy, source and terms of one.")
    print_text(console, "--model also takes package.module:factory; --weights, the URI of a file.")
    print_text(console, f"--refiner: {', '.join(refiners.names())}, or package.module:factory.")


def model(console: Console, infos: Sequence[ModelInfo]) -> None:
    """Print one network in full: each set of weights, with the command that uses it."""
    first = infos[0]
    size = f"{first.parameters / 1e6:.1f} M parameters, " if first.parameters else ""
    print_text(console, textwrap.fill(f"{first.name}: {first.summary}", console.width))
    print_text(console, f"{size}scores at stride {first.stride}")
    for info in infos:
        weights = f" --weights {info.weights or 'URI'}" if info is not first or not info.weights else ""
        fields = {
            "weights": info.weights or "URI of a file",
            "classes": f"{len(info.classes)}: {', '.join(info.classes)}",
            "accuracy": info.accuracy,
            "source": info.source,
            "terms": info.terms,
            "temperature": f"{info.temperature:g}" if info.temperature != 1 else "",
            "dense CRF": f"{', '.join(f'{n} {getattr(info.crf.parameters, n):g}' for n in _CRF)} ({info.crf.source})",
            "command": f"segbatch run INPUT... -o OUTPUT --model {info.name}{weights}",
        }
        print_text(console, "")
        for name, value in fields.items():
            if value:
                print_text(console, _hanging(name, value, console.width))


def _hanging(name: str, value: str, width: int) -> str:
    """Return a field on lines of ``width``; a command and a URI stay whole."""
    indent = " " * 13
    if name == "command":
        return f"{name:13}{value}"
    return textwrap.fill(value, width, initial_indent=f"{name:13}", subsequent_indent=indent, break_long_words=False)
