"""A user's own refiners: ``--refiner package.module:factory``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from segbatch.errors import ModelError, NetworkError, SegbatchError
from segbatch.models.factory import UserFactory, reason, shown
from segbatch.models.scores import sample_images, sample_scores
from segbatch.protocols import Json, Refiner
from segbatch.records import Scores
from segbatch.refiners.entry import NoParams, RefinerEntry, RefinerWeights


class CustomRefiner:
    """The ``protocols.Refiner`` that completes what a user's factory returned, and checks its masks.

    This is the only code that looks for optional attributes of such a refiner.

    Args:
        refiner: Has ``refine(image, scores)``. It may have ``needs_image`` (True by default), ``num_classes`` and
            ``parameters``.
        factory: For messages.
        code: Identifies the code and the weights; becomes part of ``parameters``.

    Raises:
        ModelError: An attribute is missing or of a wrong type.
    """

    def __init__(self, refiner: Any, factory: UserFactory, code: Mapping[str, Json]) -> None:
        _check(refiner, factory)
        self._refiner, self._name = refiner, f"refiner {factory.name}"
        self.needs_image: bool = getattr(refiner, "needs_image", True)
        self.num_classes: int | None = getattr(refiner, "num_classes", None)
        self.parameters: Mapping[str, Json] = {**getattr(refiner, "parameters", {}), **code}

    def refine(self, image: np.ndarray | None, scores: Scores) -> tuple[np.ndarray, np.ndarray]:
        """Return what the user's refiner returns, as int16 and float32.

        Raises:
            NetworkError: The result breaks the contract of ``protocols.Refiner``, which no image causes.
        """
        result: Any = self._refiner.refine(image, scores)
        size = (scores.height, scores.width)
        if not isinstance(result, tuple) or len(result) != 2 or not all(isinstance(a, np.ndarray) for a in result):
            raise NetworkError(
                f"{self._name}: refine() returned {type(result).__name__}; it must return a tuple of two NumPy arrays: "
                f"the mask int16 {size} and the probability of its classes float32 {size}"
            )
        mask, marginal = result
        is_right = np.issubdtype(mask.dtype, np.integer) and np.issubdtype(marginal.dtype, np.floating)
        if not is_right or mask.shape != size or marginal.shape != size:
            raise NetworkError(
                f"{self._name}: refine() returned {mask.dtype} {mask.shape} and {marginal.dtype} {marginal.shape} for "
                f"an image of {size[0]} x {size[1]} pixels; it must return the mask int16 {size} and the probability "
                f"of its classes float32 {size}"
            )
        is_known = np.isin(mask, scores.class_ids)
        if not is_known.all():
            raise NetworkError(
                f"{self._name}: refine() returned a mask with class {mask[~is_known].min()}, of which there are no "
                "scores; it must use ids among scores.class_ids"
            )
        return mask.astype(np.int16), marginal.astype(np.float32)


def entry(name: str) -> RefinerEntry:
    """Return the entry of the refiner that ``package.module:factory`` makes.

    If its signature accepts ``weights``, the factory is called with the bytes of ``--refiner-weights``, or None.
    """
    factory = UserFactory("refiner", name)

    def build(params: NoParams, weights: RefinerWeights | None) -> CustomRefiner:
        try:
            refiner = factory.call({"weights": None if weights is None else weights.data})
        except SegbatchError:
            raise
        except Exception as e:  # a user's factory may raise anything
            raise ModelError(f"refiner {name!r}: the factory raised {reason(e)}") from e
        digests = {} if weights is None else {"weights": weights.digest}
        return CustomRefiner(refiner, factory, {"factory": factory.source_digest(refiner), **digests})

    return RefinerEntry(build, takes_weights=True, is_custom=True)


def try_on_samples(refiner: Refiner, name: str, num_classes: int, stride: int) -> None:
    """Refine the sample images, with scores in which all classes are equal.

    Raises:
        ModelError: The refiner fails, or breaks the contract.
    """
    for image in sample_images():
        try:
            refiner.refine(image if refiner.needs_image else None, sample_scores(image, num_classes, stride))
        except NetworkError as e:
            raise ModelError(str(e)) from e
        except Exception as e:  # a user's refiner may raise anything
            raise ModelError(
                f"refiner {name!r}: refine() raised {reason(e)} for a sample image of {image.shape[0]} x "
                f"{image.shape[1]} pixels and {num_classes} classes; it must refine images of any size"
            ) from e


def _check(refiner: Any, factory: UserFactory) -> None:
    wanted: dict[str, Callable[[Any], bool]] = {
        "refine (method)": lambda r: callable(getattr(r, "refine", None)),
        "needs_image (bool)": lambda r: isinstance(getattr(r, "needs_image", True), bool),
        "num_classes (int or None)": lambda r: isinstance(getattr(r, "num_classes", None), int | None),
        "parameters (mapping of JSON values)": lambda r: _is_json(getattr(r, "parameters", {})),
    }
    wrong = [what for what, is_right in wanted.items() if not is_right(refiner)]
    if wrong:
        raise ModelError(
            f"refiner {factory.name!r} returned {shown(type(refiner).__name__)}, which lacks {'; '.join(wrong)}; see "
            "segbatch.protocols.Refiner"
        )


def _is_json(value: object) -> bool:
    try:
        return isinstance(value, Mapping) and json.loads(json.dumps(dict(value))) == value
    except (TypeError, ValueError):
        return False
