"""Refiners by name. A new refiner is one file and one line in ``REFINERS``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segbatch.crf.params import CRFSettings
from segbatch.errors import SpecError
from segbatch.models.info import ModelInfo
from segbatch.models.weights import read_uri
from segbatch.protocols import Json, Refiner
from segbatch.refiners import crfasrnn, custom, densecrf, dpn, none
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
        unused: Keys of the ``crf`` mapping that are given and do not concern it.
        tuned: Where parameters that are not given come from; empty if all are given or are the refiner's own.
    """

    request: RefinerRequest
    needs_image: bool
    parameters: Mapping[str, Json]
    unused: tuple[str, ...] = ()
    tuned: str = ""


def build(request: RefinerRequest) -> Refiner:
    """Build a refiner, ready for ``refine``.

    Raises:
        SpecError: Its name is unknown, or it does not take the weights or parameters that are given.
        ModelError: The weights cannot be read, or are of something else.
    """
    chosen = entry(request.name)
    if request.weights is not None and not chosen.takes_weights:
        trained = " or ".join(name for name in REFINERS if REFINERS[name].takes_weights)
        raise SpecError(
            f"refiner_weights: refiner {request.name!r} takes none; leave them out, or give refiner {trained}, or "
            "package.module:factory"
        )
    params = chosen.params(**{name: value for name, value in request.values.items() if name in chosen.keys})
    return chosen.build(params, _read_weights(request))


def describe(request: RefinerRequest, model: ModelInfo) -> RefinerInfo:
    """Describe what ``build`` gives after a network.

    A refiner that is not of this package is tried on sample images.

    Raises:
        SpecError: It is for another number of classes.
        ModelError: It fails on a sample image.
    """
    chosen, tuned = entry(request.name), ""
    if chosen.takes_tuned_params and request.values.keys() != model.crf.parameters.to_dict().keys():
        but = f", but for {', '.join(request.values)}" if request.values else ""
        tuned = f"weights {model.weights}{but} ({model.crf.source})"
        request = request.completed_by(model.crf)
    refiner = build(request)
    if refiner.num_classes not in (None, len(model.labels)):
        what = f"refiner {request.name!r} is" if request.weights is None else f"refiner_weights {request.weights!r} are"
        raise SpecError(
            f"{what} for {refiner.num_classes} classes, but model {model.name!r} has {len(model.labels)}; give weights "
            "that were trained for its classes, or another refiner"
        )
    if chosen.is_custom:
        custom.try_on_samples(refiner, request.name, len(model.labels), model.stride)
    unused = tuple(name for name in request.values if name not in chosen.keys)
    return RefinerInfo(request, refiner.needs_image, refiner.parameters, unused, tuned)


def entry(name: str) -> RefinerEntry:
    """Return the entry of a registered name or of ``package.module:factory``. Raises ``SpecError`` if unknown."""
    return custom.entry(name) if ":" in name else REFINERS[name]


def names() -> list[str]:
    """The names that ``--refiner`` accepts."""
    return list(REFINERS)


def _read_weights(request: RefinerRequest) -> RefinerWeights | None:
    if request.weights is None:
        return None
    return RefinerWeights(request.weights, read_uri(request.weights, "refiner_weights", request.storage_options))
