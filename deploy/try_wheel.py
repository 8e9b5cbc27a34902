"""Try an installed wheel with only NumPy: run the compiled dense CRF on scores with a known result."""

import sys
from importlib.metadata import version

import numpy as np

import segbatch
from segbatch.crf import DenseCRF

height, width = 48, 64
y, x = np.mgrid[:height, :width]
disc = (y - 24) ** 2 + (x - 32) ** 2 < 15**2
noise = np.random.default_rng(0).normal(0, 4, (height, width, 1))
image = (np.where(disc[..., None], 215, 40) + noise).clip(0, 255).repeat(3, axis=2).astype(np.uint8)
# Scores with the disc 4 pixels too far to the right.
scores = np.where(np.roll(disc, 4, axis=1), 1.0, -1.0)
marginals = DenseCRF().refine(image, logits=np.stack([-scores, scores]).astype(np.float32))
wrong = int(((marginals.argmax(axis=0) == 1) != disc).sum())
if wrong > 5 or version("segbatch") != segbatch.__version__:
    sys.exit(f"the refined disc differs in {wrong} of {disc.size} pixels")
print(f"segbatch {segbatch.__version__} on Python {sys.version.split()[0]}: the dense CRF works")
