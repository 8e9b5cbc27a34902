"""The dense CRF: checks arguments, prunes labels, and infers by an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from segbatch.crf import _core
from segbatch.crf.checks import check_coarse, check_evidence, check_image
from segbatch.crf.engine import Engine, build_engine
from segbatch.crf.evidence import Evidence
from segbatch.crf.kernels import Kernel, check_kernels, with_compat, with_labels
from segbatch.crf.params import CRFParams, default_prune


class DenseCRF:
    """A fully connected CRF with Gaussian kernels, inferred by mean field (Krähenbühl & Koltun 2011).

    Args:
        params: Two kernels, the iterations and ``prune``.
        engine: ``native``, ``pydensecrf``, ``torch``, or an object that implements ``segbatch.crf.engine.Engine``.
        threads: Images that ``refine_batch`` infers at once.
        kernels: Replace those of ``params``: any number of ``Gaussian``, ``Bilateral`` and ``Features``.
        compat: Label compatibility μ (C, C), multiplied by the weights of ``params``. By default Potts, μ = 1 - I.
    """

    def __init__(
        self,
        params: CRFParams | None = None,
        engine: str | Engine = "native",
        threads: int = 1,
        *,
        kernels: Sequence[Kernel] | None = None,
        compat: np.ndarray | None = None,
    ) -> None:
        self.params = CRFParams() if params is None else params
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads is {threads!r}; give a whole number of 1 or more")
        self.threads = threads
        self.kernels = tuple(self.params.kernels() if kernels is None else kernels)
        if compat is not None:
            if kernels is not None:
                raise TypeError("compat and kernels are both given; put the compatibility into each kernel")
            self.kernels = tuple(with_compat(k, compat) for k in self.kernels)
        self.engine = build_engine(engine)

    def refine(
        self,
        image: np.ndarray | None,
        *,
        probs: np.ndarray | None = None,
        logits: np.ndarray | None = None,
        unary: np.ndarray | None = None,
        ignore: np.ndarray | None = None,
    ) -> np.ndarray:
        """Infer the marginals of an image.

        Args:
            image: uint8 (H, W, 3); may be None if no kernel needs it.
            probs: Probabilities float32 (C, H, W). Give exactly one of ``probs``, ``logits`` and ``unary``.
            logits: float32 (C, H, W), before the softmax.
            unary: Energies float32 (C, H, W), lower for more likely labels.
            ignore: bool (H, W), True for pixels without evidence.

        Returns:
            Marginals float32 (C, H, W), 0 for pruned labels.

        Raises:
            TypeError: Names the argument and the remedy.
            ValueError: Names the argument and the remedy.
        """
        image, evidence = self._check(image, probs, logits, unary, ignore)
        keep = self._keep(evidence)
        if len(keep) == 1:
            return _spread(np.ones((1, *evidence.size), np.float32), keep, len(evidence.values))
        marginals = self.engine.infer(
            image, evidence.energies(keep), self._kernels_for(keep, evidence), self.params.iterations
        )
        return _spread(marginals, keep, len(evidence.values))

    def map(
        self,
        image: np.ndarray | None,
        *,
        probs: np.ndarray | None = None,
        logits: np.ndarray | None = None,
        unary: np.ndarray | None = None,
        ignore: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the most likely label of each pixel, int32 (H, W). Arguments and errors as in ``refine``."""
        marginals = self.refine(image, probs=probs, logits=logits, unary=unary, ignore=ignore)
        return marginals.argmax(axis=0).astype(np.int32)

    def refine_coarse(
        self, image: np.ndarray | None, logits: np.ndarray, size: tuple[int, int], stride: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Infer the most likely labels from logits at the stride of a network, without scores of full size.

        The logits are interpolated bilinearly between the centers of cells, and constant beyond the outermost ones. The
        center of cell (i, j) is at pixel ``((i + 0.5) * stride - 0.5, (j + 0.5) * stride - 0.5)``. Labels are pruned by
        their probabilities in the cells.

        Args:
            image: uint8 (H, W, 3); may be None if no kernel needs it.
            logits: float32 (C, ceil(H / stride), ceil(W / stride)).
            size: (H, W).
            stride: Pixels per cell.

        Returns:
            The most likely label of each pixel, int32 (H, W), and its marginal, float32 (H, W).

        Raises:
            TypeError: Names the argument and the remedy.
            ValueError: Names the argument and the remedy.
        """
        image, evidence = self._check_coarse(image, logits, size, stride)
        keep = self._keep(evidence)
        if len(keep) == 1:
            return np.full(size, keep[0], np.int32), np.ones(size, np.float32)
        values = evidence.values if len(keep) == len(evidence.values) else evidence.values[keep]
        kernels = self._kernels_for(keep, evidence)
        winner, marginal = self.engine.infer_coarse(image, values, size, stride, kernels, self.params.iterations)
        return keep.astype(np.int32)[winner], marginal

    def steps(
        self,
        image: np.ndarray | None,
        *,
        probs: np.ndarray | None = None,
        logits: np.ndarray | None = None,
        unary: np.ndarray | None = None,
        ignore: np.ndarray | None = None,
    ) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the marginals float32 (C, H, W) before and after each iteration, with their KL divergence.

        The first marginals are the softmax of the evidence, the last ones those of ``refine`` without pruning, which
        would change the reference of the divergences. KL(Q || P) is in nats, summed over the pixels, without the
        constant log Z (Krähenbühl & Koltun 2011, eq. 4, with each pair of pixels counted twice as in their code, so
        that it may rise between iterations). Needs ``engine="native"``. Arguments and errors as in ``refine``.
        """
        image, evidence = self._check(image, probs, logits, unary, ignore)
        energies = evidence.energies(np.arange(len(evidence.values)))
        stepper = self.engine.stepper(image, energies, self.kernels)
        if stepper is None:
            raise TypeError(f"engine {self.engine.name!r} does not infer step by step; use engine='native'")
        return _steps(stepper, self.params.iterations)

    def refine_batch(
        self,
        images: Sequence[np.ndarray | None],
        *,
        probs: Sequence[np.ndarray] | None = None,
        logits: Sequence[np.ndarray] | None = None,
        unary: Sequence[np.ndarray] | None = None,
        ignore: Sequence[np.ndarray | None] | None = None,
    ) -> list[np.ndarray]:
        """Infer the marginals of each image, ``threads`` at once; see ``refine``.

        The result does not depend on ``threads``. Sizes and numbers of labels may differ between images.
        """
        counts = {n: len(v) for n, v in (("probs", probs), ("logits", logits), ("unary", unary)) if v is not None}
        counts |= {"ignore": len(ignore)} if ignore is not None else {}
        for name, count in counts.items():
            if count != len(images):
                raise ValueError(f"{name} has {count} entries but there are {len(images)} images; give one per image")
        nothing = [None] * len(images)
        checked = [
            self._check(*args)
            for args in zip(
                images, probs or nothing, logits or nothing, unary or nothing, ignore or nothing, strict=True
            )
        ]
        keeps = [self._keep(evidence) for _, evidence in checked]
        results: list[np.ndarray | None] = [None] * len(images)
        groups: dict[object, list[int]] = {}
        for i, keep in enumerate(keeps):
            if len(keep) == 1:
                size = checked[i][1].size
                results[i] = _spread(np.ones((1, *size), np.float32), keep, len(checked[i][1].values))
            else:
                alike = all(np.ndim(k.compat) == 0 for k in self.kernels)
                groups.setdefault(None if alike else keep.tobytes(), []).append(i)
        for members in groups.values():
            first = members[0]
            marginals = self.engine.infer_batch(
                [checked[i][0] for i in members],
                [checked[i][1].energies(keeps[i]) for i in members],
                self._kernels_for(keeps[first], checked[first][1]),
                self.params.iterations,
                self.threads,
            )
            for i, q in zip(members, marginals, strict=True):
                results[i] = _spread(q, keeps[i], len(checked[i][1].values))
        return [q for q in results if q is not None]

    def _check(
        self, image: object, probs: object, logits: object, unary: object, ignore: object
    ) -> tuple[np.ndarray | None, Evidence]:
        needs_image = any(kernel.needs_image for kernel in self.kernels)
        if image is None and needs_image:
            raise TypeError("image is None but a Bilateral kernel needs one; give uint8 (H, W, 3)")
        checked = None if image is None else check_image(image)
        size = None if checked is None else (checked.shape[0], checked.shape[1])
        evidence = check_evidence(size, probs, logits, unary, ignore)
        check_kernels(self.kernels, len(evidence.values), evidence.size)
        return (checked if needs_image else None), evidence

    def _check_coarse(
        self, image: object, logits: object, size: tuple[int, int], stride: int
    ) -> tuple[np.ndarray | None, Evidence]:
        evidence = check_coarse(logits, size, stride)
        needs_image = any(kernel.needs_image for kernel in self.kernels)
        if image is None and needs_image:
            raise TypeError("image is None but a Bilateral kernel needs one; give uint8 (H, W, 3)")
        checked = None if image is None else check_image(image)
        if checked is not None and checked.shape[:2] != tuple(size):
            raise ValueError(f"image has shape {checked.shape} but size is {tuple(size)}; give the image's (H, W)")
        check_kernels(self.kernels, len(evidence.values), (int(size[0]), int(size[1])))
        return (checked if needs_image else None), evidence

    def _keep(self, evidence: Evidence) -> np.ndarray:
        """Return the indices of labels whose probability is at least ``prune``, or the highest, at some pixel."""
        labels = len(evidence.values)
        prune = default_prune(labels) if self.params.prune is None else self.params.prune
        if labels == 1 or prune == 0:
            return np.arange(labels)
        peaks = evidence.peaks()
        keep = peaks >= min(prune, float(peaks.max()))
        # The highest of n probabilities is at least 1 / n. A lower ``prune`` cannot leave out a most likely label.
        if prune * labels > 0.99:
            keep |= evidence.likeliest()
        return np.flatnonzero(keep)

    def _kernels_for(self, keep: np.ndarray, evidence: Evidence) -> list[Kernel]:
        if len(keep) == len(evidence.values):
            return list(self.kernels)
        return [with_labels(k, keep) for k in self.kernels]


def _steps(stepper: _core.Stepper, iterations: int) -> Iterator[tuple[np.ndarray, float]]:
    marginals = stepper.start()
    for _ in range(iterations + 1):
        following, divergence = stepper.step(marginals)
        yield marginals, divergence
        marginals = following


def _spread(marginals: np.ndarray, keep: np.ndarray, labels: int) -> np.ndarray:
    """Return marginals (labels, H, W) from those (K, H, W) of the labels ``keep``; 0 for the others."""
    if len(keep) == labels:
        return marginals
    full = np.zeros((labels, *marginals.shape[1:]), np.float32)
    full[keep] = marginals
    return full
