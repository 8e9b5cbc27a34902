"""Networks that break their contract, or fail: ``--model tests.faulty_networks:NAME``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tests.networks import Brightness


class Altered(Brightness):
    """Brightness whose scores of each image, or of all, are altered before they are returned."""

    name = "altered"

    def __init__(self, each: Callable[..., Any] | None = None, every: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self._each, self._every = each, every

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> Any:
        answer: Any = super().scores(images)
        if self._each:
            answer = [self._each(scores, image) for scores, image in zip(answer, images, strict=True)]
        return self._every(answer) if self._every else answer


def of_stride(stride: int, image: np.ndarray) -> np.ndarray:
    network = Brightness()
    network.stride = stride
    return network.score(image)


def _each(alter: Callable[[np.ndarray, np.ndarray], Any]) -> Callable[[], Altered]:
    return lambda: Altered(each=alter)


def _every(alter: Callable[[list[np.ndarray]], Any]) -> Callable[[], Altered]:
    return lambda: Altered(every=alter)


# Of a wrong size.
full_size = _each(lambda scores, image: of_stride(1, image))
stride_8 = _each(lambda scores, image: of_stride(8, image))
swapped = _each(lambda scores, image: scores.transpose(0, 2, 1).copy())
floored = _each(lambda scores, image: scores[:, : image.shape[0] // 4, : image.shape[1] // 4])
padded = _each(lambda scores, image: np.pad(scores, ((0, 0), (0, 1), (0, 1))))
channels_last = _each(lambda scores, image: scores.transpose(1, 2, 0).copy())
one_cell = _each(lambda scores, image: scores[:, :1, :1])

# Wrong whatever the image.
two_channels = _each(lambda scores, image: scores[:2])
four_channels = _each(lambda scores, image: np.concatenate([scores, np.full_like(scores[:1], -99)]))
class_ids = _each(lambda scores, image: scores.argmax(axis=0))
masks = _each(lambda scores, image: scores > 0)
integers = _each(lambda scores, image: (scores * 100).astype(np.int32))
four_dimensions = _each(lambda scores, image: scores[None])
lists = _each(lambda scores, image: scores.tolist())
nothing = _each(lambda scores, image: None)
dictionary = _every(lambda answer: {"out": np.stack(answer[:1])})
stacked_dictionary = _every(lambda answer: {"out": np.stack(answer)})
none = _every(lambda answer: None)
too_few = _every(lambda answer: answer[:-1])
too_many = _every(lambda answer: [*answer, answer[-1]])
one_array = _every(lambda answer: answer[0])

# As they may be.
generator = _every(lambda answer: (scores for scores in answer))
pair = _every(tuple)
double = _each(lambda scores, image: scores.astype(np.float64))
half = _each(lambda scores, image: scores.astype(np.float16))


def _only_45(scores: np.ndarray, image: np.ndarray) -> np.ndarray:
    if image.shape[:2] != (45, 70):
        raise ValueError(f"45 x 70 pixels, not {image.shape[0]} x {image.shape[1]}")
    return scores


only_45 = _each(_only_45)


def unbuildable() -> Altered:
    raise RuntimeError("no CUDA here")


class Failing(Brightness):
    """Brightness that fails on images for which ``fails(images seen so far, image)``, until it is repaired."""

    name = "failing"

    def __init__(self, fails: Callable[[int, np.ndarray], bool], how: str = "raise") -> None:
        super().__init__()
        self._fails, self._how, self._seen = fails, how, 0

    def score(self, image: np.ndarray) -> np.ndarray:
        self._seen += 1
        if os.environ.get(REPAIRED) or not self._fails(self._seen, image):
            return super().score(image)
        if self._how == "raise":
            raise RuntimeError("no kernel image is available for execution on the device")
        return super().score(image) * np.nan


REPAIRED = "SEGBATCH_TEST_REPAIRED"
STRANGE = 50  # pixels high


def _is_sample(image: np.ndarray) -> bool:
    return image.shape[0] in (67, 107)


always = partial(Failing, lambda seen, image: True)
always_nan = partial(Failing, lambda seen, image: True, "nan")
nan_of_real_images = partial(Failing, lambda seen, image: not _is_sample(image), "nan")
real_images = partial(Failing, lambda seen, image: not _is_sample(image))
after_12 = partial(Failing, lambda seen, image: seen > 12)
after_17_nan = partial(Failing, lambda seen, image: seen > 17 and not _is_sample(image), "nan")
strange_ones = partial(Failing, lambda seen, image: image.shape[0] == STRANGE)
strange_nan = partial(Failing, lambda seen, image: image.shape[0] == STRANGE, "nan")
only_40 = partial(Failing, lambda seen, image: image.shape[0] != 40)
