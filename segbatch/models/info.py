"""The description of a model, and the protocol of a registry entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from segbatch.crf.params import CRFSettings
from segbatch.labels import LabelSet
from segbatch.protocols import Model
from segbatch.text import redact

if TYPE_CHECKING:
    from segbatch.models.architecture import Architecture


@dataclass(frozen=True)
class CRFDefaults:
    """Parameters of the dense CRF for the scores of a set of weights, and where they come from."""

    parameters: CRFSettings
    source: str


DEEPLAB_CRF = CRFDefaults(CRFSettings(), "DeepLab's for scores of stride 8 on VOC; not tuned for these weights")


@dataclass(frozen=True)
class ModelInfo:
    """A model with one set of weights, described. Two infos with equal ``digest`` compute the same function.

    Attributes:
        weights: Name or URI of the weights, redacted; empty for a model without named weights that was given none.
        source: Where the weights come from, redacted.
        digest: Identifies the content of the weights: ``sha256:`` of the file, shortened to what is published for a
            file that is not downloaded yet.
        parameters: Number of trained parameters.
        accuracy: As stated by who trained the weights.
        terms: Terms of use beyond this package's license.
        temperature: Divisor of the logits before their softmax is a confidence; 1 unless it was fitted.
        refines: Layers by which the network refines its own scores, as a CRF after it would; empty without any.
        wrong_size: How the size of the scores of sample images differs from what ``stride`` says; empty if it does
            not. Only networks that are not of this package are tried on sample images.
        untried: Why the network could not be run on sample images where it was described.
        trial: Digest of the scores of the sample images; empty for networks that are not tried.
        needs_ids: Whether the scores of an image depend on its id.
        crf: Parameters of the dense CRF where no others are given.
        note: What of a checkpoint was loaded, if that is not all of it.
        is_light: Whether the network takes clearly less CPU time per image than the dense CRF.
    """

    name: str
    summary: str
    weights: str
    source: str
    labels: LabelSet
    stride: int
    digest: str
    parameters: int
    accuracy: str = "not stated"
    terms: str = ""
    temperature: float = 1.0
    refines: str = ""
    wrong_size: str = ""
    untried: str = ""
    trial: str = ""
    needs_ids: bool = False
    crf: CRFDefaults = DEEPLAB_CRF
    note: str = ""
    is_light: bool = False

    def __post_init__(self) -> None:
        for name in ("weights", "source"):
            object.__setattr__(self, name, redact(getattr(self, name)))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.names


@dataclass(frozen=True)
class ModelRequest:
    """What a user requests of a model.

    Args:
        weights: A name or a URI.
        classes: URI of a file of class names.
        storage_options: Options for fsspec.
        check: Whether ``describe`` downloads published weights, and so knows the digest of their content.
    """

    weights: str = "default"
    classes: str | None = None
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    check: bool = False


# Default number of images of 512 x 512 pixels per forward pass.
BATCH_SIZE = 8


@dataclass(frozen=True)
class DeviceOptions:
    """How a network runs. Only ``tile_pixels`` changes its scores by more than rounding; see ``models.build``."""

    device: str = "auto"
    precision: str = "fp32"
    batch_size: int | None = None
    threads: int | None = None
    tile_pixels: int | None = None


class ModelEntry(Protocol):
    """A model of the registry."""

    def describe(self, choice: ModelRequest) -> ModelInfo:
        """Describe the model that ``choice`` would build. Raises ``ModelError`` or ``SpecError`` where it could not."""
        ...

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> Model:
        """Load the model, ready to run."""
        ...

    def infos(self) -> list[ModelInfo]:
        """Describe the model with each of its named sets of weights, the default first."""
        ...

    def architecture(self) -> Architecture | None:
        """Return the network as it is trained; None if segbatch cannot train it."""
        ...
