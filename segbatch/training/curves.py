"""The curves of a training: loss, learning rate and validation figures over epochs."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import Any


def can_plot() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def curves(history: Sequence[dict[str, Any]], title: str) -> bytes:
    """A PNG of the lines that ``history.jsonl`` holds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in history]
    marker = "o" if len(history) < 60 else None
    left.plot(epochs, [line["loss"] for line in history], color="tab:blue", marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="training loss", xlim=(0, None))
    left.set_ylim(0, 1.05 * max(line["loss"] for line in history) or None)
    rate = left.twinx()
    rate.plot(epochs, [line["lr"] for line in history], color="0.6", linestyle="--", linewidth=1)
    rate.set_ylabel("learning rate (dashed)", color="0.4")
    rate.set_ylim(0, 1.05 * max(line["lr"] for line in history))
    measured = [line for line in history if line.get("mean_iou") is not None]
    at = [line["epoch"] for line in measured]
    for key, name, color in (
        ("mean_iou", "mean IoU", "tab:orange"),
        ("pixel_accuracy", "pixel accuracy", "tab:green"),
    ):
        right.plot(at, [100 * line[key] for line in measured], label=name, color=color, marker=marker, markersize=3)
    if measured:
        best = max(measured, key=lambda line: line["mean_iou"])
        right.axhline(
            100 * best["mean_iou"],
            color="tab:orange",
            linestyle=":",
            linewidth=1,
            label=f"best {100 * best['mean_iou']:.1f}, epoch {best['epoch']:g}",
        )
        right.legend(loc="best")
    right.set(xlabel="epoch", ylabel="validation, %", xlim=left.get_xlim())
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title.replace("$", r"\$"))
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
