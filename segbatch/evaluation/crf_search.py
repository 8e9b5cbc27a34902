"""Search of dense CRF parameters, coarse to fine, as DeepLab's (Chen et al. 2015, section 4.1). Does not import Ray."""

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
from segbatch.text import redact

# DeepLab searches w1 in [5, 10], theta_alpha in [50, 100], theta_beta in [3, 10], with a spatial kernel. Scores of
# stride 4, sharper than its 8, want smaller ones, and no spatial kernel, which wears thin things away.
COARSE = {
    "w_bilateral": (2.0, 5.0, 8.0),
    "theta_alpha": (10.0, 30.0, 80.0),
    "theta_beta": (3.0, 5.0, 9.0),
    "w_spatial": (0.0, 3.0),
}
_STEPS = {"w_bilateral": 1.0, "theta_alpha": 10.0, "theta_beta": 1.0}


@dataclass(frozen=True)
class Setting:
    """One set of parameters and its results. ``crf`` is None for the network alone."""

    crf: CRFSettings | None
    mean_iou: float
    pixel_accuracy: float


@dataclass(frozen=True)
class Tuning:
    """The ``settings`` that were tried, best first, and the ``network`` alone.

    ``spec`` is that of the search; ``images`` were compared, ``failed`` gave no scores; ``labels`` is what a look at
    their labels said.
    """

    spec: JobSpec
    settings: list[Setting]
    network: Setting
    images: int
    failed: int
    labels: LabelSurvey | None = None

    @property
    def best(self) -> CRFSettings | None:
        """The parameters of the highest mean IoU; None if no setting is better than the network alone."""
        best = self.settings[0]
        return best.crf if best.mean_iou > self.network.mean_iou else None

    def rows(self, most: int = 10) -> Iterator[tuple[str, ...]]:
        """A table: the parameters that were searched, mean IoU, pixel accuracy; the network alone comes first."""
        for setting in (self.network, *self.settings[:most]):
            crf = setting.crf
            named = [f"{getattr(crf, name):g}" for name in COARSE] if crf else ["no CRF", *[""] * (len(COARSE) - 1)]
            yield (*named, f"{setting.mean_iou:.4f}", f"{setting.pixel_accuracy:.4f}")

    def summary(self) -> str:
        """The result in one sentence."""
        best, alone = self.settings[0].mean_iou, self.network.mean_iou
        if self.best is None:
            return (
                f"no setting is better than the network alone: mean IoU {best:.4f} at best, network alone {alone:.4f}, "
                f"on {self.images} images; hence refiner none"
            )
        return f"mean IoU {best:.4f} on {self.images} images; network alone {alone:.4f}"

    def to_yaml(self) -> str:
        """A configuration for ``segbatch run --config``: the same network, and the best parameters or no refiner."""
        fields = {name: getattr(self.spec, name) for name in ("model", "weights", "classes", "prune")}
        plain = {name: redact(v) if isinstance(v, str) else v for name, v in fields.items() if v is not None}
        lines = [f"# {line}" for line in (self.summary(), *(self.labels.lines() if self.labels else ()))]
        if hidden := [name for name, value in plain.items() if value != fields[name]]:
            lines.append(f"# without what is secret in the URI; give it in full to run: {', '.join(hidden)}")
        refiner = {"refiner": "none"} if self.best is None else {"refiner": "densecrf", "crf": self.best.to_dict()}
        return "\n".join([*lines, yaml.safe_dump({**plain, **refiner}, sort_keys=False)])


def settings_at_most(rounds: int) -> int:
    """How many settings ``search`` measures at most."""
    neighbors = 3 ** len(_STEPS) - 1
    return 1 + len(list(_grid())) + rounds * neighbors


def search(
    base: CRFSettings, rounds: int, measure: Callable[[Sequence[CRFSettings]], Iterable[Setting]], reporter: Reporter
) -> list[Setting]:
    """Measure ``base`` and the coarse grid, then ``rounds`` times the neighbors of the best at half the step.

    ``measure`` gives a setting for each set of parameters. Returns all settings, the highest mean IoU first.
    """
    grid = [base, *(_at(base, p) for p in _grid())]
    tried: dict[CRFSettings, Setting] = {}
    steps = dict(_STEPS)
    for turn in range(rounds + 1):
        new = [crf for crf in dict.fromkeys(grid) if crf not in tried]
        tried |= {s.crf: s for s in measure(new) if s.crf is not None}
        best = max(tried.values(), key=lambda s: s.mean_iou)
        assert best.crf is not None
        if turn == 0:
            reporter.message(f"the parameters to begin with: mean IoU {tried[base].mean_iou:.4f}")
        reporter.message(f"round {turn + 1} of {rounds + 1}: {len(new)} settings, best mean IoU {best.mean_iou:.4f}")
        grid = list(_neighbors(best.crf, steps))
        steps = {name: step / 2 for name, step in steps.items()}
    return sorted(tried.values(), key=lambda s: -s.mean_iou)


def _grid() -> Iterator[tuple[float, ...]]:
    return itertools.product(*COARSE.values())


def _at(base: CRFSettings, point: tuple[float, ...]) -> CRFSettings:
    moved: dict[str, Any] = dict(zip(COARSE, point, strict=True))
    return replace(base, **moved)


def _neighbors(crf: CRFSettings, steps: dict[str, float]) -> Iterator[CRFSettings]:
    """One step up and down of each parameter, and of all combinations."""
    for signs in itertools.product((-1, 0, 1), repeat=len(steps)):
        moved = {n: getattr(crf, n) + s * step for s, (n, step) in zip(signs, steps.items(), strict=True)}
        if all(value > 0 for value in moved.values()):
            yield replace(crf, **moved)
