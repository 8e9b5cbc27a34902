"""The confusion matrix, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from segbatch.evaluation.confusion import Confusion


def test_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    total = Confusion(5)
    truths, masks = [], []
    for _ in range(4):
        truth = rng.integers(0, 5, (30, 40))
        mask = np.where(rng.random((30, 40)) < 0.7, truth, rng.integers(0, 5, (30, 40)))
        truth[rng.random((30, 40)) < 0.1] = 255
        part = Confusion(5)
        part.add(truth, mask)
        total += part
        truths.append(truth[truth != 255])
        masks.append(mask[truth != 255])
    t, m = np.concatenate(truths), np.concatenate(masks)
    assert np.array_equal(total.counts, confusion_matrix(t, m))
    assert total.pixel_accuracy == pytest.approx(accuracy_score(t, m), abs=1e-12)
    assert total.iou == pytest.approx(jaccard_score(t, m, average=None), abs=1e-12)
    assert total.mean_iou == pytest.approx(jaccard_score(t, m, average="macro"), abs=1e-12)


def test_classes_that_never_occur_do_not_count() -> None:
    found = Confusion(4, ignore_index=9)
    found.add(np.array([[0, 0, 1, 9, 7]]), np.array([[0, 1, 1, 3, 2]]))
    assert found.counts.sum() == 3
    assert np.isnan(found.iou[2:]).all()
    assert found.mean_iou == pytest.approx(0.5)
    assert np.isnan(Confusion(2).mean_iou)
    assert np.isnan(Confusion(2).pixel_accuracy)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"truth is \(2, 3\), mask is \(3, 2\)"):
        Confusion(2).add(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(ValueError, match="ids 0 to 5, but there are 2 classes"):
        Confusion(2).add(np.zeros((1, 2), int), np.array([[0, 5]]))
