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
    from segbatch.crf import CRFParams, torch_filter, torch_lattice, torch_mean_field, torch_sparse, triton_filter

    def switch(on: bool) -> None:
        torch_filter._SPATIAL._cache.clear()
        for module in (torch_sparse, torch_lattice, torch_mean_field):
            module.triton = lambda device: triton_filter if on else None  # type: ignore[attr-defined]

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    for dims, scale in ((1, 3.0), (2, 2.0), (5, 2.0), (5, 300.0), (9, 1.0)):
        features = torch.randn(2, 90, dims) * scale
        features[0, :70] = 0.3 * scale  # many points in one cell: rows of hundreds of entries
        features[1, :20] = torch.arange(20)[:, None] / 4.0  # on the edges of simplices
        features[1, 30:] = -0.7 * scale  # few vertices: the interpreter takes a second for some hundred
        features = features.transpose(1, 2).contiguous().transpose(1, 2)  # as a kernel's own may be
        lattices = []
        for on in (False, True):
            switch(on)
            lattices.append(torch_lattice.build_lattice(features))
        plain, ours = lattices
        assert ours.vertices == plain.vertices
        for name in ("index", "offsets", "weights"):
            assert torch.equal(getattr(ours.splat, name), getattr(plain.splat, name)), (dims, name)
            assert torch.equal(getattr(ours.slice, name), getattr(plain.slice, name)), (dims, name)
        assert torch.equal(ours.order, plain.order)
        assert ours.splat.long is not None
        for columns in (1, 21) if dims == 5 else (4,):
            values = torch.rand(180, columns)
            switch(False)
            splatted = plain.splat(values)
            blurred = plain.blur(splatted)
            switch(True)
            for pieces in (ours.splat, plain.splat.in_pieces(4, 16), plain.splat.in_pieces(40, 1000)):
                torch.testing.assert_close(pieces(values), splatted, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(ours.blur(splatted), blurred, rtol=1e-5, atol=1e-5)
    twice = ours.repeat(2)
    values = torch.rand(180, 4)
    both = twice.blur(twice.splat(torch.cat([values, 2 * values])))
    one = ours.blur(ours.splat(values))
    torch.testing.assert_close(both, torch.cat([one, 2 * one]), rtol=1e-5, atol=1e-5)

    for images, labels in ((1, 4), (2, 5), (1, 21)):
        pixels = rng.integers(0, 255, (images, 5, 7, 3), dtype=np.uint8)
        pixels[:, :4] = 255
        unary = torch.from_numpy(rng.normal(size=(images, labels, 5, 7)).astype(np.float32) * 2)
        unary[:, -1, 3] = torch.inf  # a label that may not be there
        kernels = CRFParams(theta_alpha=30.0, theta_beta=5.0).kernels()
        both = []
        for on in (False, True):
            switch(on)
            both.append(torch_mean_field.mean_field(torch.from_numpy(pixels), unary, kernels, 2))
        torch.testing.assert_close(both[1], both[0], rtol=0, atol=2e-6)


def test_equal_to_torchs_operations() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", "from tests.crf.test_triton_kernels import check; check()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
