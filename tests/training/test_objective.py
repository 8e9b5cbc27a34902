"""The loss against its definition in NumPy, the weights of classes, the schedule and the average against theirs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from segbatch.config.training import TrainSpec
from segbatch.training.objective import median_frequency, segmentation_loss
from segbatch.training.optimize import EMA, learning_rate

NEEDED = {"inputs": ["a"], "labels": "b", "output": "c"}


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Scores, class ids with a third of them void, and the loss of each pixel that counts (NumPy)."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 4, 5, 6))
    truth = rng.integers(-1, 4, (2, 5, 6))
    logp = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    n, y, x = np.nonzero(truth >= 0)
    return torch.tensor(scores, requires_grad=True), torch.tensor(truth), -logp[n, truth[n, y, x], y, x]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("hardest", [1.0, 0.25])
def test_the_loss_is_its_definition(
    case: tuple[torch.Tensor, torch.Tensor, np.ndarray],
    reduction: Literal["mean", "sum"],
    weighted: bool,
    hardest: float,
) -> None:
    scores, truth, losses = case
    weight = np.array([0.5, 1, 2, 4]) if weighted else np.ones(4)
    known = truth.numpy()
    losses = losses * weight[known[known >= 0]]
    kept = np.sort(losses)[::-1][: int(hardest * len(losses))]
    got = segmentation_loss(
        scores,
        truth,
        weight=torch.tensor(weight, dtype=torch.float32) if weighted else None,
        reduction=reduction,
        hardest=hardest,
    )
    assert got.item() == pytest.approx(kept.mean() if reduction == "mean" else kept.sum(), rel=1e-5)


@pytest.mark.parametrize("hardest", [1.0, 0.5])
def test_nothing_is_learnt_where_nothing_is_known(hardest: float) -> None:
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(scores, torch.full((1, 4, 4), -1), hardest=hardest)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_rare_classes_weigh_more() -> None:
    one = np.zeros((10, 10), int)  # class 0: 60 of its 100 pixels, then 100 of 100; class 1: 30 of 100; class 2: 10
    one[:3], one[3] = 1, 2
    two = np.zeros((10, 10), int)
    frequencies = np.array([160 / 200, 30 / 100, 10 / 100])
    got = median_frequency([one, two, np.full((3, 3), -1)], 4)
    np.testing.assert_allclose(got, [*(0.3 / frequencies), 0], rtol=1e-6)


def test_poly_falls_to_nothing_after_a_rise() -> None:
    spec = TrainSpec.create(**NEEDED, lr=2.0, power=0.5, warmup=4)
    rates = [learning_rate(spec, u, 100) for u in range(100)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[75] == pytest.approx(2 * 0.25**0.5)
    assert rates[99] == pytest.approx(2 * 0.01**0.5)
    fixed = TrainSpec.create(**NEEDED, lr=2.0, schedule="fixed")
    assert {learning_rate(fixed, u, 100) for u in range(100)} == {2.0}


def test_the_average_forgets_as_it_should() -> None:
    network = nn.Conv2d(1, 1, 1)
    average = EMA(network, 0.5)
    expected = network.weight.detach().clone()
    for update in range(1, 6):
        with torch.no_grad():
            network.weight.add_(update)
        average.add(network, update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    torch.testing.assert_close(average.state["weight"], expected)
