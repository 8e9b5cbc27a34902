"""Refiners by name. A new one is a file here, a line in ``_REFINERS`` and a contract test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from segbatch.config.job import CRFSpec, JobSpec
from segbatch.errors import SpecError
from segbatch.models.info import ModelInfo
from segbatch.protocols import Refiner
from segbatch.registry import Registry


def _none(spec: JobSpec) -> Refiner:
    from segbatch.refiners.none import NoRefiner

    return NoRefiner()


def _densecrf(spec: JobSpec) -> Refiner:
    from segbatch.crf import CRFParams
    from segbatch.refiners.densecrf import DenseCRFRefiner

    fields = spec.crf.model_dump(exclude={"engine"})
    return DenseCRFRefiner(CRFParams(**fields), spec.crf.engine, parameters=spec.crf.model_dump())


def _crfasrnn(spec: JobSpec) -> Refiner:
    from segbatch.refiners import crfasrnn

    return crfasrnn.build(spec)


def _dpn(spec: JobSpec) -> Refiner:
    from segbatch.refiners.dpn import DPNRefiner

    return DPNRefiner(spec)


_REFINERS: Registry[Callable[[JobSpec], Refiner]] = Registry("refiner")
_REFINERS.add("none", _none)
_REFINERS.add("densecrf", _densecrf)
_REFINERS.add("crfasrnn", _crfasrnn)
_REFINERS.add("dpn", _dpn)
# Those that learn something, and so take weights.
_LEARNED = ("crfasrnn", "dpn")


@dataclass(frozen=True)
class RefinerInfo:
    """A refiner described: whether it looks at the image, and all that decides what it does (None: its name alone)."""

    needs_image: bool
    parameters: Mapping[str, Any] | None = None


def build(spec: JobSpec) -> Refiner:
    """The refiner that the spec names. Raises ``SpecError`` for an unknown name, and for what does not go with it."""
    builder = _REFINERS[spec.refiner]
    if spec.refiner_weights is not None and spec.refiner not in _LEARNED:
        raise SpecError(
            f"refiner_weights: refiner {spec.refiner!r} takes none; leave them out, or give refiner "
            f"{' or '.join(_LEARNED)}"
        )
    return builder(spec)


def completed(spec: JobSpec, model: ModelInfo) -> tuple[JobSpec, str]:
    """The spec with all parameters of the dense CRF, and where those come from that it does not give: the weights.

    Other refiners have defaults of their own: their specs stay as they are, and the second is empty.
    """
    given = spec.crf.model_dump(include=spec.crf.model_fields_set)
    if spec.refiner != "densecrf" or given.keys() == CRFSpec.model_fields.keys():
        return spec, ""
    crf = CRFSpec(**{**model.crf.parameters.model_dump(), **given})
    but = f", but for {', '.join(given)}" if given else ""
    return spec.model_copy(update={"crf": crf}), f"weights {model.weights}{but} ({model.crf.source})"


def describe(spec: JobSpec, classes: int) -> RefinerInfo:
    """What ``build`` gives, for a network of ``classes`` classes. Raises ``SpecError`` if it is for another number."""
    refiner = build(spec)
    known = getattr(refiner, "num_classes", None)
    if known not in (None, classes):
        raise SpecError(
            f"refiner_weights {spec.refiner_weights!r} are for {known} classes, but model {spec.model!r} has "
            f"{classes}; give weights that were learned for its classes, or none"
        )
    return RefinerInfo(refiner.needs_image, getattr(refiner, "parameters", None))


def names() -> list[str]:
    return list(_REFINERS)
