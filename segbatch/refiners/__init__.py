"""Refiners by name. A new one is a file here and a line in ``REFINERS``; its contract is in ``tests/refiners``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from segbatch.crf.params import CRFSettings
from segbatch.errors import SpecError
from segbatch.models.info import ModelInfo
from segbatch.models.weights import read_uri
from segbatch.protocols import Json, Refiner
from segbatch.refiners import crfasrnn, densecrf, dpn, none
from segbatch.refiners.entry import RefinerEntry, RefinerRequest, RefinerWeights
from segbatch.registry import Registry

REFINERS: Registry[RefinerEntry] = Registry("refiner")
REFINERS.add("none", RefinerEntry(none.build))
REFINERS.add("densecrf", RefinerEntry(densecrf.build, CRFSettings, takes_tuned_params=True))
REFINERS.add("crfasrnn", RefinerEntry(crfasrnn.build, crfasrnn.CRFasRNNParams, takes_weights=True))
REFINERS.add("dpn", RefinerEntry(dpn.build, takes_weights=True))


@dataclass(frozen=True)
class RefinerInfo:
    """A refiner, described for a plan.

    Attributes:
        request: What workers build it from, with all parameters that come with the network's weights.
        needs_image: Whether it looks at the image.
        parameters: Everything that decides its masks besides its name; part of the run's identity.
        tuned: Where parameters that are not given come from; empty if all are given or are the refiner's own.
    """

    request: RefinerRequest
    needs_image: bool
    parameters: Mapping[str, Json]
    tuned: str = ""


def build(request: RefinerRequest) -> Refiner:
    """Build a refiner, ready for ``refine``.

    Raises:
        SpecError: Its name is unknown, or it does not take the weights or parameters that are given.
        ModelError: The weights cannot be read, or are of something else.
    """
    entry = REFINERS[request.name]
    if request.weights is not None and not entry.takes_weights:
        learned = " or ".join(name for name in REFINERS if REFINERS[name].takes_weights)
        raise SpecError(
            f"refiner_weights: refiner {request.name!r} takes none; leave them out, or give refiner {learned}"
        )
    names = {f.name for f in fields(entry.params)}
    params = entry.params(**{name: value for name, value in request.values.items() if name in names})
    return entry.build(params, _read_weights(request))


def describe(request: RefinerRequest, model: ModelInfo) -> RefinerInfo:
    """Describe what ``build`` gives after a network. Raises ``SpecError`` if it is for another number of classes."""
    tuned = ""
    if REFINERS[request.name].takes_tuned_params and request.values.keys() != model.crf.parameters.to_dict().keys():
        but = f", but for {', '.join(request.values)}" if request.values else ""
        tuned = f"weights {model.weights}{but} ({model.crf.source})"
        request = request.completed_by(model.crf)
    refiner = build(request)
    if refiner.num_classes not in (None, len(model.labels)):
        raise SpecError(
            f"refiner_weights {request.weights!r} are for {refiner.num_classes} classes, but model {model.name!r} has "
            f"{len(model.labels)}; give weights that were trained for its classes, or none"
        )
    return RefinerInfo(request, refiner.needs_image, refiner.parameters, tuned)


def names() -> list[str]:
    """The names that ``--refiner`` accepts."""
    return list(REFINERS)


def _read_weights(request: RefinerRequest) -> RefinerWeights | None:
    if request.weights is None:
        return None
    return RefinerWeights(request.weights, read_uri(request.weights, "refiner_weights", request.storage_options))
