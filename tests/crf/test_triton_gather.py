"""The Triton kernels in Triton's interpreter, which needs no GPU: the same numbers as torch's own operations.

In a process of its own: what is interpreted is settled when the kernels are defined.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton comes with torch for CUDA alone")


def check() -> None:
    from segbatch.crf import CRFParams, torch_engine, torch_lattice, triton_gather

    def switch(on: bool) -> None:
        for module in (torch_lattice, torch_engine):
            module.triton_gather = lambda device: triton_gather if on else None  # type: ignore[attr-defined]

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    features = torch.randn(2, 60, 5) * 2
    features[0, :40] = 0.3  # many points in one cell: rows of hundreds of entries
    plain = torch_lattice.build_lattice(features).splat
    for pieces in (plain, plain.in_pieces(4), plain.in_pieces(4).repeat(1, 120)):
        for columns in (1, 4, 21):
            values = torch.rand(120, columns)
            switch(False)
            expected = plain(values)
            switch(True)
            torch.testing.assert_close(pieces(values), expected, rtol=1e-5, atol=1e-5)
    assert plain.in_pieces(4).long is not None
    assert plain.in_pieces(4).long.rest.long is not None

    for images, labels in ((1, 4), (2, 5), (1, 21)):
        pixels = rng.integers(0, 255, (images, 7, 9, 3), dtype=np.uint8)
        pixels[:, :6] = 255
        unary = torch.from_numpy(rng.normal(size=(images, labels, 7, 9)).astype(np.float32) * 2)
        unary[:, -1, 3] = torch.inf  # a label that may not be there
        kernels = CRFParams(theta_alpha=30.0, theta_beta=5.0).kernels()
        both = []
        for on in (False, True):
            switch(on)
            both.append(torch_engine.mean_field(torch.from_numpy(pixels), unary, kernels, 2))
        torch.testing.assert_close(both[1], both[0], rtol=0, atol=2e-6)


def test_equal_to_torchs_operations() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", "from tests.crf.test_triton_gather import check; check()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
