"""A user's own models: ``--model package.module:factory``."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from segbatch.config.crf_mapping import crf_settings
from segbatch.errors import ModelError, NetworkError, SegbatchError, SpecError, WrongSize
from segbatch.labels import LabelSet
from segbatch.models.factory import UserFactory, reason, shown
from segbatch.models.info import BATCH_SIZE, DEEPLAB_CRF, CRFDefaults, DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.scores import try_on_samples
from segbatch.models.weights import content_digest, named_digest
from segbatch.protocols import Model

MAX_TRIAL_SECONDS = 30.0
_FACTORY = ", factory "


class CustomModel:
    """The ``protocols.Model`` that completes what a user's factory returned.

    This is the only code that looks for optional attributes of such a network.

    Args:
        network: Has ``labels``, ``stride`` and ``scores(images)``. It may have ``name``, ``temperature``, ``crf``
            (parameters of the dense CRF that suit its scores), ``network`` (a torch module) and ``needs_ids``: if that
            is true, ``scores`` is called with the ids of the images as a second argument.
        entry: ``package.module:factory``, for messages.

    Raises:
        ModelError: An attribute is missing or of a wrong type.
    """

    def __init__(self, network: Any, entry: str, digest: str) -> None:
        _check(network, entry)
        self._network, self.digest = network, digest
        self.name = f"{network.name} ({entry})" if hasattr(network, "name") else entry
        self.labels: LabelSet = network.labels
        self.stride: int = network.stride
        self.temperature = float(getattr(network, "temperature", 1.0))
        self.needs_ids = bool(getattr(network, "needs_ids", False))
        self.crf = _crf(getattr(network, "crf", None), entry)
        module: Any = getattr(network, "network", None)
        self.parameters = sum(p.numel() for p in module.parameters()) if hasattr(module, "parameters") else 0

    def scores(self, images: Sequence[np.ndarray], image_ids: Sequence[str] = ()) -> list[np.ndarray]:
        """Return what the network returns, unchecked (``models.scores.checked_scores``)."""
        return self._network.scores(images, image_ids) if self.needs_ids else self._network.scores(images)


@dataclass(frozen=True)
class CustomEntry:
    """The registry entry of a model that a user's factory makes.

    The factory is called with those of the keywords ``weights, classes, storage_options, device, precision,
    batch_size, threads, tile_pixels`` that its signature accepts, and returns a network as ``CustomModel`` takes it.

    The network is identified by its attribute ``digest`` (str). Without one it is identified by the content of
    ``--weights`` (a file or folder, or else the name) and by the source files of the factory and of the class that it
    returns. Changes of modules that these import, or of files that they read, are not noticed. A resume accepts other
    source files if the scores of the sample images are equal, bit by bit.

    Args:
        name: ``package.module:factory``.
    """

    name: str

    def describe(self, choice: ModelRequest) -> ModelInfo:
        """Build the network on the CPU, read its attributes, and try it on the sample images.

        Raises:
            ModelError: The factory fails, or the network breaks the contract of ``protocols.Model`` for any image.
        """
        try:
            model = self.build(choice, DeviceOptions(device="cpu"))
        except SegbatchError:
            raise
        except Exception as e:  # a user's factory may raise anything
            raise ModelError(
                f"model {self.name!r}: the factory raised {reason(e)}; the machine that plans the job calls it, too, "
                "with device cpu, to read the network's classes and stride; make it run there"
            ) from e
        trial = _try(model)
        return ModelInfo(
            name=self.name,
            summary=self._factory.summary(),
            weights=choice.weights,
            source=self.name,
            labels=model.labels,
            stride=model.stride,
            digest=model.digest,
            parameters=model.parameters,
            temperature=model.temperature,
            needs_ids=model.needs_ids,
            wrong_size=trial.wrong_size,
            untried=trial.untried,
            trial=trial.digest,
            crf=model.crf,
        )

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> CustomModel:
        """Call the factory, and complete what it returns."""
        offered = {
            "weights": choice.weights,
            "classes": choice.classes,
            "storage_options": choice.storage_options,
            **asdict(execution),
            "batch_size": execution.batch_size or BATCH_SIZE,
        }
        network = self._factory.call(offered)
        return CustomModel(network, self.name, self._digest(network, choice))

    def infos(self) -> list[ModelInfo]:
        """Describe the model with its default weights: the names of others are unknown."""
        return [self.describe(ModelRequest())]

    def architecture(self) -> None:
        """Return None: segbatch does not train networks of others."""

    @property
    def _factory(self) -> UserFactory:
        return UserFactory("model", self.name)

    def _digest(self, network: Any, choice: ModelRequest) -> str:
        """Return what identifies the network. Called after the build, so that changes during the build are noticed."""
        given = getattr(network, "digest", "")
        if isinstance(given, str) and given:
            return given
        weights = named_digest(choice.weights, choice.storage_options)
        return f"weights {weights}{_FACTORY}{self._factory.source_digest(network)}"


def factory_weights(digest: str) -> str:
    """Return the part of a network's digest that identifies its weights, not its source."""
    return digest.rpartition(_FACTORY)[0]


def _check(network: Any, entry: str) -> None:
    wanted: dict[str, Callable[[Any], bool]] = {
        "labels (segbatch.labels.LabelSet)": lambda n: isinstance(n.labels, LabelSet),
        "stride (int, at least 1)": lambda n: isinstance(n.stride, int) and n.stride >= 1,
        "scores (method)": lambda n: callable(n.scores),
    }
    absent = [what for what, ok in wanted.items() if not (hasattr(network, what.split()[0]) and ok(network))]
    if absent:
        raise ModelError(
            f"model {entry!r} returned {type(network).__name__}, which lacks {'; '.join(absent)}; see "
            "segbatch.protocols.Model"
        )
    temperature = getattr(network, "temperature", 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ModelError(
            f"model {entry!r}: its temperature is {shown(repr(temperature))}; give a number "
            "above 0, which its logits are divided by, or none"
        )


def _crf(given: Any, entry: str) -> CRFDefaults:
    """Return the parameters in a network's attribute ``crf``. Raises ``ModelError`` if it is not a valid mapping."""
    if given is None:
        return DEEPLAB_CRF
    try:
        return CRFDefaults(crf_settings(dict(given)), "the network's attribute crf")
    except (SpecError, TypeError, ValueError) as e:
        raise ModelError(
            f"model {entry!r}: its attribute crf is {shown(repr(given))}: {e}; give a mapping of the "
            "dense CRF's parameters, such as {'theta_alpha': 30}"
        ) from e


@dataclass(frozen=True)
class _Trial:
    """How a network scores the sample images.

    Attributes:
        digest: Of the scores, if they are as they must be.
        wrong_size: How their size is wrong.
        untried: Why the network could not be run.
    """

    digest: str = ""
    wrong_size: str = ""
    untried: str = ""


def _try(model: Model) -> _Trial:
    """Run a network on the sample images.

    A wrong size and a failure are not errors yet: the size may be right for the images of the job, the network may
    accept only their size, and the workers may have the GPU that it needs.

    Raises:
        ModelError: The result is wrong for any image.
    """
    results: list[_Trial] = []
    refusals: list[NetworkError] = []

    def run() -> None:
        try:
            scores = try_on_samples(model)
            results.append(_Trial(digest=content_digest(b"".join(s.tobytes() for s in scores))))
        except WrongSize as e:
            results.append(_Trial(wrong_size=str(e)))
        except NetworkError as e:
            refusals.append(e)
        except Exception as e:  # a user's network may raise anything; the plan warns of it
            results.append(_Trial(untried=reason(e)))

    # A daemon thread, abandoned after the timeout: a network made for a GPU may take minutes per image on a CPU.
    thread = threading.Thread(target=run, name="segbatch-trial", daemon=True)
    thread.start()
    thread.join(MAX_TRIAL_SECONDS)
    if thread.is_alive():
        return _Trial(untried=f"it did not score two small images within {MAX_TRIAL_SECONDS:g} s")
    if refusals:
        raise ModelError(str(refusals[0])) from refusals[0]
    return results[0]
