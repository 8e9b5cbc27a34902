"""Checks of what ``Model.scores`` returns, and the sample images. Does not import torch."""

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
    """Score images, and check the type and shape of the result.

    Returns:
        Scores of each image, float32 (C, ceil(H / stride), ceil(W / stride)), finite or not.

    Raises:
        NetworkError: The result breaks the contract of ``Model.scores``, which no image causes. ``WrongSize`` if only
            the size of the scores is wrong.
        Exception: Whatever the network raises.
    """
    if not images:
        return []
    result: Any = model.scores(images, ids)
    if isinstance(result, (Mapping, str, bytes)) or not isinstance(result, Iterable):
        raise NetworkError(
            f"network {model.name}: scores() returned {_kind(result)} for {len(images)} images; it must return a list "
            "with one array for each image"
        )
    arrays = list(result)
    if len(arrays) != len(images):
        raise NetworkError(
            f"network {model.name}: scores() returned {len(arrays)} arrays for {len(images)} images; it must return "
            "one for each image, in their order"
        )
    return [_checked(model, *one) for one in zip(arrays, images, ids, strict=True)]


def sample_images() -> list[np.ndarray]:
    """Return two small images, uint8 (H, W, 3), of smooth gradients. Their sides are prime numbers."""
    images = []
    for height, width in ((67, 101), (107, 73)):
        rows, columns = np.meshgrid(np.linspace(64, 192, height), np.linspace(64, 192, width), indexing="ij")
        images.append(np.stack([rows, columns, (rows + columns) / 2], axis=2).astype(np.uint8))
    return images


def sample_scores(image: np.ndarray, num_classes: int, stride: int) -> Scores:
    """Return scores of an image in which all classes are equal."""
    height, width = image.shape[:2]
    values = np.zeros((num_classes, -(-height // stride), -(-width // stride)), np.float16)
    return Scores(values, np.arange(num_classes, dtype=np.int16), height, width, stride)


def try_on_samples(model: Model) -> list[np.ndarray]:
    """Return the scores of the sample images.

    Raises:
        NetworkError: As ``checked_scores``.
        ValueError: Scores are not finite.
        Exception: Whatever the network raises.
    """
    images = sample_images()
    try:
        results = checked_scores(model, images, _SAMPLE_IDS)
    except NetworkError:
        raise
    except Exception:  # a network may refuse a batch of two sizes; a job, too, then scores each image alone
        results = [checked_scores(model, [i], [k])[0] for i, k in zip(images, _SAMPLE_IDS, strict=True)]
    if not all(np.isfinite(scores).all() for scores in results):
        raise ValueError("the network's scores of a sample image hold NaN or infinity")
    return results


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
    """Describe a value: ``float32 (3, 6, 9)`` for an array, or else the name of its type."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__ + (f" {tuple(value.shape)}" if isinstance(getattr(value, "shape", None), tuple) else "")
