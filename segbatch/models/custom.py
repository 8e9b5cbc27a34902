"""Models of one's own: ``--model package.module:factory``."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import sys
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segbatch.config.crf_mapping import crf_settings
from segbatch.errors import ModelError, NetworkError, SegbatchError, SpecError, WrongSize, visible
from segbatch.labels import LabelSet
from segbatch.models.info import BATCH_SIZE, DEEPLAB_CRF, CRFDefaults, DeviceOptions, ModelInfo, ModelRequest
from segbatch.models.scores import try_on_samples
from segbatch.models.weights import content_digest, named_digest
from segbatch.protocols import Model
from segbatch.registry import suggest

_MAX_REASON = 500  # characters
MAX_TRIAL_SECONDS = 30.0


class CustomModel:
    """The ``protocols.Model`` that completes what a user's factory returned.

    No other code looks for attributes that such a network may have or lack.

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
    """A model that ``module:factory`` makes.

    The factory is called with those of the keywords ``weights, classes, storage_options, device, precision,
    batch_size, threads, tile_pixels`` that its signature accepts, at the values the job gives them.

    The factory returns a network as ``CustomModel`` takes it. An attribute ``digest`` (str) may say what identifies
    the network. Without it the content of ``--weights`` does (a file or folder; else the name), and the source files of
    the factory and of the class that it returns; what these import, or read from elsewhere, may change unnoticed.
    """

    name: str

    def describe(self, choice: ModelRequest) -> ModelInfo:
        """Built on the CPU to be asked, for only the factory knows, and tried on sample images."""
        try:
            model = self.build(choice, DeviceOptions(device="cpu"))
        except SegbatchError:
            raise
        except Exception as e:  # a foreign factory may raise anything
            raise ModelError(
                f"model {self.name!r}: the factory raised {_reason(e)}; it is called on the machine that plans the job "
                "too, for the CPU, to learn the network's classes and stride"
            ) from e
        wrong_size, untried = _trial(model)
        return ModelInfo(
            name=self.name,
            summary=(inspect.getdoc(self._factory()) or "a model of your own").splitlines()[0],
            weights=choice.weights,
            source=self.name,
            labels=model.labels,
            stride=model.stride,
            digest=model.digest,
            parameters=model.parameters,
            temperature=model.temperature,
            needs_ids=model.needs_ids,
            wrong_size=wrong_size,
            untried=untried,
            crf=model.crf,
        )

    def build(self, choice: ModelRequest, execution: DeviceOptions) -> CustomModel:
        factory = self._factory()
        offered = {
            "weights": choice.weights,
            "classes": choice.classes,
            "storage_options": choice.storage_options,
            **asdict(execution),
            "batch_size": execution.batch_size or BATCH_SIZE,
        }
        parameters = inspect.signature(factory).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            names = {p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY}
            offered = {key: value for key, value in offered.items() if key in names}
        try:
            model = factory(**offered)
        except TypeError as e:
            raise ModelError(
                f"model {self.name!r}: calling the factory with {', '.join(offered) or 'no arguments'}: {e}"
            ) from e
        return CustomModel(model, self.name, self._digest(factory, model, choice))

    def infos(self) -> list[ModelInfo]:
        return [self.describe(ModelRequest())]

    def architecture(self) -> None:
        """Return None: segbatch does not train networks of others."""

    def _factory(self) -> Callable[..., Any]:
        module_name, _, attribute = self.name.partition(":")
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as e:
            raise SpecError(
                f"model {self.name!r}: cannot import {module_name!r} ({e}); it must be importable here and on "
                "every worker (PYTHONPATH, or py_modules in the runtime environment)"
            ) from e
        factory = getattr(module, attribute, None)
        if not callable(factory):
            functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
            what = "is not callable" if factory is not None else "is not there"
            raise SpecError(f"model {self.name!r}: {attribute!r} {what}{suggest(attribute, functions)}")
        return factory

    def _digest(self, factory: Callable[..., Any], model: Any, choice: ModelRequest) -> str:
        """What identifies the network, as it is after the network was built: changes during the build are noticed."""
        given = getattr(model, "digest", "")
        if isinstance(given, str) and given:
            return given
        named = importlib.import_module(self.name.partition(":")[0])
        others = [m for part in (_defined(factory), type(model)) if (m := inspect.getmodule(part)) and _is_own(m)]
        sources = sorted({_source(module) for module in (named, *others)})
        weights = named_digest(choice.weights, choice.storage_options)
        return f"weights {weights}, factory {content_digest(' '.join(sources).encode())}"


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
            f"model {entry!r}: its temperature is {visible(repr(temperature)[:_MAX_REASON])}; give a number "
            "above 0, which its logits are divided by, or none"
        )


def _crf(given: Any, entry: str) -> CRFDefaults:
    """What a network's attribute ``crf`` says. Raises ``ModelError`` if that is no mapping of parameters."""
    if given is None:
        return DEEPLAB_CRF
    try:
        return CRFDefaults(crf_settings(dict(given)), "the network's attribute crf")
    except (SpecError, TypeError, ValueError) as e:
        raise ModelError(
            f"model {entry!r}: its attribute crf is {visible(repr(given)[:_MAX_REASON])}: {e}; give a mapping of the "
            "dense CRF's parameters, such as {'theta_alpha': 30}"
        ) from e


def _trial(model: Model) -> tuple[str, str]:
    """What running the network on sample images shows: a wrong size of its scores, or why it could not be run here.

    Neither ends a job before its first image: that image may have sides for which the size is right, or a size that the
    network insists on, and its workers may have the GPU that the network needs. Raises ``ModelError`` for an answer
    that is wrong whatever the image.
    """
    found: list[Exception] = []

    def run() -> None:
        try:
            try_on_samples(model)
        except Exception as e:  # a foreign network may raise anything
            found.append(e)

    # A thread that is left to itself if need be: a network made for a GPU may take minutes for an image on a CPU.
    thread = threading.Thread(target=run, name="segbatch-trial", daemon=True)
    thread.start()
    thread.join(MAX_TRIAL_SECONDS)
    if thread.is_alive():
        return "", f"it did not score two small images within {MAX_TRIAL_SECONDS:g} s"
    error = found[0] if found else None
    if isinstance(error, WrongSize):
        return str(error), ""
    if isinstance(error, NetworkError):
        raise ModelError(str(error)) from error
    return "", "" if error is None else _reason(error)


def _defined(factory: Callable[..., Any]) -> Any:
    """The function or class behind decorators and ``functools.partial``; of another object, its class."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    inner = inspect.unwrap(factory)
    return inner if inspect.isfunction(inner) or inspect.isclass(inner) else type(inner)


def _is_own(module: types.ModuleType) -> bool:
    return module.__name__.partition(".")[0] not in {"segbatch", *sys.stdlib_module_names}


def _source(module: types.ModuleType) -> str:
    """The digest of the module's file as it is now; "" without one."""
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    read = getattr(getattr(module, "__loader__", None), "get_data", None)  # out of archives, too
    try:
        return content_digest(read(file) if read else Path(file).read_bytes())
    except OSError:  # a frozen application, or a module removed since
        return ""


def _reason(e: Exception) -> str:
    return visible(f"{type(e).__name__}: {e}"[:_MAX_REASON])
