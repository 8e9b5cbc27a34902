"""Print an evaluation as tables, and plot it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segbatch.errors import SpecError
from segbatch.text import escape_control_characters, escape_lines

if TYPE_CHECKING:
    from segbatch.evaluation.bootstrap import ConfidenceInterval
    from segbatch.operations.evaluate import Evaluation

_OVERALL = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "weighted IoU",
    "boundary_f1": "boundary F1",
}
_CALIBRATION = {
    "mean_confidence": "confidence",
    "confidence_gap": "|conf. - acc.|",
    "expected_calibration_error": "ECE, 15 bins",
    "spearman": "Spearman",
}
_NO_SHARES = ("spearman",)  # not shown in percent
_RELIABILITY = {
    "reliability_share": "pixels",
    "reliability_confidence": "confidence",
    "reliability_accuracy": "accuracy",
}
_CLASS = {"class_iou": "IoU", "class_accuracy": "accuracy", "class_boundary_f1": "bound. F1"}
_TRIMAP = {"trimap_mean_iou": "mean IoU", "trimap_pixel_accuracy": "pixel accuracy"}
_WIDTHS = (1, 2, 3, 5, 10, 20, 40)
_PLOTS = ("png", "svg", "pdf")
_COLORS = ("tab:blue", "tab:orange")


def evaluation(console: Console, found: Evaluation) -> None:
    """Print all metrics in percent with 95 % confidence intervals, then what was not compared."""
    names = _names(found)
    for name, e in zip(names, found.outputs, strict=True):
        run = f"{e.run['model']} ({e.run['weights']}), refiner {e.run['refiner']}"
        _line(console, f"{name}: {e.output}, {run}; {e.images:,} images")
    if found.difference:
        _line(console, f"difference: {names[0]} minus {names[1]}, bold where its 95 % interval excludes 0")
    overall = _overall(found, names, "%", _OVERALL)
    calibrated = _overall(found, names, "%, regions", _CALIBRATION)
    bins = _table("%, regions of\nconfidence", *_columns(_RELIABILITY, names))
    shares = sum(np.nan_to_num(e.metrics["reliability_share"].value) for e in found.outputs)
    for place in np.flatnonzero(shares).tolist():
        low, high = (100 * edge / len(shares) for edge in (place, place + 1))
        bins.add_row(f"{low:.1f} to {high:.1f}", *_values(found, _RELIABILITY, place))
    near = _table("%, around\nboundaries", *_columns(_TRIMAP, names))
    for width in _WIDTHS:
        near.add_row(f"within {width:2} px", *_values(found, _TRIMAP, width - 1))
    classes = _table("%", "share", *_columns(_CLASS, names))
    true = found.outputs[0].confusion.sum(axis=1)
    occurs = sum(e.confusion.sum(axis=0) + e.confusion.sum(axis=1) for e in found.outputs)
    for c in sorted(np.flatnonzero(occurs).tolist(), key=lambda c: -true[c]):
        classes.add_row(
            escape(escape_control_characters(found.classes[c])),
            f"{100 * true[c] / true.sum():.2f}",
            *_values(found, _CLASS, c),
        )
    for table in (overall, calibrated, near, classes, bins):
        console.print()
        console.print(table)
    _line(console, "\nregion: all pixels of a class in an image, with one confidence; counts by its labeled pixels")
    _line(console, "Spearman: rank correlation of the images' confidence and their pixel accuracy, -1 to 1")
    for name, e in zip(names, found.outputs, strict=True):
        for kind, finding in e.findings.items():
            _line(console, f"{name}: {kind}: {finding.times:,}, such as" if finding.times > 1 else f"{name}: {kind}:")
            for example in finding.examples:
                _line(console, f"    {example}")


def _overall(found: Evaluation, names: list[str], title: str, metrics: Mapping[str, str]) -> Table:
    """Build a table with one row per metric: value and interval in each output, and their difference."""
    table = _table(title, *names, *(["difference"] if found.difference else []))
    for metric, shown in metrics.items():
        scale, form = (1, ".2f") if metric in _NO_SHARES else (100, ".1f")
        cells = [_interval(e.metrics[metric], form, scale=scale) for e in found.outputs]
        difference = [_difference(found.difference[metric], scale)] if found.difference else []
        table.add_row(shown, *cells, *difference)
    return table


def check_plot(path: Path) -> None:
    """Raise ``SpecError`` if a plot cannot be written, before the evaluation starts."""
    if path.suffix.lower().lstrip(".") not in _PLOTS:
        raise SpecError(f"plot: {path}: a plot is {', '.join('.' + p for p in _PLOTS)}; give it one of these endings")
    if importlib.util.find_spec("matplotlib") is None:
        raise SpecError("plot: needs matplotlib, which is not installed; pip install matplotlib")


def plot(found: Evaluation, path: Path) -> None:
    """Plot the trimap curves, the IoU of each class and the reliability diagram, with 95 % confidence intervals."""
    from matplotlib.figure import Figure

    names = _names(found)
    shown = np.flatnonzero(sum(e.confusion.sum(axis=0) + e.confusion.sum(axis=1) for e in found.outputs))
    figure = Figure(figsize=(17, max(4.5, 0.28 * len(shown) + 1.5)), layout="constrained")
    iou, accuracy, classes, reliability = figure.subplots(1, 4)
    for axes, key in ((iou, "trimap_mean_iou"), (accuracy, "trimap_pixel_accuracy")):
        for name, e, color in zip(names, found.outputs, _COLORS, strict=False):
            curve = e.metrics[key]
            widths = np.arange(1, len(curve.value) + 1)
            axes.plot(widths, 100 * curve.value, label=name, color=color)
            axes.fill_between(widths, 100 * curve.low, 100 * curve.high, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel="pixels around boundaries", ylabel=f"{_TRIMAP[key]}, %", xlim=(1, len(widths)))
        axes.grid(alpha=0.3)
    iou.legend(loc="lower right")
    order = shown[np.argsort(-np.nan_to_num(found.outputs[0].metrics["class_iou"].value[shown]), kind="stable")]
    height = 0.8 / len(names)
    for n, (name, e, color) in enumerate(zip(names, found.outputs, _COLORS, strict=False)):
        ious = e.metrics["class_iou"]
        at = np.arange(len(order)) + (n - (len(names) - 1) / 2) * height
        value = np.nan_to_num(100 * ious.value[order])
        around = np.stack([value - 100 * ious.low[order], 100 * ious.high[order] - value])
        classes.barh(
            at,
            value,
            height,
            color=color,
            xerr=np.nan_to_num(around).clip(0),
            error_kw={"elinewidth": 1, "ecolor": "0.3"},
        )
        mean = e.metrics["mean_iou"].value * 100
        classes.axvline(mean, color=color, linestyle="--", linewidth=1, label=f"mean of {name}: {mean:.1f}")
    classes.set(xlabel="IoU, %", xlim=(0, 100), yticks=np.arange(len(order)))
    classes.set_yticklabels([_plain(found.classes[c]) for c in order])
    classes.invert_yaxis()
    classes.legend(loc="lower right")
    reliability.plot([0, 100], [0, 100], color="0.6", linestyle="--", linewidth=1)
    for name, e, color in zip(names, found.outputs, _COLORS, strict=False):
        confidence, right = e.metrics["reliability_confidence"].value, e.metrics["reliability_accuracy"]
        error = np.nan_to_num(100 * np.stack([right.value - right.low, right.high - right.value])).clip(0)
        reliability.errorbar(
            100 * confidence, 100 * right.value, yerr=error, label=name, color=color, marker="o", markersize=4
        )
    reliability.set(xlabel="mean confidence of regions, %", ylabel="their accuracy, %", xlim=(0, 100), ylim=(0, 100))
    reliability.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def _names(found: Evaluation) -> list[str]:
    """Return a short name for each output: the end of its URI where these differ, else first and second."""
    short = [e.output.rstrip("/").rpartition("/")[2] or e.output for e in found.outputs]
    return short if len(set(short)) == len(short) else ["first", "second"]


def _columns(metrics: Mapping[str, str], names: list[str]) -> list[str]:
    return [f"{shown}\n{name}" if len(names) > 1 else shown for shown in metrics.values() for name in names]


def _values(found: Evaluation, metrics: Mapping[str, str], place: int) -> list[str]:
    """Return the cells of one class or trimap; the first of two outputs is bold where the interval excludes 0."""
    cells = []
    for metric in metrics:
        for n, e in enumerate(found.outputs):
            value = e.metrics[metric].value[place]
            cell = "" if np.isnan(value) else f"{100 * value:.2f}"
            d = found.difference[metric] if found.difference else None
            sure = n == 0 and d is not None and (d.low[place] > 0 or d.high[place] < 0)
            cells.append(f"[bold]{cell}[/]" if sure and cell else cell)
    return cells


def _interval(metric: ConfidenceInterval, form: str, sign: str = "", scale: int = 100) -> str:
    if np.isnan(metric.value):
        return ""
    low, high = (format(scale * float(v), sign + form) for v in (metric.low, metric.high))
    return f"{scale * metric.value:{sign}.2f}" + ("" if np.isnan(metric.low) else f" [dim]({low}, {high})[/]")


def _difference(metric: ConfidenceInterval, scale: int) -> str:
    shown = _interval(metric, ".2f", "+", scale)
    return f"[bold]{shown}[/]" if metric.low > 0 or metric.high < 0 else shown


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for n, column in enumerate(columns):
        title = "\n".join(escape(escape_control_characters(line)) for line in column.split("\n"))
        table.add_column(title, justify="right" if n else "left", overflow="fold")
    return table


def _plain(text: str) -> str:
    """Escape a class name for matplotlib, where a dollar sign starts a formula."""
    return text.replace("$", r"\$")


def _line(console: Console, text: str) -> None:
    console.print(escape_lines(text), highlight=False, soft_wrap=True, markup=False)


__all__ = ["check_plot", "evaluation", "plot"]
