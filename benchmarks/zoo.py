"""Write the table of networks in README.md: published accuracy, and speed on this CPU.

    python benchmarks/zoo.py            # measure all networks, and write the table again
    python benchmarks/zoo.py --new      # measure only networks that are not in the table

Speed is the median of a few calls of ``scores`` on one photograph of 360 x 480 with random weights, fp32, on all cores
(mean field takes longer for images with more colors). The other columns are computed, or stated by the authors.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from skimage import data
from torch import nn

from segbatch import models
from segbatch.models import ModelInfo
from segbatch.models.zoo.receptive_field import layers_of, receptive_field

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- zoo: written by benchmarks/zoo.py -->\n", "<!-- end of zoo -->"
HEIGHT, WIDTH = 360, 480
_HEAD = ("name", "parameters", "stride", "receptive field", "published mIoU", "CamVid val mIoU, ours")
# Trained by this project from random weights (docs/training.md); not shipped.
_TRAINED = {"segnet_basic": "55.0"}
# Mean IoU in percent; torchvision states its own with its weights.
_PAPERS = {
    "deeplabv3plus_mobilenet_v2": "–",
    "fcn32s": "63.6, VOC seg11valid",
    "fcn16s": "65.0, VOC seg11valid",
    "fcn8s": "65.5, VOC seg11valid",
    "fcn8s_atonce": "65.4, VOC seg11valid",
    "deeplab_v1": "59.8, VOC12 val; 63.7 with CRF",
    "deeplab_v1_largefov": "62.3, VOC12 val; 67.6 with CRF",
    "deeplab_v1_msc_largefov": "64.2, VOC12 val; 68.7 with CRF",
    "segnet": "60.1, CamVid test",
    "segnet_basic": "47.7, CamVid test",
    "deconvnet": "69.6, VOC12 test; 70.5 with CRF",
    "edeconvnet": "71.7, VOC12 test; 72.5 with CRF",
    "crfasrnn": "72.0, VOC12 test",
    "dpn": "74.1, VOC12 test",
    "null": "–",
}
# DeepLab v3+ pools over the image, EDeconvNet has boxes as large as the image, mean field reaches every pixel.
_WHOLE_IMAGE = ("deeplabv3plus_mobilenet_v2", "edeconvnet", "crfasrnn")


def table(text: str) -> dict[str, list[str]]:
    """The cells of each row of the table in ``text``, by the name in the first one."""
    between = text.partition(BEGIN)[2].partition(END)[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in between.splitlines() if line.startswith("|")
    ]
    return {row[0].strip("`"): row for row in rows[2:]}


def row(name: str) -> list[str]:
    """The cells of a network except its speed. Raises ``SystemExit`` for one whose published figure is not known."""
    infos = models.entry(name).infos()
    first = infos[0]
    published = _PAPERS.get(name) or _stated(first)
    if published is None:
        raise SystemExit(f"{name}: state what its paper reports in _PAPERS of {Path(__file__).name}")
    ours = [
        m[1] for info in infos if info.weights == "camvid" and (m := re.search(r"mIoU 0?\.?(\d+\.?\d*)", info.accuracy))
    ]
    camvid = f"{float('0.' + ours[0]) * 100:.1f}" if ours else _TRAINED.get(name, "–")
    size = f"{first.parameters / 1e6:.1f} M" if first.parameters else "–"
    return [f"`{name}`", size, str(first.stride), _receptive_field(name), published, camvid]


def _stated(info: ModelInfo) -> str | None:
    found = re.match(r"mIoU (0\.\d+).* on (.+)", info.accuracy)
    return f"{float(found[1]) * 100:.1f}, {found[2]}" if found else None


def _receptive_field(name: str) -> str:
    """Return the receptive field in pixels along one axis; ``image`` for networks with global pooling."""
    if name in _WHOLE_IMAGE or name == "null":
        return "image" if name in _WHOLE_IMAGE else "–"
    entry = models.entry(name)
    with torch.device("meta"):
        network = entry.network(21)  # type: ignore[attr-defined]
    if any(isinstance(module, nn.AdaptiveAvgPool2d) for module in network.modules()):
        return "image"
    if hasattr(network, "path"):
        size = receptive_field(layers_of(network.path())).size
        return str(min(size, *(entry.geometry.window or (size,))))  # type: ignore[attr-defined]
    if not name.startswith("fcn_resnet"):
        raise SystemExit(
            f"{name}: say in {Path(__file__).name} what its receptive field is, or give the network a path()"
        )
    # The longest path of a residual network, without shortcuts, has the largest receptive field.
    longest = [
        module
        for key, module in network.named_modules()
        if "downsample" not in key and isinstance(module, (nn.Conv2d, nn.MaxPool2d))
    ]
    return str(receptive_field(layers_of(longest)).size)


def speed(name: str, threads: int, least: float = 2.0) -> str:
    """Images per second: the median of at least three calls and ``least`` seconds, after one warm-up call."""
    options = {} if name == "null" else {"weights": "random"}
    model = models.build(name, device="cpu", threads=threads, **options)  # type: ignore[arg-type]
    image = np.array(data.astronaut()[:HEIGHT, :WIDTH])
    model.scores([image])
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < least and len(seconds) < 50):
        begun = time.perf_counter()
        model.scores([image])
        seconds.append(time.perf_counter() - begun)
    rate = 1 / statistics.median(seconds)
    return f"{rate:.2g}" if rate < 100 else "–"


def cpu() -> str:
    """The processor's name, as it states it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def render(rows: list[list[str]], measured_on: str) -> str:
    """Return the Markdown between the two markers. ``rows`` end in their speed."""
    head = [*_HEAD, f"images/s, {measured_on}"]
    lines = [head, ["---"] * len(head), *rows]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    note = (
        f"Stride: input pixels per cell of the scores. Speed: one image of {HEIGHT} × {WIDTH} at a time, in fp32. "
        "Published mIoU: as the authors state it for their own weights."
    )
    return f"{BEGIN}\n{body}\n\n{note}\n{END}"


def replaced(text: str, section: str) -> str:
    """Return ``text`` with the new table."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{README.name} must have the lines {BEGIN.strip()!r} and {END!r} once, in this order")
    before, _, rest = text.partition(BEGIN)
    return before + section + rest.partition(END)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--new", action="store_true", help="measure only networks whose speed is not in the table")
    args = parser.parse_args()
    text = README.read_text()
    there = table(text) if args.new else {}
    threads = os.cpu_count() or 1
    measured_on = f"{threads} cores of {cpu()}"
    if there and f"images/s, {measured_on}" not in text:
        raise SystemExit(f"the speeds in {README.name} were not measured on {measured_on}: run it without --new")
    rows = []
    for name in models.MODELS:
        rate = there[name][-1] if name in there and there[name][-1] != "–" else speed(name, threads)
        rows.append([*row(name), rate])
        print(" | ".join(rows[-1]), flush=True)
    README.write_text(replaced(text, render(rows, measured_on)))


if __name__ == "__main__":
    main()
