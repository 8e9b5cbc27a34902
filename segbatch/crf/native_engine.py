"""The engine in C++."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segbatch.crf import _core
from segbatch.crf.kernels import Kernel
from segbatch.crf.params import NORMALIZATIONS


def instruction_set() -> str:
    """Return the fastest instruction set that the engine has been built for and this processor supports."""
    return _core.isa_names()[0]


class NativeEngine:
    """Mean field in C++ on the permutohedral lattice. Releases the GIL; each image is inferred by one thread.

    Args:
        isa: Instruction set, one of ``_core.isa_names()``; by default the fastest of this machine. The lattice is the
            same on all, the marginals may differ in their last bits.
    """

    name = "native"

    def __init__(self, isa: str = "") -> None:
        self.isa = isa

    def infer(
        self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel], iterations: int
    ) -> np.ndarray:
        """See ``Engine.infer``. Raises ``MemoryError`` before it computes."""
        return self.infer_batch([image], [unary], kernels, iterations, 1)[0]

    def infer_batch(
        self,
        images: Sequence[np.ndarray | None],
        unaries: Sequence[np.ndarray],
        kernels: Sequence[Kernel],
        iterations: int,
        threads: int,
    ) -> list[np.ndarray]:
        """See ``Engine.infer_batch``. Infers ``threads`` images at once; the result does not depend on ``threads``."""
        outs = [np.empty(u.shape, np.float32) for u in unaries]
        _core.infer_batch(images, unaries, native_kernels(kernels), iterations, threads, outs, self.isa)
        return outs

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
        return _core.infer_coarse(image, scores, *size, stride, native_kernels(kernels), iterations, self.isa)

    def stepper(self, image: np.ndarray | None, unary: np.ndarray, kernels: Sequence[Kernel]) -> _core.Stepper:
        """Return inference step by step.

        ``start()`` returns marginals; ``step(marginals)`` returns the next ones, and the KL divergence of the argument.
        """
        return _core.Stepper(image, unary, native_kernels(kernels), self.isa)


def native_kernels(kernels: Sequence[Kernel]) -> list[_core.Kernel]:
    """Convert kernels for the extension."""
    natives = []
    for kernel in kernels:
        compat = kernel.compat
        array = isinstance(compat, np.ndarray)
        natives.append(
            _core.Kernel(
                thetas=list(kernel.thetas),
                normalization=NORMALIZATIONS.index(kernel.normalization),
                potts=0.0 if array else float(compat),
                energies=np.ascontiguousarray(compat, np.float32).ravel() if array else None,
                matrix=np.ndim(compat) == 2,
                vectors=kernel.vectors,
            )
        )
    return natives
