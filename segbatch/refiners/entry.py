"""The registry entry of a refiner, and the refiner that a job requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from segbatch.config.crf_mapping import CRFValue
from segbatch.models.info import CRFDefaults
from segbatch.models.weights import content_digest
from segbatch.protocols import Refiner


@dataclass(frozen=True)
class RefinerWeights:
    """The content of ``--refiner-weights``.

    Args:
        source: Its URI, for messages.
    """

    source: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hex digits."""
        return content_digest(self.data)


@dataclass(frozen=True)
class NoParams:
    """The parameters of a refiner that has none."""


@dataclass(frozen=True)
class RefinerEntry:
    """A refiner of the registry.

    Attributes:
        build: Makes the refiner from an instance of ``params`` and the weights, None if none are given.
        params: A dataclass whose defaults are this refiner's. Its fields are the keys of a job's ``crf`` mapping that
            concern this refiner.
        takes_weights: Whether ``--refiner-weights`` may be given.
        takes_tuned_params: Whether parameters that are not given come with the network's weights.
        is_custom: Whether it is not of this package, and so is tried on sample images before work starts.
    """

    build: Callable[[Any, RefinerWeights | None], Refiner]
    params: type = NoParams
    takes_weights: bool = False
    takes_tuned_params: bool = False
    is_custom: bool = False

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the ``crf`` mapping that concern this refiner."""
        return frozenset(f.name for f in fields(self.params))


@dataclass(frozen=True)
class RefinerRequest:
    """The refiner that a job requests.

    Args:
        name: A name of the registry, or ``package.module:factory``.
        values: The keys of the ``crf`` mapping that are given.
        weights: URI of the weights.
        storage_options: Options for fsspec.
    """

    name: str
    values: Mapping[str, CRFValue] = field(default_factory=dict)
    weights: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def completed_by(self, tuned: CRFDefaults) -> RefinerRequest:
        """Add the parameters that come with a network's weights where none are given."""
        return replace(self, values={**tuned.parameters.to_dict(), **self.values})
