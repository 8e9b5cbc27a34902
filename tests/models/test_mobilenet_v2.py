"""MobileNetV2 in plain torch is torchvision's, bit for bit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision.models

from segbatch.models.fold import fold_batch_norms
from segbatch.models.mobilenet_v2 import MobileNetV2

pytestmark = pytest.mark.usefixtures("one_thread")


def test_random_weights_and_the_state_of_the_generator_are_torchvisions() -> None:
    """``--weights random`` of the built-in network must stay what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs, after_theirs = torchvision.models.mobilenet_v2(weights=None).state_dict(), torch.rand(1)
        torch.manual_seed(7)
        ours, after_ours = MobileNetV2().state_dict(), torch.rand(1)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(after_ours, after_theirs)


def test_features_are_bit_equal_to_torchvisions() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        theirs, ours = torchvision.models.mobilenet_v2(weights=None), MobileNetV2()
        for norm in (m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            torch.nn.init.uniform_(norm.weight, 1.0, 2.0)
            torch.nn.init.normal_(norm.bias)
            torch.nn.init.normal_(norm.running_mean)
        x = torch.rand(1, 3, 64, 98)
    ours.load_state_dict(theirs.state_dict())
    theirs.eval(), ours.eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))
        for precision in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision):
                assert torch.equal(ours.features(x), theirs.features(x))
        assert ours.features(x).abs().max() > 1e-3
        folded = fold_batch_norms(ours.features)(x)
        assert torch.equal(folded, fold_batch_norms(theirs.features)(x))


def test_the_built_in_network_does_not_import_torchvision() -> None:
    code = (
        "import sys; from segbatch import models; models.build('deeplabv3plus_mobilenet_v2', device='cpu'); "
        "print([m for m in ('torchvision', 'torch._dynamo', 'sympy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
