"""The contract of ``Model.scores``, checked on every answer. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segbatch.errors import NetworkError, WrongSize
from segbatch.protocols import Model
from segbatch.records import Scores
from segbatch.text import escape_control_characters

_SAMPLE_IDS = ("sample image 1", "sample image 2")


def checked_scores(model: Model, images: Sequence[np.ndarray], ids: Sequence[str]) -> list[np.ndarray]:
    """The scores of each image, checked: float32 (C, ceil(H/stride), ceil(W/stride)), of any values.

    Raises:
        NetworkError: The answer breaks the contract, which no image can be blamed for. ``WrongSize`` if nothing but
            the size of the scores is wrong.
        Exception: Whatever the network raises.
    """
    if not images:
        return []
    answer: Any = model.scores(images, ids)
    if isinstance(answer, (Mapping, str, bytes)) or not isinstance(answer, Iterable):
        raise NetworkError(
            f"network {model.name}: scores() returned {_kind(answer)} for {len(images)} images; it must return a list "
            "with one array for each image"
        )
    arrays = list(answer)
    if len(arrays) != len(images):
        raise NetworkError(
            f"network {model.name}: scores() returned {len(arrays)} arrays for {len(images)} images; it must return "
            "one for each image, in their order"
        )
    return [_checked(model, *one) for one in zip(arrays, images, ids, strict=True)]


def sample_images() -> list[np.ndarray]:
    """Two small images, uint8 (H, W, 3) of soft gradients, whose unequal sides are multiples of no stride."""
    images = []
    for height, width in ((67, 101), (107, 73)):
        rows, columns = np.meshgrid(np.linspace(64, 192, height), np.linspace(64, 192, width), indexing="ij")
        images.append(np.stack([rows, columns, (rows + columns) / 2], axis=2).astype(np.uint8))
    return images


def sample_scores(image: np.ndarray, num_classes: int, stride: int) -> Scores:
    """Scores of an image in which all classes are equal."""
    height, width = image.shape[:2]
    values = np.zeros((num_classes, -(-height // stride), -(-width // stride)), np.float16)
    return Scores(values, np.arange(num_classes, dtype=np.int16), height, width, stride)


def try_on_samples(model: Model) -> None:
    """Run the network on the sample images.

    Raises as ``checked_scores`` does, and ``ValueError`` for scores that are not finite.
    """
    images = sample_images()
    try:
        answers = checked_scores(model, images, _SAMPLE_IDS)
    except NetworkError:
        raise
    except Exception:  # some take only images of one size together: a job, too, then gives them each image alone
        answers = [checked_scores(model, [i], [k])[0] for i, k in zip(images, _SAMPLE_IDS, strict=True)]
    if not all(np.isfinite(scores).all() for scores in answers):
        raise ValueError("the network's scores of a sample image hold NaN or infinity")


def _checked(model: Model, array: Any, image: np.ndarray, image_id: str) -> np.ndarray:
    height, width = image.shape[:2]
    grid = (-(-height // model.stride), -(-width // model.stride))
    expected = (len(model.labels), *grid)
    fault: type[NetworkError]
    if not isinstance(array, np.ndarray):
        fault, hint = NetworkError, "return numpy arrays; of a torch tensor: tensor.detach().float().cpu().numpy()"
    elif not np.issubdtype(array.dtype, np.floating):
        fault, hint = NetworkError, "return the scores (logits) of each class, not class ids or masks"
    elif array.ndim != 3:
        fault, hint = NetworkError, "return (classes, rows, columns) for each image"
    elif array.shape[1:] != grid:
        fault, hint = WrongSize, "correct the network's stride, or its scores"
    elif len(array) != len(model.labels):
        fault, hint = NetworkError, "give as many class names as the network has channels, background included"
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as such
            return np.asarray(array, np.float32)
    raise fault(
        f"network {model.name}: scores of {escape_control_characters(image_id)} ({height} x {width} pixels): float32 "
        f"{expected} expected, for {len(model.labels)} classes and stride {model.stride} (sides rounded up); got "
        f"{_kind(array)}; "
        f"{hint}"
    )


def _kind(value: Any) -> str:
    """``float32 (3, 6, 9)`` of an array, else the name of the type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__ + (f" {tuple(value.shape)}" if isinstance(getattr(value, "shape", None), tuple) else "")
