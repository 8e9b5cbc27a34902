"""Networks for the tests of the job: given as ``--model tests.networks:NAME``, built in every worker."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segbatch.errors import ModelError
from segbatch.labels import LabelSet
from segbatch.models.scores import sample_images

LABELS = LabelSet.of(("dark", "middle", "bright"))


class Brightness:
    """Scores by the brightness of the pixel at each cell: no weights, no torch, and every pixel matters."""

    name = "brightness"
    labels = LABELS
    stride = 4

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        time.sleep(self.seconds * len(images))
        return [self.score(image) for image in images]

    def score(self, image: np.ndarray) -> np.ndarray:
        gray = image[:: self.stride, :: self.stride].astype(np.float32).mean(axis=2) / 255
        return np.stack([-((gray - level) ** 2) * 40 for level in (0.15, 0.5, 0.85)])


def fast() -> Brightness:
    """Brightness at once."""
    return Brightness()


def slow() -> Brightness:
    """Brightness, 40 ms an image: time for something to happen."""
    return Brightness(seconds=0.04)


class Faded(Brightness):
    """Brightness of the image at 0.7 of its brightness: other masks of the same classes."""

    name = "faded"

    def score(self, image: np.ndarray) -> np.ndarray:
        return super().score((image * 0.7).astype(np.uint8))


class Reordered(Faded):
    """The same with the classes in another order, one name changed and one class more, which is nowhere."""

    name = "reordered"
    labels = LabelSet.of(("bright", "dark", "gray", "none"))

    def score(self, image: np.ndarray) -> np.ndarray:
        dark, middle, bright = super().score(image)
        return np.stack([bright, dark, middle, np.full_like(dark, -1e4)])


class Counted(Brightness):
    """Brightness, 40 ms an image: time to be killed. A byte in the file of the environment for each image scored.

    The sample images of a planner do not count.
    """

    def __init__(self) -> None:
        super().__init__(seconds=0.04)
        self._log = os.open(os.environ["SEGBATCH_TEST_SCORED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def score(self, image: np.ndarray) -> np.ndarray:
        if image.shape not in (sample.shape for sample in sample_images()):
            os.write(self._log, b".")
        return super().score(image)


def counted() -> Counted:
    return Counted()


class Moody(Brightness):
    """Fails on images of certain widths, whatever is in the batch beside them."""

    name = "moody"

    def score(self, image: np.ndarray) -> np.ndarray:
        width = image.shape[1]
        if width == 61:
            return np.full_like(super().score(image), np.nan)
        if width == 62:
            raise MemoryError("cannot allocate 64 GiB")
        if width == 63:
            raise RuntimeError("this image is not to my taste")
        return super().score(image)


def moody() -> Moody:
    return Moody()


def unsteady(weights: str) -> Brightness:
    """Brightness that fails to start in a worker, once for each word of the file beside ``weights``; a start takes one.

    ``exit`` ends the process, ``hiccup``, ``broken`` and ``certain`` raise; the last word stays if ``always`` precedes.
    """
    import ray

    if not (ray.is_initialized() and ray.get_runtime_context().get_actor_id()):
        return Brightness()
    left = Path(weights + ".words")
    words = left.read_text().split()
    if words[:1] == ["always"]:
        words.insert(0, words[1])
    left.write_text(" ".join(words[1:]))
    with open(weights + ".starts", "a") as log:
        log.write(".")
    match words[:1]:
        case ["exit"]:
            os._exit(7)
        case ["hiccup"]:
            raise ConnectionResetError("the store of the weights hung up")
        case ["broken"]:
            raise Unportable("the driver", code=802)
        case ["certain"]:
            raise ModelError("these weights are of another network")
    return Brightness()


class Unportable(Exception):
    """Cannot be restored from its arguments, as exceptions of many libraries."""

    def __init__(self, what: str, *, code: int) -> None:
        super().__init__(f"{what} says {code}")
        self.lock = threading.Lock()


class Scratch(Brightness):
    """Brightness that writes each image to a folder for temporary files first."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = Path(folder)

    def score(self, image: np.ndarray) -> np.ndarray:
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(image.tobytes() * 4)
        return super().score(image)


def scratch(weights: str) -> Scratch:
    """The file ``weights`` names the folder."""
    return Scratch(Path(weights).read_text())
