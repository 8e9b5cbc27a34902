"""The refiners: coarse scores in, the mask of the image out."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.numpy import save_file
from skimage import data

from segbatch import models
from segbatch.cli.progress import BarReporter, LineReporter
from segbatch.config.crf_mapping import CRFValue
from segbatch.config.job import JobSpec
from segbatch.crf import Bilateral, CRFParams, DenseCRF, Gaussian
from segbatch.crf.params import CRFSettings, default_prune
from segbatch.errors import ModelError, SpecError
from segbatch.labels import LabelSet
from segbatch.models.info import ModelInfo
from segbatch.models.zoo.dpn import parse
from segbatch.operations.explain import explain
from segbatch.planning.job import Job, resolve
from segbatch.records import Scores
from segbatch.refiners import build, describe, names
from segbatch.refiners.crfasrnn import CRFasRNNParams
from segbatch.refiners.densecrf import DenseCRFRefiner
from segbatch.refiners.entry import RefinerRequest
from segbatch.refiners.none import NoRefiner, pick
from segbatch.refiners.upsample import softmax, upsample
from segbatch.stages.scoring import coarse_scores
from tests.crf.inputs import exact_filter, random_image, smooth_logits


def network_logits(labels: int, cells: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Scores as a network's: a few labels with much to say, the others with little, smooth over the image."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(labels, *cells)) * 0.7
    strong = random.choice(labels, min(4, labels), replace=False)
    rough = random.normal(size=(len(strong), -(-cells[0] // 8), -(-cells[1] // 8))) * 4
    logits[strong] += np.kron(rough, np.ones((8, 8)))[:, : cells[0], : cells[1]] + 6
    return logits.astype(np.float32)


def scores_of(image: np.ndarray, stride: int = 8, labels: int = 21, prune: float = 1e-3) -> Scores:
    height, width = image.shape[:2]
    return coarse_scores(
        network_logits(labels, (-(-height // stride), -(-width // stride))), height, width, stride, prune
    )


def model_of(classes: int) -> ModelInfo:
    return replace(models.describe("null"), labels=LabelSet.of([f"class {i}" for i in range(classes)]))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("size", [(61, 83), (8, 8), (1, 1), (3, 40)])
def test_every_refiner_gives_a_mask_of_the_images_size(name: str, size: tuple[int, int]) -> None:
    refiner = build(RefinerRequest(name))
    image = np.array(data.astronaut()[: size[0], : size[1]])
    scores = scores_of(image)
    mask, marginal = refiner.refine(image if refiner.needs_image else None, scores)
    assert (mask.dtype, marginal.dtype, mask.shape, marginal.shape) == (np.int16, np.float32, size, size)
    assert set(np.unique(mask)) <= set(scores.class_ids.tolist())
    assert ((marginal > 0) & (marginal <= 1.0001)).all()


@pytest.mark.parametrize("name", names())
def test_one_class_is_the_mask(name: str) -> None:
    scores = Scores(np.zeros((1, 2, 3), np.float16), np.array([7], np.int16), 10, 20, 8)
    refiner = build(RefinerRequest(name))
    mask, marginal = refiner.refine(np.zeros((10, 20, 3), np.uint8) if refiner.needs_image else None, scores)
    assert (mask == 7).all()
    assert (marginal == 1).all()


@pytest.mark.parametrize("prune", [0.0, 1e-3, 1e-2])
@pytest.mark.parametrize("photograph", [data.astronaut, data.coffee, data.chelsea])
def test_coarse_inference_gives_the_mask_of_the_long_way(photograph: object, prune: float) -> None:
    """The long way: full-size scores in float32, every marginal, then the highest; pruned again or not."""
    image = np.array(photograph()[:300, :400])  # type: ignore[operator]
    scores = scores_of(image, prune=prune)
    params = CRFSettings(prune=prune)
    mask, marginal = DenseCRFRefiner(params).refine(image, scores)
    for crf in (DenseCRF(params), DenseCRF(CRFParams(prune=0))):
        long_mask, long_marginal = pick(crf.refine(image, logits=upsample(scores)), scores.class_ids)
        assert (mask == long_mask).mean() >= 0.9999
        assert np.abs(marginal - long_marginal).mean() <= 1e-4
    assert (mask != NoRefiner().refine(None, scores)[0]).mean() > 0.01, "there must be something to do"


@pytest.mark.parametrize(
    ("labels", "flat", "twins", "equal"),
    [(21, 1, False, 1), (21, 0.4, False, 1), (150, 1, False, 0.9995), (150, 0.4, False, 0.99), (150, 1, True, 0.99)],
)
def test_what_is_pruned_by_default_decides_hardly_a_pixel(labels: int, flat: float, twins: bool, equal: float) -> None:
    """Flat scores leave the likeliest of 150 classes 0.3 on average, and that of near twins 0.2: the hardest cases."""
    image = np.array(data.chelsea()[40:168, 100:260])
    logits = network_logits(30 if twins else labels, (16, 20))
    if twins:
        noise = np.random.default_rng(1).normal(0, 0.3, (labels, 16, 20)).astype(np.float32)
        logits = logits[np.arange(labels) % len(logits)] + noise
    refiner = DenseCRFRefiner(CRFSettings())
    every, default = (coarse_scores(flat * logits, 128, 160, 8, p) for p in (0, default_prune(labels)))
    mask = refiner.refine(image, every)[0]
    assert (refiner.refine(image, default)[0] == mask).mean() >= equal
    assert (mask != NoRefiner().refine(None, every)[0]).mean() > 0.01, "there must be something to do"


def test_a_refiner_prunes_no_class_that_the_scores_hold() -> None:
    """Class 2 wins between the cells alone, with a probability that is below every threshold in each of them."""
    values = np.log(np.array([[[0.99, 1e-6]], [[1e-6, 0.99]], [[0.0099, 0.0099]]], np.float32))
    scores = coarse_scores(values, 8, 16, 8, 0.02)
    assert scores.class_ids.tolist() == [0, 1, 2]
    mask, _ = DenseCRFRefiner(CRFSettings(0, w_spatial=1e-3)).refine(np.zeros((8, 16, 3), np.uint8), scores)
    assert set(np.unique(mask)) == {0, 1, 2}


def test_the_engines_agree_on_the_mask() -> None:
    image = np.array(data.coffee()[:200, :260])
    scores = scores_of(image)
    native, of_native = DenseCRFRefiner(CRFSettings()).refine(image, scores)
    for engine in ("pydensecrf", "torch"):
        mask, marginal = DenseCRFRefiner(CRFSettings(engine=engine)).refine(image, scores)
        assert (mask == native).mean() >= 0.999
        np.testing.assert_allclose(marginal, of_native, atol=2e-3)


def refiner_of(name: str, weights: str | None = None, **crf: CRFValue) -> DenseCRFRefiner:
    refiner = build(RefinerRequest(name, crf, weights))
    assert isinstance(refiner, DenseCRFRefiner)
    return refiner


def test_crfasrnn_begins_with_its_papers_parameters_and_takes_others() -> None:
    image = np.array(data.coffee()[100:196, 200:301])
    scores = scores_of(image, labels=5, prune=0)
    paper = CRFSettings(5.0, 160.0, 3.0, 3.0, 3.0, 10, "after", prune=1e-3)
    mask, marginal = refiner_of("crfasrnn").refine(image, scores)
    expected, of_expected = DenseCRFRefiner(paper).refine(image, scores)
    assert np.array_equal(mask, expected)
    assert np.array_equal(marginal, of_expected)
    assert (mask != DenseCRFRefiner(CRFSettings()).refine(image, scores)[0]).any()
    changed = refiner_of("crfasrnn", theta_alpha=40.0, iterations=5, engine="torch")
    assert (changed.params.theta_alpha, changed.params.theta_beta, changed.params.iterations) == (40.0, 3.0, 5)
    assert (changed.engine.name, changed.params.w_bilateral) == ("torch", 5.0)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """A file of the layer's matrices for five classes that are neither Potts nor symmetric, and these."""
    random = np.random.default_rng(2)
    matrices = {
        name: (weight * np.eye(5) + random.normal(0, 0.4, (5, 5))).astype(np.float32)
        for name, weight in (("spatial", 0.6), ("bilateral", 0.8), ("compatibility", -1))
    }
    path = tmp_path_factory.mktemp("learned") / "layer.safetensors"
    save_file({f"crf.{name}": m for name, m in matrices.items()} | {"fc6.bias": np.zeros(3, np.float32)}, path)
    return path, matrices


@pytest.mark.parametrize("class_ids", [[0, 1, 2, 3, 4], [1, 4]])
def test_crfasrnn_refines_with_what_was_learned(
    learned: tuple[Path, dict[str, np.ndarray]], class_ids: list[int]
) -> None:
    """By literal mean field over all pairs, for the classes that are left: label i is the network's class_ids[i]."""
    path, m = learned
    image = random_image(14, 18)
    ids = np.array(class_ids, np.int16)
    scores = Scores(smooth_logits(len(ids), 14, 18, scale=0.7).astype(np.float16), ids, 14, 18, 1)
    options: dict[str, CRFValue] = {"theta_alpha": 8.0, "theta_beta": 30.0, "theta_gamma": 2.0, "iterations": 3}
    refiner = refiner_of("crfasrnn", str(path), **options)
    mask, marginal = refiner.refine(image, scores)
    here = np.ix_(ids, ids)
    couplings = [(m["compatibility"] @ m[name])[here] for name in ("spatial", "bilateral")]
    filters = [
        exact_filter(Gaussian(2.0).features(image, 14, 18), "after"),
        exact_filter(Bilateral(8.0, 30.0).features(image, 14, 18), "after"),
    ]
    unary = scores.values.reshape(len(ids), -1).astype(np.float64)
    q = softmax(unary)
    for _ in range(3):
        q = softmax(unary - sum(c @ (q @ f.T) for c, f in zip(couplings, filters, strict=True)))
    assert (mask == ids[q.argmax(0)].reshape(14, 18)).mean() > 0.98
    assert np.abs(marginal - q.max(0).reshape(14, 18)).mean() < 0.02  # the lattice is near the exact kernel, no more
    potts = refiner_of("crfasrnn", **options).refine(image, scores)[1]
    assert np.abs(potts - q.max(0).reshape(14, 18)).mean() > 0.03


def test_dpn_refines_with_what_was_learned_by_the_classes_that_are_left(tmp_path: Path) -> None:
    """The layers over all classes, of which the others never occur, say the same as the refiner over those left."""
    contexts = np.random.default_rng(0).normal(0, 0.5, (4 * 2, 4, 9, 9)).astype(np.float32)
    save_file({"parsing.contexts.weight": contexts}, tmp_path / "dpn.safetensors")
    request = RefinerRequest("dpn", weights=str(tmp_path / "dpn.safetensors"))
    image, ids = random_image(20, 23), np.array([1, 3], np.int16)
    scores = Scores(smooth_logits(2, 20, 23, scale=0.7).astype(np.float16), ids, 20, 23, 1)
    mask, marginal = build(request).refine(image, scores)
    everything = np.full((4, 20, 23), -60, np.float32)
    everything[ids] = scores.values
    q = parse(image, everything, torch.from_numpy(contexts))
    assert np.array_equal(mask, q.argmax(0))
    np.testing.assert_allclose(marginal, q.max(0), atol=1e-5)
    assert (mask != build(RefinerRequest("dpn")).refine(image, scores)[0]).any()
    with pytest.raises(SpecError, match=r"dpn\.safetensors' are for 4 classes, but model .* has 21"):
        describe(request, model_of(21))
    assert str(describe(request, model_of(4)).parameters["weights"]).startswith("sha256:")
    with pytest.raises(ValueError, match=r"image has shape \(20, 22, 3\) but size is \(20, 23\)"):
        build(request).refine(image[:, 1:], scores)


def test_dpn_mends_noise_and_leaves_boundaries() -> None:
    """Two regions of different color; scores that see them, and err at many pixels."""
    random = np.random.default_rng(1)
    image, truth = random_image(48, 64), np.zeros((48, 64), int)
    truth[:, 32:] = 1
    noisy = np.stack([truth == 0, truth == 1]) * 2.0 + random.normal(0, 1.5, (2, 48, 64))
    scores = Scores(noisy.astype(np.float16), np.arange(2, dtype=np.int16), 48, 64, 1)
    mask, _ = build(RefinerRequest("dpn")).refine(image, scores)
    before, after = noisy.argmax(0) != truth, mask != truth
    assert before.mean() > 0.1
    assert after.mean() < 0.3 * before.mean()
    assert after[:, 31:33].mean() < 0.6 * before[:, 31:33].mean()


def test_weights_that_do_not_fit_are_refused(learned: tuple[Path, object], tmp_path: Path) -> None:
    path = str(learned[0])

    request = RefinerRequest("crfasrnn", weights=path)
    assert str(describe(request, model_of(5)).parameters["weights"]).startswith("sha256:")
    with pytest.raises(SpecError, match=r"layer\.safetensors' are for 5 classes, but model .* has 21"):
        describe(request, model_of(21))
    with pytest.raises(
        SpecError, match=r"refiner 'densecrf' takes none; leave them out, or give refiner crfasrnn or dpn"
    ):
        build(replace(request, name="densecrf"))
    with pytest.raises(SpecError, match=r"crf\.w_bilateral and refiner_weights are both given"):
        build(replace(request, values={"w_bilateral": 2.0}))
    other = tmp_path / "other.safetensors"
    save_file({"fc6.bias": np.zeros(3, np.float32)}, other)
    with pytest.raises(ModelError, match=r"3 missing: spatial, bilateral, compatibility"):
        build(replace(request, weights=str(other)))
    with pytest.raises(ModelError, match=r"refiner_weights 'absent\.pth': there is no such file"):
        build(replace(request, weights="absent.pth"))


def test_what_a_refiner_does_is_part_of_the_runs_identity(learned: tuple[Path, object], tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")

    def identity(**fields: object) -> dict[str, object]:
        return resolve(JobSpec.create(inputs=[str(pictures)], precision="fp32", **fields)).identity()

    assert identity(refiner="none")["crf"] is None
    tuned = models.describe("deeplabv3plus_mobilenet_v2", "camvid").crf.parameters
    assert tuned != CRFSettings()
    assert identity(weights="camvid")["crf"] == tuned.to_dict()
    assert identity(weights="camvid", crf={"theta_beta": 4.5})["crf"] == {**tuned.to_dict(), "theta_beta": 4.5}
    assert identity(refiner="crfasrnn")["crf"] == CRFasRNNParams().to_dict()


def test_a_plan_says_which_parameters_of_the_crf_come_with_the_weights(tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    where = {"inputs": [str(pictures)], "output": str(tmp_path / "out"), "num_cpus": 1, "model": "null"}

    def plan(**fields: object) -> str:
        return explain(JobSpec.create(**where, **fields)).to_text()

    source = "DeepLab's for scores of stride 8 on VOC; not tuned for these weights"
    assert f"\ncrf from     weights none ({source})\n" in plan()
    given = {"theta_beta": 4.0, "w_spatial": 0.0}
    assert f"\ncrf from     weights none, but for theta_beta, w_spatial ({source})\n" in plan(crf=given)
    for other in ({"refiner": "none"}, {"refiner": "crfasrnn"}, {"crf": CRFSettings().to_dict()}):
        assert "crf from" not in plan(**other)


def test_a_crf_after_a_network_that_has_one_is_warned_of(tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")

    def job(**fields: object) -> Job:
        return resolve(JobSpec.create(inputs=[str(pictures)], precision="fp32", **fields))

    assert job().warnings() == []
    assert job(model="crfasrnn", weights="random", refiner="none").warnings() == []
    twice = job(model="crfasrnn", weights="random")
    (text,) = twice.warnings()
    assert text == (
        "crfasrnn refines its scores itself (mean-field layers), and refiner densecrf refines them again; "
        "give --refiner none to refine them once"
    )
    for reporter in (LineReporter, BarReporter):
        console = Console(file=io.StringIO(), width=300)
        reporter(console).warning(text)
        assert f"warning: {text}\n" in console.file.getvalue()  # type: ignore[attr-defined]
    output = str(tmp_path / "out")
    explained = explain(twice.spec.model_copy(update={"output": output, "num_cpus": 2})).to_text()
    assert f"\nwarning      {text}" in explained


def test_an_image_of_another_size_is_refused() -> None:
    image = np.array(data.coffee()[:64, :80])
    with pytest.raises(ValueError, match=r"image has shape \(63, 80, 3\) but size is \(64, 80\)"):
        DenseCRFRefiner(CRFSettings()).refine(image[:63], scores_of(image))


def test_upsampling_hits_the_cells_and_stays_within_them() -> None:
    values = np.array([[[0.0, 10.0], [20.0, 30.0]]], np.float16)
    up = upsample(Scores(values, np.zeros(1, np.int16), 6, 6, 3))
    np.testing.assert_allclose(up[0, 1::3, 1::3], values[0], atol=1e-6)
    np.testing.assert_allclose(up[0, 0], [0, 0, 10 / 3, 20 / 3, 10, 10], atol=1e-5)
    assert (up.min(), up.max()) == (0, 30)
    np.testing.assert_allclose(softmax(np.concatenate([up, -up])).sum(0), 1, atol=1e-6)


def test_an_engine_that_is_not_installed_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(SpecError, match=r"crf\.engine: engine 'pydensecrf' needs pydensecrf2: pip install"):
        DenseCRFRefiner(CRFSettings(engine="pydensecrf"))
