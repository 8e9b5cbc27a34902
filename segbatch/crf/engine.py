"""The engines of mean-field inference, by name."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from segbatch.crf import _core

if TYPE_CHECKING:
    import numpy as np

    from segbatch.crf.kernels import Kernel


class Engine(Protocol):
    """Infers by mean field. Arguments are checked and labels pruned before an engine is called."""

    name: str

    def infer(
        self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel], iterations: int
    ) -> np.ndarray:
        """Infer the marginals of one image.

        Args:
            image: uint8 (H, W, 3); None if no kernel needs it.
            unary: Energies float32 (K, H, W), K at least 2.
            kernels: Each ``compat`` fits K labels.
            iterations: Mean-field iterations.

        Returns:
            Marginals float32 (K, H, W).
        """
        ...

    def infer_batch(
        self,
        images: Sequence[np.ndarray | None],
        unaries: Sequence[np.ndarray],
        kernels: Sequence[Kernel],
        iterations: int,
        threads: int,
    ) -> list[np.ndarray]:
        """Infer the marginals of each image. Sizes and numbers of labels may differ between images."""
        ...

    def infer_coarse(
        self,
        image: np.ndarray | None,
        scores: np.ndarray,
        size: tuple[int, int],
        stride: int,
        kernels: Sequence[Kernel],
        iterations: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Infer from logits at the stride of a network.

        Args:
            scores: Logits float32 (K, h, w).
            size: (H, W) of the image.

        Returns:
            The most likely label of each pixel, int32 (H, W), and its marginal, float32 (H, W).
        """
        ...

    def stepper(self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel]) -> _core.Stepper | None:
        """Return inference step by step; None if the engine has none."""
        ...


class FullSizeEngine(ABC):
    """Base of engines that infer at full size only: upsamples coarse scores first."""

    @abstractmethod
    def infer(
        self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel], iterations: int
    ) -> np.ndarray:
        """See ``Engine.infer``."""

    def infer_coarse(
        self,
        image: np.ndarray | None,
        scores: np.ndarray,
        size: tuple[int, int],
        stride: int,
        kernels: Sequence[Kernel],
        iterations: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``Engine.infer_coarse``."""
        marginals = self.infer(image, -_core.upsample(scores, *size, stride), kernels, iterations)
        return marginals.argmax(axis=0), marginals.max(axis=0)

    def stepper(self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel]) -> None:
        """Return None: this engine does not infer step by step."""
        return None


def _native() -> Engine:
    from segbatch.crf.native_engine import NativeEngine

    return NativeEngine()


def _pydensecrf() -> Engine:
    if importlib.util.find_spec("pydensecrf") is None:
        raise ImportError("engine 'pydensecrf' needs pydensecrf2: pip install 'segbatch[reference]'")
    from segbatch.crf.pydensecrf_engine import PydensecrfEngine

    return PydensecrfEngine()


def _torch() -> Engine:
    if importlib.util.find_spec("torch") is None:
        raise ImportError("engine 'torch' needs PyTorch: pip install torch")
    from segbatch.crf.torch_engine import TorchEngine

    return TorchEngine()


ENGINES: dict[str, Callable[[], Engine]] = {"native": _native, "pydensecrf": _pydensecrf, "torch": _torch}


def build_engine(name: str | Engine) -> Engine:
    """Return the engine of a name; an engine object is returned unchanged."""
    if not isinstance(name, str):
        return name
    if name not in ENGINES:
        raise ValueError(f"engine is {name!r}; give one of {', '.join(ENGINES)}, or an Engine object")
    return ENGINES[name]()
