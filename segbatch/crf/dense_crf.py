"""The dense CRF that people call: it checks, prunes, and hands the rest to an engine."""

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

    ``params`` gives the two usual kernels; ``kernels`` replaces them by any number of ``Gaussian``,
    ``Bilateral`` and ``Features``. ``compat`` (C, C) is the label compatibility μ that multiplies the weights
    of ``params``, for models that are not Potts; μ = 1 - I is Potts. ``engine`` is ``native``,
    ``pydensecrf``, ``torch`` or an object with the methods of ``segbatch.crf.engine.Engine``. ``threads`` is
    how many images ``refine_batch`` works on at once.
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
        """Image uint8 (H, W, 3) and one of the scores float32 (C, H, W) -> marginals float32 (C, H, W).

        ``probs`` in 0-1, ``logits`` (softmax not yet taken) or ``unary`` energies (lower is likelier).
        ``ignore`` bool (H, W) marks pixels without evidence. ``image`` may be None if no kernel looks at it.
        Labels that were pruned have marginal 0. Raises ``TypeError`` or ``ValueError`` that name the
        argument and the remedy.
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
        """The likeliest label of each pixel, int32 (H, W): arguments and errors as of ``refine``."""
        marginals = self.refine(image, probs=probs, logits=logits, unary=unary, ignore=ignore)
        return marginals.argmax(axis=0).astype(np.int32)

    def refine_coarse(
        self, image: np.ndarray | None, logits: np.ndarray, size: tuple[int, int], stride: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coarse logits -> (likeliest label int32 (H, W), its marginal float32 (H, W)), without full-size scores.

        ``logits`` float32 (C, h, w) are what a network of that ``stride`` says of an image of ``size``
        (H, W): h and w are H and W over ``stride``, rounded up, and cell (i, j) has its center at pixel
        ``((i + 0.5) * stride - 0.5, (j + 0.5) * stride - 0.5)``; between the centers they are bilinear,
        beyond the outermost constant. Pruning looks at the cells. Errors as of ``refine``. Engines without a
        path of their own are given the upsampled logits.
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
        """Inference to watch: ``iterations + 1`` pairs of marginals float32 (C, H, W) and their KL divergence.

        The first pair is the softmax of the evidence, the last what ``refine`` returns without pruning (which
        would change what the divergences are relative to). KL(Q || P) is in nats, summed over the pixels,
        without the constant log Z (Krähenbühl & Koltun 2011, eq. 4, each pair of pixels counted twice as in
        their code, so that it need not fall at every step). Needs ``engine="native"``; errors as of ``refine``.
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
        """``refine`` of each image, ``threads`` at once; the result is the same for any number of them.

        Sizes and numbers of labels may differ from one image to the next.
        """
        counts = {n: len(v) for n, v in (("probs", probs), ("logits", logits), ("unary", unary)) if v is not None}
        counts |= {"ignore": len(ignore)} if ignore is not None else {}
        for name, count in counts.items():
            if count != len(images):
                raise ValueError(f"{name} has {count} entries but there are {len(images)} images; give one each")
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
        """Indices of the labels whose probability reaches ``params.prune`` at some pixel, or is the highest there."""
        labels = len(evidence.values)
        prune = default_prune(labels) if self.params.prune is None else self.params.prune
        if labels == 1 or prune == 0:
            return np.arange(labels)
        peaks = evidence.peaks()
        keep = peaks >= min(prune, float(peaks.max()))
        # The highest of n probabilities is at least 1 / n: below, no label that is the likeliest can be left out.
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
    """Marginals (K, H, W) of the labels ``keep`` -> (labels, H, W), zero for the others."""
    if len(keep) == labels:
        return marginals
    full = np.zeros((labels, *marginals.shape[1:]), np.float32)
    full[keep] = marginals
    return full
