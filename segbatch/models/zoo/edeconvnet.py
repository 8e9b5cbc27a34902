"""EDeconvNet: DeconvNet on many boxes of an image, aggregated and multiplied by FCN-8s on the whole.

Noh, Hong & Han, "Learning Deconvolution Network for Semantic Segmentation" (ICCV 2015), sec. 4.3-4.4: instance-wise
segmentation aggregated by the pixelwise maximum (eq. 1), and the ensemble with FCN-8s, which the published inference
multiplies. ``EDeconvNet`` states what the paper leaves open: how boxes are scaled, and zero where no box is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from segbatch.config.base import read_config
from segbatch.errors import ModelError, SpecError
from segbatch.labels import LabelSet
from segbatch.models.info import DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.runner import TorchModel
from segbatch.models.weights import content_digest
from segbatch.models.zoo.deconvnet import DECONVNET, SIDE
from segbatch.models.zoo.fcn import FCN8S
from segbatch.models.zoo.proposals import Proposals, clipped, from_grid, read_proposals
from segbatch.registry import suggest
from segbatch.storage.uri import is_uri
from segbatch.text import without_query

MAX_BOXES = 50
_NAME = "edeconvnet"
_KEYS = ("deconvnet", "fcn8s", "proposals", "most")
_EXAMPLE = "{deconvnet: DeconvNet.caffemodel, fcn8s: fcn8s-heavy-pascal.caffemodel, proposals: boxes.parquet}"


class EDeconvNet:
    """DeconvNet in boxes of an image, times FCN-8s; implements ``segbatch.protocols.Model``.

    Noh et al. 2015, sec. 4.3-4.4. Each box is cut out, scaled to 224 x 224 whatever its shape (bilinearly with
    antialiasing), scored by ``deconvnet``, and its scores are scaled back. Where boxes overlap, the maximum of each
    class is taken, at least 0, which is also the score outside of all boxes (eq. 1). The scores are the product with
    max(0, scores of ``fcn``).

    Args:
        proposals: Returns the boxes of an image, the best first; by default ``proposals.grid``.
        most: Maximum number of boxes per image.

    Raises:
        ModelError: The two networks have different classes.
    """

    name = _NAME
    stride = 1

    def __init__(
        self,
        deconvnet: TorchModel,
        fcn: TorchModel,
        proposals: Proposals | None = None,
        *,
        most: int = MAX_BOXES,
        digest: str = "",
    ) -> None:
        if deconvnet.classes != fcn.classes:
            raise ModelError(
                f"{_NAME}: its two networks must have the same classes; deconvnet has {_few(deconvnet.classes)}, "
                f"fcn8s {_few(fcn.classes)}"
            )
        self.deconvnet, self.fcn, self.most, self.digest = deconvnet, fcn, most, digest
        self.proposals = proposals or from_grid(most)
        self.labels: LabelSet = deconvnet.labels

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.names

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        """Score images uint8 (H, W, 3) RGB; see ``protocols.Model``.

        Args:
            image_ids: Keys of the proposals of a file.

        Returns:
            float32 (C, H, W) each.

        Raises:
            RecordFailure: ``NoProposals`` for an image without a box.
        """
        names: Sequence[str | None] = image_ids or [None] * len(images)
        return [self._scores(image, name) for image, name in zip(images, names, strict=True)]

    def _scores(self, image: np.ndarray, image_id: str | None) -> np.ndarray:
        height, width = image.shape[:2]
        boxes = clipped(self.proposals(image, image_id), height, width, self.most)
        crops = [_scaled(image[t : t + h, l : l + w]) for t, l, h, w in boxes]  # noqa: E741
        total = np.zeros((len(self.labels), height, width), np.float32)
        for (t, l, h, w), scores in zip(boxes, self.deconvnet.scores(crops), strict=True):  # noqa: E741
            part = total[:, t : t + h, l : l + w]
            np.maximum(part, _scaled_scores(scores, h, w), out=part)
        (whole,) = self.fcn.scores([image])
        total *= np.maximum(whole, 0)
        return total


def _scaled(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _scaled_scores(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 (C, h, w) -> (C, height, width), as ``_scaled`` scales images."""
    scaled = F.interpolate(torch.from_numpy(scores)[None], (int(height), int(width)), mode="bilinear", antialias=True)
    return scaled[0].numpy()


@dataclass(frozen=True)
class _Parts:
    """What ``--weights`` names."""

    deconvnet: str
    fcn8s: str
    proposals: Proposals | None
    most: int
    identity: tuple[str, ...]

    def digest(self, *networks: str) -> str:
        """Return the digest of the boxes and of networks with these digests."""
        return content_digest("\n".join([*self.identity, *networks]).encode())


class EDeconvNetEntry:
    """The registry's entry.

    ``--weights`` is a YAML or JSON file with the keys ``deconvnet`` and ``fcn8s`` (weights of these), and optionally
    ``proposals`` (see ``FileProposals``; default: a sliding grid) and ``most`` (50). Paths in it are relative to it.
    """

    def describe(self, choice: ModelRequest) -> ModelInfo:
        parts = self._parts(choice)
        infos = (
            DECONVNET.describe(replace(choice, weights=parts.deconvnet)),
            FCN8S.describe(replace(choice, weights=parts.fcn8s)),
        )
        if infos[0].classes != infos[1].classes:
            raise ModelError(
                f"{_NAME}: {choice.weights!r} names networks of other classes: deconvnet has {_few(infos[0].classes)}, "
                f"fcn8s {_few(infos[1].classes)}; give weights that were trained for the same"
            )
        return self._info(
            weights=choice.weights,
            source=choice.weights,
            labels=infos[0].labels,
            digest=parts.digest(infos[0].digest, infos[1].digest),
            parameters=sum(info.parameters for info in infos),
            accuracy=infos[0].accuracy,
        )

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> EDeconvNet:
        parts = self._parts(choice)
        deconvnet = DECONVNET.build(replace(choice, weights=parts.deconvnet), replace(execution, tile_pixels=None))
        fcn = FCN8S.build(replace(choice, weights=parts.fcn8s), execution)
        digest = parts.digest(deconvnet.digest, fcn.digest)
        return EDeconvNet(deconvnet, fcn, parts.proposals, most=parts.most, digest=digest)

    def infos(self) -> list[ModelInfo]:
        one, other = DECONVNET.infos()[0], FCN8S.infos()[0]
        return [
            self._info(
                weights="",
                source="a YAML file that names the files of two networks",
                labels=one.labels,
                digest="",
                parameters=one.parameters + other.parameters,
            )
        ]

    def architecture(self) -> None:
        """Return None: its two networks are trained one at a time."""

    def _info(self, **fields: Any) -> ModelInfo:
        summary = "DeconvNet on object proposals, with FCN-8s (Noh et al. 2015)"
        return ModelInfo(name=_NAME, summary=summary, stride=EDeconvNet.stride, needs_ids=True, **fields)

    def _parts(self, choice: ModelRequest) -> _Parts:
        uri = choice.weights
        if uri.partition(":")[0] == "random":
            return _Parts(uri, uri, None, MAX_BOXES, ("grid", str(MAX_BOXES)))
        if not without_query(uri).lower().endswith((".yaml", ".yml", ".json")):
            raise SpecError(
                f"model {_NAME!r} is made of two networks, so weights {uri!r} are not enough; give --weights FILE.yaml "
                f"that names both, and the object proposals if there are any: {_EXAMPLE}"
            )
        config = read_config(uri, choice.storage_options)
        for key in config:
            if key not in _KEYS:
                raise SpecError(f"{uri}: unknown key {key!r}{suggest(str(key), _KEYS)}")
        most = config.get("most", MAX_BOXES)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise SpecError(
                f"{uri}: most is {most!r}; give how many boxes an image are used at most, such as {MAX_BOXES}"
            )
        for key in _KEYS[:3]:
            if not isinstance(config.get(key, "" if key == "proposals" else None), str):
                raise SpecError(
                    f"{uri}: {key} is {config.get(key)!r}; give the path or URI of a file, as in {_EXAMPLE}"
                )
        proposals, identity = None, ("grid", str(most))
        if config.get("proposals"):
            proposals, data = read_proposals(_beside(uri, config["proposals"]), choice.storage_options)
            identity = (content_digest(data), str(most))
        return _Parts(_beside(uri, config["deconvnet"]), _beside(uri, config["fcn8s"]), proposals, most, identity)


def _beside(config: str, path: str) -> str:
    """Return ``path``; if it is relative, the path below the folder of ``config``."""
    if is_uri(path) or path.startswith("/") or path.partition(":")[0] == "random":
        return path
    folder = without_query(config).rpartition("/")[0]
    return f"{folder}/{path}" if folder else f"./{path}"


def _few(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}, …)" if len(names) > 3 else f"{len(names)} ({', '.join(names)})"


EDECONVNET = EDeconvNetEntry()
