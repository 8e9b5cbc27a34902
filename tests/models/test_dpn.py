"""DPN: its sizes, and b12 to b15 against the paper's equations, written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segbatch.errors import ModelError
from segbatch.models.runner import TorchModel
from segbatch.models.zoo.dpn import DPN, LocalFilter, Parsing, of_labels, parse, potts, read_contexts
from segbatch.models.zoo.receptive_field import layers_of, receptive_field
from tests.crf.inputs import photograph, random_image, smooth_logits
from tests.models.contract import photo
from tests.models.narrow import NarrowContract, on_meta, parameters, sides
from tests.models.test_caffe_systems import MEAN

pytestmark = pytest.mark.usefixtures("one_thread")


class TestDPN(NarrowContract):
    name = "dpn"

    def test_cells_lie_where_the_grid_says(self, model: TorchModel) -> None:
        """Of the scores before the layers that look at the image: a moved picture moves them as far."""
        x = torch.from_numpy((photo(32, 440)[..., ::-1] - MEAN).transpose(2, 0, 1).copy())[None]
        with torch.inference_mode():
            full, moved = model.network.unary(x), model.network.unary(x[..., 8:])
        # Half a receptive field lies between these scores and the borders that moved.
        inner, scale = slice(200, 232), float(full.abs().max())
        torch.testing.assert_close(full[..., 208:240], moved[..., inner], rtol=1e-3, atol=1e-4 * scale)
        assert (full[..., 209:241] - moved[..., inner]).abs().max() > 1e-3 * scale


# --- sizes ---------------------------------------------------------------------------------------------------


def test_sizes_for_512_pixels() -> None:
    network = on_meta(DPN, 21)
    network.parsing = torch.nn.Identity()
    network.forward = network.unary
    found = {name: side for name, (side, other) in sides(network, 512, 512).items() if side == other}
    names = ("conv1_2", "pool1", "pool2", "pool3", "conv4_3", "pool4", "conv5_3", "pool5", "fc6", "fc7", "fc8")
    assert [found[n] for n in names] == [512, 256, 128, *[64] * 8]
    assert (found["upscore"], found[""]) == (512, 512)
    assert sides(network, 375, 500)[""] == (375, 500)


def test_layers_are_those_of_the_papers_table() -> None:
    network = on_meta(DPN, 21)
    conv5, fc6 = layers_of([network.conv5_1])[0], layers_of([network.fc6])[0]
    assert (conv5.extent, fc6.extent) == (5, 25)  # b8, b9
    assert network.parsing.local.kernel_size == 50  # b12
    contexts = network.parsing.contexts
    assert tuple(contexts.weight.shape) == (105, 21, 9, 9)  # b13
    assert contexts.bias is None
    images, q = torch.empty(1, 64, 72, 3, dtype=torch.uint8, device="meta"), torch.empty(1, 21, 64, 72, device="meta")
    found = {}
    contexts.register_forward_hook(lambda module, inputs, output: found.update(b13=tuple(output.shape)))
    assert (tuple(network.parsing.penalties(images, q).shape), found["b13"]) == ((1, 21, 64, 72), (1, 105, 64, 72))
    trunk, fc = 14_714_688, 49 * 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 21 + 21
    assert parameters(network) == trunk + fc + 105 * 21 * 81


def test_receptive_field_is_vgg16s_in_spite_of_the_pools_that_are_gone() -> None:
    """By hand: 92 after conv4, + 3 x 2 x 16 in conv5, + 24 x 8 in fc6; with b12 and b13 9 cells more, see below."""
    network = on_meta(DPN, 21)
    unary = receptive_field(layers_of([*network.trunk(), network.fc6, network.fc7, network.fc8]))
    assert (unary.size, unary.stride, float(unary.center)) == (380, 8, 3.5)
    # 50 + 9 - 1 pixels come from 1 + (58 + 16 - 2) // 8 cells.
    whole = receptive_field(layers_of(network.path()))
    assert (whole.size, whole.stride) == (380 + 8 * 9, 1)
    # Each stride of 2 that is gone doubles the dilation of all that follows (Chen et al. 2015, sec. 3.1).
    assert (network.conv5_1.dilation, network.fc6.dilation) == ((2, 2), (4, 4))


# --- the paper's equations -----------------------------------------------------------------------------------


def literal_o12(image: np.ndarray, q: np.ndarray, local: LocalFilter) -> np.ndarray:
    """q(j, v) Σ_z d(j, z) q(z, v), pixel by pixel; d is a Gaussian of place and color, over its sum."""
    labels, height, width = q.shape
    before, colors, out = local.kernel_size // 2, image.astype(np.float64), np.zeros_like(q)
    for y in range(height):
        for x in range(width):
            total, mean = 0.0, np.zeros(labels)
            for dy in range(-before, local.kernel_size - before):
                for dx in range(-before, local.kernel_size - before):
                    if not (0 <= y + dy < height and 0 <= x + dx < width):
                        continue
                    change = colors[y + dy, x + dx] - colors[y, x]
                    d = np.exp(
                        -(dy**2 + dx**2) / (2 * local.theta_alpha**2) - change @ change / (2 * local.theta_beta**2)
                    )
                    total += d
                    mean += d * q[:, y + dy, x + dx]
            out[:, y, x] = q[:, y, x] * mean / total
    return out


def literal_o14(o12: np.ndarray, contexts: np.ndarray, mixtures: int) -> np.ndarray:
    """min_k Σ_v Σ_j μ_k(u, v, j - i) o12(j, v), label by label and context by context."""
    labels, height, width = o12.shape
    o13 = np.zeros((labels, mixtures, height, width))
    for u in range(labels):
        for k in range(mixtures):
            for y in range(height):
                for x in range(width):
                    for dy in range(-4, 5):
                        for dx in range(-4, 5):
                            if 0 <= y + dy < height and 0 <= x + dx < width:
                                mu = contexts[u * mixtures + k, :, dy + 4, dx + 4]
                                o13[u, k, y, x] += mu @ o12[:, y + dy, x + dx]
    return o13.min(axis=1)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


@pytest.mark.parametrize(("window", "mixtures"), [(6, 2), (50, 1), (3, 3)])
def test_b12_to_b15_are_the_papers_equations(window: int, mixtures: int) -> None:
    height, width, labels = 9, 11, 3
    image, logits = photograph("coffee", height, width), smooth_logits(labels, height, width)
    layers = Parsing(labels, mixtures)
    layers.local = LocalFilter(window, theta_alpha=4.0, theta_beta=20.0)
    contexts = np.random.default_rng(window).normal(0, 0.1, layers.contexts.weight.shape).astype(np.float32)
    with torch.no_grad():
        layers.contexts.weight.copy_(torch.from_numpy(contexts))
        got = layers(torch.from_numpy(image)[None], torch.from_numpy(logits)[None].double().float())[0].softmax(0)
    q = softmax(logits.astype(np.float64))
    o12 = literal_o12(image, q, layers.local)
    o15 = softmax(np.log(q) - literal_o14(o12, contexts.astype(np.float64), mixtures))
    np.testing.assert_allclose(got.numpy(), o15, atol=1e-5)
    assert np.abs(o15 - q).max() > 0.02, "the step must do something"


def test_b12_over_several_tiles_and_images_is_b12_of_each() -> None:
    local = LocalFilter(theta_alpha=5.0, theta_beta=15.0)
    images = torch.from_numpy(np.stack([photograph("coffee", 21, 61), photograph("astronaut", 21, 61)]))
    q = torch.from_numpy(np.stack([smooth_logits(2, 21, 61, seed) for seed in (0, 1)])).softmax(1)
    both = local(images, q)
    for one in (0, 1):
        torch.testing.assert_close(both[one], local(images[one : one + 1], q[one : one + 1])[0])
    for y, x in ((0, 0), (20, 60), (9, 33)):
        window = np.s_[max(0, y - 25) : y + 25, max(0, x - 25) : x + 25]
        rows, columns = np.mgrid[:21, :61]
        change = (images[1].numpy().astype(float) - images[1, y, x].numpy()) ** 2
        d = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50 - change.sum(-1) / 450)[window]
        np.testing.assert_allclose(
            both[1, :, y, x].numpy(), (q[1].numpy()[:, *window] * d).sum((1, 2)) / d.sum(), atol=1e-5
        )


@pytest.mark.parametrize("labels", [2, 6])
def test_one_pass_lowers_the_energy(labels: int) -> None:
    """Free energy of mean field: Σ q Φ + Σ q o14(q) + Σ q ln q, with Φ = -ln p; the pass begins at q = p."""
    image, logits = photograph("coffee", 48, 56), smooth_logits(labels, 48, 56)
    logits += np.random.default_rng(0).normal(0, 1, logits.shape).astype(np.float32)
    layers, images = Parsing(labels), torch.from_numpy(image)[None]
    p = torch.from_numpy(logits)[None].softmax(1)

    @torch.no_grad()
    def energy(q: torch.Tensor) -> float:
        return float((q * (q.log() - p.log() + layers.penalties(images, q))).sum())

    after = torch.from_numpy(parse(image, logits))[None]
    assert energy(after) < 0.98 * energy(p)
    assert (after.argmax(1) != p.argmax(1)).float().mean() > 0.02


def test_gradcheck_of_the_layers() -> None:
    layers = Parsing(2, 2).double()
    layers.local = LocalFilter(4, theta_alpha=2.0, theta_beta=40.0)
    images = torch.from_numpy(np.stack([random_image(2, 3, seed) for seed in (0, 1)]))
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 2, 3, dtype=torch.float64, generator=random, requires_grad=True)
    contexts = torch.randn(4, 2, 9, 9, dtype=torch.float64, generator=random)
    # All of a filter that reaches into an image of 2 x 3 pixels; the rest has no gradient.
    inner = contexts[:, :, 3:6, 2:7].clone().requires_grad_()

    def refined(logits: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        weight = F.pad(inner, (2, 2, 3, 3))
        return torch.func.functional_call(layers, {"contexts.weight": weight}, (images, logits))

    assert torch.autograd.gradcheck(refined, (logits, inner))


def test_all_layers_learn() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DPN(2, narrow=32).train()
        image = photo(40, 48)
        x = torch.from_numpy((image[..., ::-1] - MEAN).transpose(2, 0, 1).copy())[None]
        truth = torch.from_numpy((image.mean(-1) > image.mean()).astype(np.int64))[None]
        optimizer, losses = torch.optim.Adam(network.parameters(), lr=2e-3), []
        for _ in range(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), truth)
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert losses[-1] < losses[0]


# --- contexts ------------------------------------------------------------------------------------------------


def test_contexts_begin_as_potts_on_all_sides() -> None:
    contexts = potts(3, 5, weight=2.0).unflatten(0, (3, 5)).numpy()
    np.testing.assert_allclose(
        contexts.sum((3, 4)), np.broadcast_to(2 * (1 - np.eye(3))[:, None], (3, 5, 3)), atol=1e-6
    )
    right, down, left, up = (contexts[0, k, 1] > 0 for k in range(1, 5))
    assert (contexts[0, 0, 1] > 0).all()
    assert right[:, 4:].all()
    assert not right[:, :4].any()
    assert down[4:].all()
    assert not down[:4].any()
    assert (left == right[:, ::-1]).all()
    assert (up == down[::-1]).all()


def read(path: Path) -> torch.Tensor:
    return read_contexts(path.read_bytes(), str(path))


def test_contexts_of_some_labels_and_from_a_file(tmp_path: Path) -> None:
    network = DPN(4, mixtures=3, narrow=32)
    weight = torch.randn(12, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    network.parsing.contexts.weight.data.copy_(weight)
    path = tmp_path / "dpn.pth"
    torch.save(network.state_dict(), path)
    found = read(path)
    assert torch.equal(found, weight)
    some = of_labels(found, np.array([3, 1], np.int16))
    assert torch.equal(some.unflatten(0, (2, 3))[0, 2, 1], weight.unflatten(0, (4, 3))[3, 2, 1])
    torch.save({"fc8.bias": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"1 missing: contexts\.weight"):
        read(path)
    torch.save({"contexts.weight": torch.zeros(1, 1_000_000, 1)}, path)
    with pytest.raises(ModelError, match=r"contexts\.weight \(1, 1000000, 1\) for \(5, 1, 9, 9\)"):
        read(path)
    torch.save({"contexts.weight": torch.full((2, 2, 9, 9), torch.inf)}, path)
    with pytest.raises(ModelError, match=r"hold NaN or infinity in contexts\.weight"):
        read(path)
    torch.save({"contexts.weight": torch.zeros(10, 2, 7, 7)}, path)
    with pytest.raises(ModelError, match=r"contexts\.weight \(10, 2, 7, 7\) for \(10, 2, 9, 9\)"):
        read(path)
