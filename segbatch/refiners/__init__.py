"""Refiners by name. A new one is a file here, a line in ``_REFINERS`` and a contract test."""

from __future__ import annotations

from collections.abc import Callable

from segbatch.interfaces import Refiner
from segbatch.registry import Registry
from segbatch.spec import JobSpec


def _none(spec: JobSpec) -> Refiner:
    from segbatch.refiners.none import NoRefiner

    return NoRefiner()


def _densecrf(spec: JobSpec) -> Refiner:
    from segbatch.crf import CRFParams
    from segbatch.refiners.densecrf import DenseCRFRefiner

    fields = spec.crf.model_dump(exclude={"engine"})
    return DenseCRFRefiner(CRFParams(**fields, prune=spec.prune), spec.crf.engine)


_REFINERS: Registry[Callable[[JobSpec], Refiner]] = Registry("refiner")
_REFINERS.add("none", _none)
_REFINERS.add("densecrf", _densecrf)


def build(spec: JobSpec) -> Refiner:
    """The refiner that the spec names. Raises ``SpecError`` for an unknown name."""
    return _REFINERS[spec.refiner](spec)


def names() -> list[str]:
    return list(_REFINERS)
