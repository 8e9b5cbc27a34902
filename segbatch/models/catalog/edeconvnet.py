"""EDeconvNet: the entry of the registry, and the file that names its networks and proposals. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segbatch.config.base import read_config
from segbatch.errors import ModelError, SpecError
from segbatch.models.catalog.zoo import DECONVNET, FCN8S
from segbatch.models.info import DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.weights import content_digest
from segbatch.models.zoo.proposals import MAX_BOXES, Proposals, read_proposals
from segbatch.registry import suggest
from segbatch.storage.uri import is_uri
from segbatch.text import without_query

if TYPE_CHECKING:
    from segbatch.models.zoo.edeconvnet import EDeconvNet

NAME = "edeconvnet"
_KEYS = ("deconvnet", "fcn8s", "proposals", "most")
_EXAMPLE = "{deconvnet: DeconvNet.caffemodel, fcn8s: fcn8s-heavy-pascal.caffemodel, proposals: boxes.parquet}"


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
                f"{NAME}: {choice.weights!r} names networks of other classes: deconvnet has "
                f"{few_names(infos[0].classes)}, fcn8s {few_names(infos[1].classes)}; give weights that were trained "
                "for the same"
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
        from segbatch.models.zoo.edeconvnet import EDeconvNet  # imports torch

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
        return ModelInfo(name=NAME, summary=summary, stride=1, needs_ids=True, **fields)

    def _parts(self, choice: ModelRequest) -> _Parts:
        uri = choice.weights
        if uri.partition(":")[0] == "random":
            return _Parts(uri, uri, None, MAX_BOXES, ("grid", str(MAX_BOXES)))
        if not without_query(uri).lower().endswith((".yaml", ".yml", ".json")):
            raise SpecError(
                f"model {NAME!r} is made of two networks, so weights {uri!r} are not enough; give --weights FILE.yaml "
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


def few_names(names: Sequence[str]) -> str:
    """Return the number of names and the first of them, for a message."""
    return f"{len(names)} ({', '.join(names[:3])}, …)" if len(names) > 3 else f"{len(names)} ({', '.join(names)})"


EDECONVNET = EDeconvNetEntry()
