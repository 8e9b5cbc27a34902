"""The dense CRF that people call: it checks, prunes, and hands the rest to an engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segbatch.crf.checks import check_evidence, check_image
from segbatch.crf.engine import Engine, build_engine
from segbatch.crf.evidence import Evidence
from segbatch.crf.kernels import Bilateral, Kernel, check_compat, with_compat, with_labels
from segbatch.crf.params import CRFParams


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
        needs_image = any(isinstance(k, Bilateral) for k in self.kernels)
        if image is None and needs_image:
            raise TypeError("image is None but a Bilateral kernel needs one; give uint8 (H, W, 3)")
        checked = None if image is None else check_image(image)
        size = None if checked is None else (checked.shape[0], checked.shape[1])
        evidence = check_evidence(size, probs, logits, unary, ignore)
        check_compat(self.kernels, len(evidence.values))
        return (checked if needs_image else None), evidence

    def _keep(self, evidence: Evidence) -> np.ndarray:
        """Indices of the labels that can win somewhere: their probability reaches ``params.prune``."""
        labels = len(evidence.values)
        if labels == 1 or self.params.prune == 0:
            return np.arange(labels)
        peaks = evidence.peaks()
        return np.flatnonzero(peaks >= min(self.params.prune, float(peaks.max())))

    def _kernels_for(self, keep: np.ndarray, evidence: Evidence) -> list[Kernel]:
        if len(keep) == len(evidence.values):
            return list(self.kernels)
        return [with_labels(k, keep) for k in self.kernels]


def _spread(marginals: np.ndarray, keep: np.ndarray, labels: int) -> np.ndarray:
    """Marginals (K, H, W) of the labels ``keep`` -> (labels, H, W), zero for the others."""
    if len(keep) == labels:
        return marginals
    full = np.zeros((labels, *marginals.shape[1:]), np.float32)
    full[keep] = marginals
    return full
