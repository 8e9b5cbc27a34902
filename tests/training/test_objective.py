"""The loss against its definition in NumPy, the weights of classes, the schedule and the average against theirs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from segbatch.config.training import TrainSpec
from segbatch.training.checkpoint import TrainingState
from segbatch.training.objective import median_frequency, segmentation_loss
from segbatch.training.optimize import learning_rate_factor, make_average

NEEDED = {"inputs": ["a"], "labels": "b", "output": "c"}


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Scores, class ids with a third of them ignored, and the loss of each pixel that counts (NumPy)."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 4, 5, 6))
    truth = rng.integers(-1, 4, (2, 5, 6))
    logp = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    n, y, x = np.nonzero(truth >= 0)
    return torch.tensor(scores, requires_grad=True), torch.tensor(truth), -logp[n, truth[n, y, x], y, x]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ohem_fraction", [1.0, 0.25])
def test_the_loss_is_its_definition(
    case: tuple[torch.Tensor, torch.Tensor, np.ndarray],
    reduction: Literal["mean", "sum"],
    weighted: bool,
    ohem_fraction: float,
) -> None:
    scores, truth, losses = case
    weight = np.array([0.5, 1, 2, 4]) if weighted else np.ones(4)
    known = truth.numpy()
    losses = losses * weight[known[known >= 0]]
    kept = np.sort(losses)[::-1][: int(ohem_fraction * len(losses))]
    got = segmentation_loss(
        scores,
        truth,
        weight=torch.tensor(weight, dtype=torch.float32) if weighted else None,
        reduction=reduction,
        ohem_fraction=ohem_fraction,
    )
    assert got.item() == pytest.approx(kept.mean() if reduction == "mean" else kept.sum(), rel=1e-5)


@pytest.mark.parametrize("ohem_fraction", [1.0, 0.5])
def test_ignored_pixels_have_no_gradient(ohem_fraction: float) -> None:
    scores = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(scores, torch.full((1, 4, 4), -1), ohem_fraction=ohem_fraction)
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


def test_poly_decays_to_zero_after_a_warmup() -> None:
    spec = TrainSpec.create(**NEEDED, power=0.5, warmup=4)
    factors = [learning_rate_factor(spec, u, 100) for u in range(100)]
    assert factors[0] == pytest.approx(0.25)
    assert factors[75] == pytest.approx(0.25**0.5)
    assert factors[99] == pytest.approx(0.01**0.5)
    fixed = TrainSpec.create(**NEEDED, schedule="fixed")
    assert {learning_rate_factor(fixed, u, 100) for u in range(100)} == {1.0}


def test_the_average_is_exponential_also_after_a_resume() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    state = TrainingState()
    average = make_average(network, 0.5, state)
    expected = network[0].weight.detach().clone()
    for update in range(1, 6):
        with torch.no_grad():
            network[0].weight.add_(update)
            network[1].num_batches_tracked.add_(1)
        assert average is not None
        average.update_parameters(network)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * network[0].weight.detach()
        state.update, state.average = update, average.module.state_dict()
        average = make_average(network, 0.5, state)
    assert average is not None
    torch.testing.assert_close(average.module.state_dict()["0.weight"], expected)
    assert average.module.state_dict()["1.num_batches_tracked"] == 5
    assert make_average(network, 0.0, state) is None
