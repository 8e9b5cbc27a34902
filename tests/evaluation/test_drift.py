"""Drift: indices equal those of an independent implementation; chance gives no alert, a shift does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from segbatch.config.nightly import DriftSpec
from segbatch.evaluation.drift import Content, DriftFinding, histogram, js, measure_drift, psi
from segbatch.output.totals import CONFIDENCE_UNIT, Totals

NAMES = [f"class{c}" for c in range(21)]
# A few frequent classes and many rare ones, as in photographs.
USUAL = 1 / np.arange(1, 22) / np.sum(1 / np.arange(1, 22))


def content(rng: np.random.Generator, images: int, mean: np.ndarray = USUAL, confidence: float = 20.0) -> Content:
    """Images of 10,000 pixels, each with a composition and a confidence of its own."""
    pixels = (rng.dirichlet(mean * 2, images) * 10_000).astype(np.int64)
    sure = rng.beta(confidence, 2, images)
    totals = Totals(len(mean), records=images)
    totals.pixels = pixels.sum(axis=0).tolist()
    totals.images = (pixels > 100).sum(axis=0).tolist()
    totals.confidence = np.rint((pixels * sure[:, None]).sum(axis=0) * CONFIDENCE_UNIT).astype(int).tolist()
    return Content(totals, histogram(sure))


def alerts(findings: list[DriftFinding]) -> set[str]:
    return {f.kind for f in findings if f.alert}


def test_indices_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    for size in (2, 5, 150):
        p, q = rng.dirichlet(np.ones(size), 2)
        assert psi(p, q) == pytest.approx(entropy(p, q) + entropy(q, p))
        assert js(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
        assert psi(p, p) == js(p, p) == 0
    assert js(np.array([1 - 1e-12, 1e-12]), np.array([1e-12, 1 - 1e-12])) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("images", "earlier"), [(100, 100), (100, 1000), (1000, 300)])
def test_chance_is_no_alert(images: int, earlier: int) -> None:
    """In 150 nights that differ by chance alone, however small they are."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        assert not alerts(measure_drift(content(rng, images), content(rng, earlier), NAMES, DriftSpec()))


def test_a_shift_is_an_alert_of_its_kind_and_says_what_moved() -> None:
    rng = np.random.default_rng(3)
    swapped = USUAL.copy()
    swapped[[0, 20]] = swapped[[20, 0]]
    shares, presence, confidence = measure_drift(content(rng, 500, swapped), content(rng, 5000), NAMES, DriftSpec())
    assert shares.alert
    assert presence.alert
    assert not confidence.alert
    assert shares.detail.startswith(("class0 2", "class20 1"))
    assert "class20" in presence.detail
    unsure = measure_drift(content(rng, 500, confidence=6), content(rng, 5000), NAMES, DriftSpec())
    assert alerts(unsure) == {"confidence"}
    assert unsure[2].detail.startswith("mean 0.9")


def test_thresholds_decide_and_few_images_are_not_judged() -> None:
    rng = np.random.default_rng(4)
    tonight, earlier = content(rng, 500, confidence=12), content(rng, 5000)
    assert not alerts(measure_drift(tonight, earlier, NAMES, DriftSpec(psi=3, js=0.9)))
    assert alerts(measure_drift(tonight, earlier, NAMES, DriftSpec(psi=3, js=0.01)))
    assert alerts(measure_drift(tonight, earlier, NAMES, DriftSpec(psi=0.05, js=0.9)))
    assert measure_drift(content(rng, 99), earlier, NAMES, DriftSpec()) == []
    assert measure_drift(earlier, content(rng, 99), NAMES, DriftSpec()) == []


def test_a_class_that_was_never_seen_gives_a_number() -> None:
    rng = np.random.default_rng(5)
    never = np.append(USUAL[:-1], 1e-9)
    found = measure_drift(content(rng, 200), content(rng, 200, never / never.sum()), NAMES, DriftSpec())
    assert all(np.isfinite([f.psi, f.js]).all() for f in found)
