"""Search for dense CRF parameters, coarse to fine (Chen et al. 2015, "DeepLab", sec. 4.1)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from segbatch.config.job import JobSpec
from segbatch.crf.params import CRFSettings
from segbatch.evaluation.survey import LabelSurvey
from segbatch.protocols import Reporter
from segbatch.text import counted, redact

# DeepLab searches w1 in [5, 10], theta_alpha in [50, 100], theta_beta in [3, 10], with a spatial kernel, for scores of
# stride 8. Scores of stride 4 are sharper: smaller values suit them, and no spatial kernel, which erodes thin objects.
COARSE = {
    "w_bilateral": (2.0, 5.0, 8.0),
    "theta_alpha": (10.0, 30.0, 80.0),
    "theta_beta": (3.0, 5.0, 9.0),
    "w_spatial": (0.0, 3.0),
}
_STEPS = {"w_bilateral": 1.0, "theta_alpha": 10.0, "theta_beta": 1.0}


@dataclass(frozen=True)
class Trial:
    """One set of parameters and its metrics; ``crf`` is None for the network without a CRF."""

    crf: CRFSettings | None
    mean_iou: float
    pixel_accuracy: float


@dataclass(frozen=True)
class Tuning:
    """The result of a search.

    Attributes:
        spec: The job whose network was run.
        trials: The highest mean IoU first.
        network: The network without a CRF.
        images: Number of images that were compared.
        failed: Number of images without scores, which were left out.
        labels: What the labels of the images contain.
    """

    spec: JobSpec
    trials: tuple[Trial, ...]
    network: Trial
    images: int
    failed: int
    labels: LabelSurvey | None = None

    @property
    def best(self) -> CRFSettings | None:
        """The parameters of the highest mean IoU; None if no trial is better than the network alone."""
        best = self.trials[0]
        return best.crf if best.mean_iou > self.network.mean_iou else None

    def rows(self, max_trials: int = 10) -> Iterator[tuple[str, ...]]:
        """Yield rows of a table, the network alone first: parameters, mean IoU, pixel accuracy."""
        for trial in (self.network, *self.trials[:max_trials]):
            values = _searched(trial.crf).values() if trial.crf else ()
            cells = [f"{v:g}" for v in values] or ["no CRF", *[""] * (len(COARSE) - 1)]
            yield (*cells, f"{trial.mean_iou:.4f}", f"{trial.pixel_accuracy:.4f}")

    def summary(self) -> str:
        """Return the result in one sentence."""
        best, alone = self.trials[0].mean_iou, self.network.mean_iou
        if self.best is None:
            return (
                f"no setting is better than the network alone: mean IoU {best:.4f} at best, network alone {alone:.4f}, "
                f"on {counted(self.images, 'image')}; hence refiner none"
            )
        return f"mean IoU {best:.4f} on {counted(self.images, 'image')}; network alone {alone:.4f}"

    def to_yaml(self) -> str:
        """Return a configuration for ``segbatch run`` with the best parameters, or without refiner."""
        spec = self.spec
        fields = {"model": spec.model, "weights": spec.weights, "classes": spec.classes, "prune": spec.prune}
        plain = {name: redact(v) if isinstance(v, str) else v for name, v in fields.items() if v is not None}
        lines = [f"# {line}" for line in (self.summary(), *(self.labels.lines() if self.labels else ()))]
        if hidden := [name for name, value in plain.items() if value != fields[name]]:
            lines.append(f"# without what is secret in the URI; give it in full to run: {', '.join(hidden)}")
        refiner = {"refiner": "none"} if self.best is None else {"refiner": "densecrf", "crf": self.best.to_dict()}
        return "\n".join([*lines, yaml.safe_dump({**plain, **refiner}, sort_keys=False)])


def max_trials(rounds: int) -> int:
    """Return how many sets of parameters ``search`` measures at most."""
    neighbors = 3 ** len(_STEPS) - 1
    return 1 + len(list(_grid())) + rounds * neighbors


def search(
    base: CRFSettings, rounds: int, measure: Callable[[Sequence[CRFSettings]], Iterable[Trial]], reporter: Reporter
) -> tuple[Trial, ...]:
    """Measure ``base`` and a coarse grid, then ``rounds`` times the neighbors of the best.

    The step of the neighbors halves in each round.

    Args:
        base: Also supplies the parameters that are not searched.
        measure: Returns a trial for each set of parameters.

    Returns:
        All trials, the highest mean IoU first.
    """
    grid = [base, *(replace(base, **point) for point in _grid())]
    trials: dict[CRFSettings, Trial] = {}
    steps = dict(_STEPS)
    for turn in range(rounds + 1):
        new = [crf for crf in dict.fromkeys(grid) if crf not in trials]
        trials |= {trial.crf: trial for trial in measure(new) if trial.crf is not None}
        best = max(trials.values(), key=lambda trial: trial.mean_iou)
        assert best.crf is not None
        if turn == 0:
            reporter.message(f"initial parameters: mean IoU {trials[base].mean_iou:.4f}")
        reporter.message(f"round {turn + 1} of {rounds + 1}: {len(new)} settings, best mean IoU {best.mean_iou:.4f}")
        grid = list(_neighbors(best.crf, steps))
        steps = {name: step / 2 for name, step in steps.items()}
    return tuple(sorted(trials.values(), key=lambda trial: -trial.mean_iou))


def _grid() -> Iterator[dict[str, Any]]:
    for point in itertools.product(*COARSE.values()):
        yield dict(zip(COARSE, point, strict=True))


def _searched(crf: CRFSettings) -> dict[str, Any]:
    """The parameters that are searched, by name."""
    values = crf.to_dict()
    return {name: values[name] for name in COARSE}


def _neighbors(crf: CRFSettings, steps: dict[str, float]) -> Iterator[CRFSettings]:
    """One step up and down of each parameter, and of all combinations."""
    values = _searched(crf)
    for signs in itertools.product((-1, 0, 1), repeat=len(steps)):
        moved = {n: values[n] + s * step for s, (n, step) in zip(signs, steps.items(), strict=True)}
        if all(value > 0 for value in moved.values()):
            yield replace(crf, **moved)
