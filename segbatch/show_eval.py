"""What a person sees of an evaluation: the tables, and the plot."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segbatch.errors import SpecError, visible, visible_lines

if TYPE_CHECKING:
    from segbatch.metrics.tally import Estimate
    from segbatch.runtime.evaluate import Evaluation

_OVERALL = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "weighted IoU",
    "boundary_f1": "boundary F1",
}
_CLASS = {"class_iou": "IoU", "class_accuracy": "accuracy", "class_boundary_f1": "bound. F1"}
_TRIMAP = {"trimap_mean_iou": "mean IoU", "trimap_pixel_accuracy": "pixel accuracy"}
_WIDTHS = (1, 2, 3, 5, 10, 20, 40)
_PLOTS = ("png", "svg", "pdf")
_COLOURS = ("tab:blue", "tab:orange")


def evaluation(console: Console, found: Evaluation) -> None:
    """Figures in percent: overall with their 95 % intervals, in bands, of each class; then what was not compared."""
    names = _names(found)
    for name, e in zip(names, found.outputs, strict=True):
        run = f"{e.run['model']} ({e.run['weights']}), refiner {e.run['refiner']}"
        _line(console, f"{name}: {e.output}, {run}; {e.images:,} images")
    if found.difference:
        _line(console, f"difference: {names[0]} minus {names[1]}, bold where its 95 % interval leaves out 0")
    overall = _table("%", *names, *(["difference"] if found.difference else []))
    for figure, shown in _OVERALL.items():
        cells = [_interval(e.figures[figure]) for e in found.outputs]
        overall.add_row(shown, *cells, *([_difference(found.difference[figure])] if found.difference else []))
    near = _table("%, around\nboundaries", *_columns(_TRIMAP, names))
    for width in _WIDTHS:
        near.add_row(f"within {width:2} px", *_values(found, _TRIMAP, width - 1))
    classes = _table("%", "share", *_columns(_CLASS, names))
    true = found.outputs[0].confusion.sum(axis=1)
    occurs = sum(e.confusion.sum(axis=0) + e.confusion.sum(axis=1) for e in found.outputs)
    for c in sorted(np.flatnonzero(occurs).tolist(), key=lambda c: -true[c]):
        classes.add_row(
            escape(visible(found.classes[c])), f"{100 * true[c] / true.sum():.2f}", *_values(found, _CLASS, c)
        )
    for table in (overall, near, classes):
        console.print()
        console.print(table)
    for name, e in zip(names, found.outputs, strict=True):
        for kind, finding in e.findings.items():
            _line(console, f"{name}: {kind}: {finding.times:,}, such as" if finding.times > 1 else f"{name}: {kind}:")
            for example in finding.examples:
                _line(console, f"    {example}")


def check_plot(path: Path) -> None:
    """Raises ``SpecError`` if a plot cannot be made: before the work, not after it."""
    if path.suffix.lower().lstrip(".") not in _PLOTS:
        raise SpecError(f"plot: {path}: a plot is {', '.join('.' + p for p in _PLOTS)}; give it one of these endings")
    if importlib.util.find_spec("matplotlib") is None:
        raise SpecError("plot: needs matplotlib, which is not installed; pip install 'segbatch[train]'")


def plot(found: Evaluation, path: Path) -> None:
    """The trimap curves, and the IoU of each class, with their 95 % intervals."""
    from matplotlib.figure import Figure

    names = _names(found)
    shown = np.flatnonzero(sum(e.confusion.sum(axis=0) + e.confusion.sum(axis=1) for e in found.outputs))
    figure = Figure(figsize=(13, max(4.5, 0.28 * len(shown) + 1.5)), layout="constrained")
    iou, accuracy, classes = figure.subplots(1, 3)
    for axes, key in ((iou, "trimap_mean_iou"), (accuracy, "trimap_pixel_accuracy")):
        for name, e, colour in zip(names, found.outputs, _COLOURS, strict=False):
            curve = e.figures[key]
            widths = np.arange(1, len(curve.value) + 1)
            axes.plot(widths, 100 * curve.value, label=name, color=colour)
            axes.fill_between(widths, 100 * curve.low, 100 * curve.high, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="pixels around boundaries", ylabel=f"{_TRIMAP[key]}, %", xlim=(1, len(widths)))
        axes.grid(alpha=0.3)
    iou.legend(loc="lower right")
    order = shown[np.argsort(-np.nan_to_num(found.outputs[0].figures["class_iou"].value[shown]), kind="stable")]
    height = 0.8 / len(names)
    for n, (name, e, colour) in enumerate(zip(names, found.outputs, _COLOURS, strict=False)):
        ious = e.figures["class_iou"]
        at = np.arange(len(order)) + (n - (len(names) - 1) / 2) * height
        value = np.nan_to_num(100 * ious.value[order])
        around = np.stack([value - 100 * ious.low[order], 100 * ious.high[order] - value])
        classes.barh(
            at,
            value,
            height,
            color=colour,
            xerr=np.nan_to_num(around).clip(0),
            error_kw={"elinewidth": 1, "ecolor": "0.3"},
        )
        mean = e.figures["mean_iou"].value * 100
        classes.axvline(mean, color=colour, linestyle="--", linewidth=1, label=f"mean of {name}: {mean:.1f}")
    classes.set(xlabel="IoU, %", xlim=(0, 100), yticks=np.arange(len(order)))
    classes.set_yticklabels([_plain(found.classes[c]) for c in order])
    classes.invert_yaxis()
    classes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _names(found: Evaluation) -> list[str]:
    """A short name for each output: the end of its URI if that tells them apart, else its place."""
    short = [e.output.rstrip("/").rpartition("/")[2] or e.output for e in found.outputs]
    return short if len(set(short)) == len(short) else ["first", "second"]


def _columns(figures: Mapping[str, str], names: list[str]) -> list[str]:
    return [f"{shown}\n{name}" if len(names) > 1 else shown for shown in figures.values() for name in names]


def _values(found: Evaluation, figures: Mapping[str, str], place: int) -> list[str]:
    """One class or band of each figure and output; of two outputs, the first is bold where they surely differ."""
    cells = []
    for figure in figures:
        for n, e in enumerate(found.outputs):
            value = e.figures[figure].value[place]
            cell = "" if np.isnan(value) else f"{100 * value:.2f}"
            d = found.difference[figure] if found.difference else None
            sure = n == 0 and d is not None and (d.low[place] > 0 or d.high[place] < 0)
            cells.append(f"[bold]{cell}[/]" if sure and cell else cell)
    return cells


def _interval(figure: Estimate, form: str = ".1f", sign: str = "") -> str:
    if np.isnan(figure.value):
        return ""
    low, high = (format(100 * float(v), sign + form) for v in (figure.low, figure.high))
    return f"{100 * figure.value:{sign}.2f}" + ("" if np.isnan(figure.low) else f" [dim]({low}, {high})[/]")


def _difference(figure: Estimate) -> str:
    shown = _interval(figure, ".2f", "+")
    return f"[bold]{shown}[/]" if figure.low > 0 or figure.high < 0 else shown


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for n, column in enumerate(columns):
        title = "\n".join(escape(visible(line)) for line in column.split("\n"))
        table.add_column(title, justify="right" if n else "left", overflow="fold")
    return table


def _plain(text: str) -> str:
    """A class name as matplotlib shall show it: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _line(console: Console, text: str) -> None:
    console.print(visible_lines(text), highlight=False, soft_wrap=True, markup=False)


__all__ = ["check_plot", "evaluation", "plot"]
