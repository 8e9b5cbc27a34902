"""Compare size and encoding time of mask PNGs by zlib strategy: ``python benchmarks/masks.py --images photographs/``.

The masks are those of the built-in network, before and after the dense CRF. ``default`` is zlib's search for repeated
strings, ``rle`` its run-length strategy, which ``segbatch.codecs.mask_png`` uses. ``256`` and ``classes`` are entries
of the palette; masks have those of the classes. Level 6; milliseconds on one core.
"""

from __future__ import annotations

import argparse
import io
import time
import zlib
from pathlib import Path

import numpy as np
from crf_inputs import photographs
from PIL import Image

from segbatch import models, refiners
from segbatch.codecs import mask_png as png
from segbatch.crf.params import default_prune
from segbatch.refiners.entry import RefinerRequest
from segbatch.stages.scoring import coarse_scores

STRATEGIES = {"default": zlib.Z_DEFAULT_STRATEGY, "rle": zlib.Z_RLE}


def encode(mask: np.ndarray, palette: bytes | None, strategy: int) -> bytes:
    """A PNG of ``mask`` (H, W): uint8 with ``palette``, or uint16 gray."""
    image, data = Image.fromarray(mask), io.BytesIO()
    if palette is not None:
        image.putpalette(palette)
    image.save(data, "PNG", compress_level=6, compress_type=strategy)
    return data.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, help="folder of photographs (default: photographs of installed packages)"
    )
    parser.add_argument("--limit", type=int, default=24, help="maximum number of photographs")
    parser.add_argument("--weights", default="voc", help="of the built-in network: voc or camvid")
    args = parser.parse_args()
    images = photographs(args.images, None)[: args.limit]
    model = models.build("deeplabv3plus_mobilenet_v2", weights=args.weights, device="cpu", threads=1)
    prune = default_prune(len(model.labels))
    scores = [coarse_scores(model.scores([i])[0], *i.shape[:2], model.stride, prune) for i in images]
    print(f"{len(images)} images, weights {args.weights}")
    for name in ("none", "densecrf"):
        refiner = refiners.build(RefinerRequest(name))
        masks = [refiner.refine(image, s)[0] for image, s in zip(images, scores, strict=True)]
        colors = model.labels.palette()
        palettes = {"256": colors, "classes": colors[: 3 * max(17, len(model.labels))], "none": None}
        for entries, palette in palettes.items():
            bits, dtype = (16, np.uint16) if palette is None else (8, np.uint8)
            for strategy, number in STRATEGIES.items():
                begun = time.process_time()
                files = [encode(mask.astype(dtype), palette, number) for mask in masks]
                seconds = (time.process_time() - begun) / len(files)
                assert all(np.array_equal(png.decode(f), m) for f, m in zip(files, masks, strict=True))
                size = sum(map(len, files)) / len(files)
                kind = f"{bits:2d} bits, palette {entries:<7} {strategy:<8}"
                print(f"refiner {name:<8} {kind} {seconds * 1e3:5.2f} ms {size:7,.0f} bytes")


if __name__ == "__main__":
    main()
