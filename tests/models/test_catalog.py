"""What the catalog states of each network is true of it, and stated without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from segbatch import models
from segbatch.models.loading import on_meta

NETWORKS = [name for name in models.MODELS if models.entry(name).architecture() is not None]


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_as_stated(name: str) -> None:
    network = models.entry(name).architecture()
    assert network is not None
    for classes in (2, 5, 21):
        stated = sum(factor * classes**power for power, factor in enumerate(network.parameters))
        assert stated == sum(p.numel() for p in on_meta(network, classes).parameters())


def test_all_networks_are_listed_without_torch() -> None:
    code = """
import sys
from segbatch import models
assert all(info.parameters for info in models.names() if info.name != "null")
for name in models.MODELS:
    models.describe(name, "default" if name == "null" else "random:3")
print([m for m in ("torch", "torchvision") if m in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
