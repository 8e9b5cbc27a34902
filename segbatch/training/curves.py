"""The curves of a training: loss, learning rate and validation metrics over epochs."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence

from segbatch.training.checkpoint import HistoryLine


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(history: Sequence[HistoryLine], title: str) -> bytes:
    """Return the history as a PNG with two plots: loss and learning rate, and the validation metrics."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line.epoch for line in history]
    style = {"marker": "o" if len(history) < 60 else None, "markersize": 3}
    left.plot(epochs, [line.loss for line in history], color="tab:blue", **style)
    left.set(xlabel="epoch", ylabel="training loss", xlim=(0, None))
    left.set_ylim(0, 1.05 * max(line.loss for line in history) or None)
    rate = left.twinx()
    rate.plot(epochs, [line.lr for line in history], color="0.6", linestyle="--", linewidth=1)
    rate.set_ylabel("learning rate (dashed)", color="0.4")
    rate.set_ylim(0, 1.05 * max(line.lr for line in history))
    measured = [
        (line.epoch, 100 * line.mean_iou, 100 * line.pixel_accuracy)
        for line in history
        if line.mean_iou is not None and line.pixel_accuracy is not None
    ]
    if measured:
        at, iou, accuracy = zip(*measured, strict=True)
        right.plot(at, iou, label="mean IoU", color="tab:orange", **style)
        right.plot(at, accuracy, label="pixel accuracy", color="tab:green", **style)
        best = max(range(len(iou)), key=iou.__getitem__)
        label = f"best {iou[best]:.1f}, epoch {at[best]:g}"
        right.axhline(iou[best], color="tab:orange", linestyle=":", linewidth=1, label=label)
        right.legend(loc="best")
    right.set(xlabel="epoch", ylabel="validation, %", xlim=left.get_xlim())
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title.replace("$", r"\$"))
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
