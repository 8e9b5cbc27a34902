"""What both checkouts run: a small corpus in every input format, and the jobs over it.

Not every product: a refiner does not know which network scored, nor a network which format its image came in. So each
network runs with refiner none, each refiner and engine with ``voc``, each format with ``voc`` and ``null``, and the
dense CRF also after networks of stride 1, whose scores take another path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus import encode, photograph, photographs, write_folder, write_manifest, write_parquet, write_tar

Fields = dict[str, Any]

# Random weights by seed. With many another seed a network gives every pixel the same label, which compares nothing.
SEEDS = {
    "fcn32s": 7,
    "fcn8s": 3,
    "segnet": 7,
    "segnet_basic": 7,
    "deconvnet": 7,
    "deeplab_v1": 7,
    "deeplab_v1_largefov": 7,
    "deeplab_v1_msc_largefov": 7,
    "crfasrnn": 3,
    "dpn": 7,
    "deeplabv3_resnet50": 7,
}
REFINERS = ("none", "densecrf", "crfasrnn", "dpn")
# As little as changes a row: one thread, one worker of a kind, no choice left to the machine.
FIXED: Fields = {
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "segment_actors": 1,
    "refine_actors": 1,
    "chunk_size": 8,
    "max_error_fraction": 1.0,
}


def write_corpus(folder: Path) -> None:
    """``every/`` in all formats with damaged records, ``few/`` of three small images, ``large/`` of one photograph."""
    every = folder / "every"
    odd = [(f"odd-{w}x{h}.png", encode(photograph(1, 160)[:h, :w], "PNG")) for h, w in ((1, 7), (97, 33), (40, 160))]
    broken = [("page.jpg", b"<html>gone</html>"), ("cut.png", odd[1][1][:200])]
    write_tar(every / "a.tar", [*photographs(3, side=64), *odd, *broken])
    write_tar(every / "b.tar.gz", photographs(3, "PNG", side=53))
    write_parquet(every / "plain.parquet", photographs(3, "WEBP", side=61))
    write_parquet(every / "hugging-face.parquet", photographs(2, side=48), hugging_face=True)
    write_folder(every / "photos", [*photographs(2, "BMP", side=57), *_modes()])
    write_folder(folder / "listed", photographs(2, "TIFF", side=45))
    write_manifest(every / "list.csv", [str(p) for p in sorted((folder / "listed").iterdir())])
    # Of several classes by the built-in weights, so that refiners have something to move.
    few = [(f"{n}.png", encode(photograph(n, side), "PNG")) for n, side in ((0, 64), (4, 97), (14, 53))]
    write_tar(folder / "few" / "few.tar", few)
    write_folder(folder / "large", [("coffee.jpg", encode(photograph(2, 480)))])


def _modes() -> list[tuple[str, bytes]]:
    """Images that are not RGB of 8 bits."""
    image = Image.fromarray(photograph(0, 48))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    kinds = {"gray": image.convert("L"), "palette": image.quantize(16), "alpha": image.convert("RGBA"), "deep": deep}
    return [(f"{name}.png", encode(kind, "PNG")) for name, kind in kinds.items()]


def cases(corpus: Path) -> dict[str, Fields]:
    """The fields of each job but its output, by name of the case."""
    few, large = str(corpus / "few" / "few.tar"), str(corpus / "large")
    every = [
        str(corpus / "every" / n) for n in ("*.tar*", "plain.parquet", "hugging-face.parquet", "photos", "list.csv")
    ]
    jobs: dict[str, Fields] = {
        "formats-null": {"inputs": every, "model": "null", "refiner": "none"},
        "formats-voc": {"inputs": every, "refiner": "densecrf"},
    }
    for refiner in REFINERS:
        jobs[f"voc-{refiner}"] = {"inputs": [few, large], "weights": "voc", "refiner": refiner}
    for engine in ("torch", "pydensecrf"):
        crf = {"engine": engine, "iterations": 5}
        jobs[f"voc-densecrf-{engine}"] = {"inputs": [few], "weights": "voc", "refiner": "densecrf", "crf": crf}
    for refiner in ("none", "densecrf"):
        jobs[f"camvid-{refiner}"] = {"inputs": [few, large], "weights": "camvid", "refiner": refiner}
    for network, seed in SEEDS.items():
        jobs[f"{network}-none"] = {"inputs": [few], "model": network, "weights": f"random:{seed}", "refiner": "none"}
    for network in ("segnet", "deconvnet"):
        jobs[f"{network}-densecrf"] = {**jobs[f"{network}-none"], "refiner": "densecrf"}
    return {name: {**FIXED, **fields} for name, fields in jobs.items()}
