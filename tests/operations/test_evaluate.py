"""Outputs of real runs compared with real label files: metrics by scikit-learn, and all that can be wrong."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score
from typer.testing import CliRunner

import segbatch
from segbatch import JobSpec
from segbatch.cli import app as cli
from segbatch.codecs import mask_png as png
from segbatch.config.base import read_config
from segbatch.errors import OutputError, PlanError, SpecError
from segbatch.operations.evaluate import Evaluation, evaluate
from tests.cluster.jobs import rows

pytestmark = pytest.mark.usefixtures("local_ray")

IMAGES = 9
FORMAT1 = Path(__file__).parents[1] / "fixtures/format1"


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture uint8 (48, 64, 3) of a bright disc and a gray bar on dark ground, and its exact classes."""
    y, x = np.mgrid[:48, :64]
    label = np.zeros((48, 64), np.uint8)
    label[(y > 30 + seed % 5) & (y < 42)] = 1
    label[(y - 20) ** 2 + (x - 15 - 4 * seed) ** 2 < 13**2] = 2
    noise = np.random.default_rng(seed).normal(0, 12, (48, 64, 1))
    pixels = np.array([40, 128, 215])[label][..., None] + noise
    return pixels.clip(0, 255).repeat(3, axis=2).astype(np.uint8), label


def write_labels(folder: Path, change: dict[int, Any] | None = None) -> Path:
    """Labels of the pictures; ``change`` gives other pixels, other bytes, or None for no file."""
    folder.mkdir()
    for i in range(IMAGES):
        label = (change or {}).get(i, picture(i)[1])
        if isinstance(label, bytes):
            (folder / f"{i:03d}.png").write_bytes(label)
        elif label is not None:
            Image.fromarray(label).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``network`` and ``crf``: outputs of the pictures and a page of HTML, in several files; ``labels``."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "images").mkdir()
    for i in range(IMAGES):
        Image.fromarray(picture(i)[0]).save(folder / "images" / f"{i:03d}.png")
    (folder / "images" / "page.png").write_bytes(b"<html>gone</html>")
    write_labels(folder / "labels")
    for name, refiner in (("network", "none"), ("crf", "densecrf")):
        segbatch.run(
            JobSpec.create(
                inputs=[str(folder / "images")],
                output=str(folder / name),
                model="tests.networks:fast",
                refiner=refiner,
                chunk_size=4,
                max_error_fraction=1,
            )
        )
    return folder


def compared(output: Path) -> tuple[np.ndarray, np.ndarray]:
    """All labels and all masks of an output, pixel by pixel."""
    masks = {r["image_id"].rpartition("/")[2]: png.decode(r["mask"]) for r in rows(output) if r["mask"]}
    assert len(masks) == IMAGES
    order = sorted(masks)
    truth = np.concatenate([picture(int(name[:3]))[1].ravel() for name in order])
    return truth, np.concatenate([masks[name].ravel() for name in order])


def value(found: Evaluation, metric: str, output: int = 0) -> Any:
    return found.outputs[output].metrics[metric].value


def test_metrics_are_scikit_learns_before_and_after_the_crf(work: Path) -> None:
    found = evaluate(str(work / "crf"), labels=str(work / "labels"), against=str(work / "network"))
    for place, name in enumerate(("crf", "network")):
        t, m = compared(work / name)
        assert value(found, "pixel_accuracy", place) == pytest.approx(accuracy_score(t, m), abs=1e-6)
        assert value(found, "class_iou", place) == pytest.approx(jaccard_score(t, m, average=None), abs=1e-6)
        assert value(found, "mean_iou", place) == pytest.approx(jaccard_score(t, m, average="macro"), abs=1e-6)
        e = found.outputs[place]
        assert e.images == IMAGES
        assert e.confusion.sum() == len(t)
        assert e.metrics["mean_iou"].low < e.metrics["mean_iou"].value < e.metrics["mean_iou"].high
        assert {k: (f.times, f.examples) for k, f in e.findings.items()} == {
            "error rows": (1, ["page.png: decode/UnknownFormat"])
        }
        assert e.metrics["confidence_gap"].value == pytest.approx(
            abs(e.metrics["mean_confidence"].value - e.metrics["pixel_accuracy"].value), abs=1e-6
        )
        images = [r for r in rows(work / name) if r["mask"]]
        stated = sum(c["confidence"] * c["pixels"] for r in images for c in r["classes"]) / len(t)
        assert e.metrics["mean_confidence"].value == pytest.approx(stated, abs=1e-4)
        assert e.metrics["expected_calibration_error"].value >= e.metrics["confidence_gap"].value
    assert found.difference is not None
    for metric in ("mean_iou", "boundary_f1"):  # the network's cells of 4 pixels miss the rims; the CRF finds them
        assert found.difference[metric].low > 0
        gain = value(found, metric, 0) - value(found, metric, 1)
        assert found.difference[metric].value == pytest.approx(gain, abs=1e-12)
    gains = found.difference["trimap_pixel_accuracy"].value
    assert gains[0] > gains[-1] > 0


def test_the_same_call_gives_the_same_intervals(work: Path) -> None:
    labels = str(work / "labels")
    first = evaluate(str(work / "network"), labels=labels, resamples=50).to_json()
    assert evaluate(str(work / "network"), labels=labels, resamples=50).to_json() == first
    other = evaluate(str(work / "network"), labels=labels, resamples=50, seed=1).to_json()
    assert other["outputs"][0]["metrics"]["mean_iou"]["value"] == first["outputs"][0]["metrics"]["mean_iou"]["value"]
    assert other != {**first, "bootstrap": other["bootstrap"]}
    assert json.loads(json.dumps(first, allow_nan=False)) == first


def test_what_cannot_be_compared_is_counted_and_named(work: Path, tmp_path: Path) -> None:
    strange = picture(3)[1].copy()
    strange[0, :5] = 9
    strange[1, :2] = 77
    jpeg = io.BytesIO()
    Image.fromarray(picture(4)[1]).save(jpeg, "JPEG")
    wide = io.BytesIO()
    Image.fromarray(picture(6)[1].astype(np.int32) + 2**20).save(wide, "TIFF")
    whole = io.BytesIO()
    Image.fromarray(picture(8)[1]).save(whole, "PNG")
    labels = write_labels(
        tmp_path / "labels",
        {
            0: None,
            1: np.zeros((48, 60), np.uint8),
            2: picture(2)[0],
            3: strange,
            4: jpeg.getvalue(),
            5: np.full((48, 64), 255, np.uint8),
            6: wide.getvalue(),
            8: whole.getvalue()[:-40],
        },
    )
    Image.fromarray(picture(0)[1]).save(labels / "spare.png")
    found = evaluate(str(work / "network"), labels=str(labels), resamples=10)
    e = found.outputs[0]
    assert e.images == 2  # 3 and 7
    t = np.concatenate([strange.ravel(), picture(7)[1].ravel()])
    assert e.confusion.sum() == (t < 3).sum()
    kinds = {kind: (f.times, " | ".join(f.examples)) for kind, f in e.findings.items()}
    assert kinds.pop("error rows")[0] == 1
    assert kinds.pop("images without a label") == (1, "000.png")
    assert kinds.pop("labels without an image") == (1, "spare.png")
    times, text = kinds.pop("labels of another size than the image")
    assert (times, text) == (1, "001.png: label 48x60, mask 48x64 (height x width)")
    times, text = kinds.pop("labels that cannot be read")
    assert times == 3
    for part in (
        "002.png is not an image of class ids (mode RGB)",
        "004.png cannot be read: it is not a PNG",
        "008.png",
    ):
        assert part in text
    assert kinds.pop("labels without a pixel that counts") == (2, "005.png | 006.png")
    times, text = kinds.pop("pixels of label values that are not a class")
    assert times == 48 * 64 + 5 + 2
    assert "value 9: 5 pixels, first in 003.png" in text
    assert "value 1048576: " in text
    assert not kinds


def test_masks_that_cannot_be_read_and_images_of_one_name(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "masks").mkdir(parents=True)
    (output / "run.json").write_text((work / "network" / "run.json").read_text().replace('"done"', '"running"'))
    for path in (work / "network" / "masks").glob("*.parquet"):
        table = pq.read_table(path)
        ids, masks = table["image_id"].to_pylist(), table["mask"].to_pylist()
        changed = {
            "image_id": [i.replace("002.png", "other/003.png") for i in ids],
            "mask": [b"junk" if i.endswith("001.png") else m for i, m in zip(ids, masks, strict=True)],
        }
        for name, values in changed.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(place), [values])
        pq.write_table(table, output / "masks" / path.name)
    found = evaluate(str(output), labels=str(work / "labels"), against=str(work / "network"), resamples=10)
    first, second = found.outputs
    assert (first.images, second.images) == (IMAGES - 2, IMAGES)
    assert "001.png: cannot identify" in first.findings["masks that cannot be read"].examples[0]
    assert first.findings["images without a label"].examples == ["other/003.png"]  # 003.png has the same path
    assert first.findings["labels without an image"].examples == ["002.png"]
    assert first.findings["the run is not finished"].times == 1
    assert second.findings["images compared here and not in the other output"].examples == ["001.png", "002.png"]
    victim = next((output / "masks").glob("*.parquet"))
    victim.write_bytes(b"PAR1")
    with pytest.raises(OutputError, match=f"{victim.name}: not a readable result file"):
        evaluate(str(output), labels=str(work / "labels"))


def test_the_confidence_of_an_earlier_version_is_called_what_it_is(tmp_path: Path) -> None:
    output = FORMAT1 / "img-out-3"
    (tmp_path / "labels").mkdir()
    for row in rows(output):
        label = np.zeros((row["height"], row["width"]), np.uint8)
        Image.fromarray(label).save(tmp_path / "labels" / Path(row["image_id"]).with_suffix(".png").name)
    (found,) = evaluate(str(output), labels=str(tmp_path / "labels"), resamples=0).outputs
    assert found.images == 3
    assert "its confidence is the refiner's marginal, not the network's probability" in found.findings


def test_other_values_and_merged_classes(work: Path, tmp_path: Path) -> None:
    shifted = write_labels(
        tmp_path / "shifted", {i: np.array([7, 30, 11], np.uint8)[picture(i)[1]] for i in range(IMAGES)}
    )
    (tmp_path / "map.json").write_text('{"7": "dark", "30": 1, "11": "bright"}')
    plain = evaluate(str(work / "network"), labels=str(work / "labels"), resamples=0)
    mapping = read_config(tmp_path / "map.json")
    found = evaluate(str(work / "network"), labels=str(shifted), class_map=mapping, resamples=0)
    assert np.array_equal(found.outputs[0].confusion, plain.outputs[0].confusion)
    found = evaluate(str(work / "network"), labels=str(shifted), class_map={**mapping, "30": "ignore"}, resamples=0)
    assert np.array_equal(found.outputs[0].confusion[[0, 2]], plain.outputs[0].confusion[[0, 2]])
    assert found.outputs[0].confusion[1].sum() == 0
    found = evaluate(str(work / "network"), labels=str(work / "labels"), class_map={"middle": "dark"}, resamples=0)
    t, m = compared(work / "network")
    assert value(found, "pixel_accuracy") == pytest.approx(accuracy_score(t == 2, m == 2), abs=1e-6)
    assert np.isnan(value(found, "class_iou")[1])


def test_what_cannot_be_evaluated(work: Path, tmp_path: Path) -> None:
    output, labels = str(work / "network"), str(work / "labels")
    with pytest.raises(PlanError, match=r"holds no run.json"):
        evaluate(str(work / "images"), labels=labels)
    other = write_labels(tmp_path / "other")
    for path in other.iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(
        SpecError, match=r"none of the 10 images .* images such as '00\d.png', labels such as 'x000.png'"
    ):
        evaluate(output, labels=str(other))
    segbatch.run(
        JobSpec.create(inputs=[str(work / "images")], output=str(tmp_path / "null"), model="null", refiner="none")
    )
    with pytest.raises(SpecError, match="only outputs with the same classes can be compared"):
        evaluate(output, labels=labels, against=str(tmp_path / "null"))
    (tmp_path / "empty" / "masks").mkdir(parents=True)
    (tmp_path / "empty" / "run.json").write_text((work / "network" / "run.json").read_text())
    with pytest.raises(OutputError, match="holds no masks yet"):
        evaluate(str(tmp_path / "empty"), labels=labels)


def test_the_command(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.console, "width", 80)
    args = ["eval", str(work / "crf"), "--labels", str(work / "labels"), "--against", str(work / "network")]
    plot_file = tmp_path / "new" / "found.png"
    plotted = [*args, "--plot", str(plot_file), "--resamples", "100"]
    result = CliRunner().invoke(cli.app, plotted, catch_exceptions=False)
    assert result.exit_code == 0
    for row in (
        r"%  +crf  +network  +difference",
        r"mean IoU +\d\d\.\d\d \(\d\d\.\d, \d\d\.\d\) +\d\d\.\d\d \(.*\) +\+\d+\.\d\d \(\+\d+\.\d\d, \+\d+\.\d\d\)",
        r"boundary F1 +\d\d\.\d\d",
        r"within 40 px +\d\d",
        r"bright +\d+\.\d\d +\d\d",
        r"confidence +\d\d\.\d\d \(\d\d\.\d, \d\d\.\d\) +\d\d\.\d\d",
        r"ECE, 15 bins +\d+\.\d\d",
        r"Spearman +-?\d\.\d\d \(",
        r"\d\d\.\d to \d\d\.\d +\d",
        r"crf: error rows:\n    page.png: decode/UnknownFormat",
    ):
        assert re.search(row, result.output), result.output
    assert r"\n" not in result.output
    result = CliRunner().invoke(cli.app, [*args, "--json", "--resamples", "100"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert [o["run"]["refiner"] for o in found["outputs"]] == ["densecrf", "none"]
    assert found["difference"]["mean_iou"]["low"] > 0
    assert len(found["outputs"][0]["metrics"]["trimap_mean_iou"]) == 40
    assert len(found["outputs"][0]["metrics"]["reliability_accuracy"]) == 15
    with Image.open(plot_file) as plot:
        assert plot.width > 1000
        pixels = np.asarray(plot.convert("RGB")).reshape(-1, 3)
    for color in ((31, 119, 180), (255, 127, 14)):  # both outputs are drawn
        assert (pixels == color).all(axis=1).sum() > 500


def test_plots_that_cannot_be_made_are_refused_before_the_work(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["eval", str(work / "network"), "--labels", "nowhere", "--plot"]
    assert isinstance(found := CliRunner().invoke(cli.app, [*args, "a.docx"]).exception, SpecError)
    assert "a.docx: a plot is .png, .svg, .pdf" in str(found)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert isinstance(found := CliRunner().invoke(cli.app, [*args, "a.png"]).exception, SpecError)
    assert "pip install matplotlib" in str(found)


def test_labels_of_other_names_and_in_colors(work: Path, tmp_path: Path) -> None:
    plain = evaluate(str(work / "network"), labels=str(work / "labels"), resamples=0)
    (tmp_path / "drawn" / "more").mkdir(parents=True)
    for i in range(IMAGES):
        colors = np.array([(9, 9, 9), (1, 200, 3), (250, 0, 250)], np.uint8)[picture(i)[1]]
        Image.fromarray(colors).save(tmp_path / "drawn" / "more" / f"{i:03d}_color.png")
        Image.new("L", (3, 3)).save(tmp_path / "drawn" / "more" / f"{i:03d}_instances.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbright:250,0,250::\ndark:9,9,9::\n")
    drawn = {"label_suffix": "_color", "label_colors": str(tmp_path / "labelmap.txt")}
    found = evaluate(str(work / "network"), labels=str(tmp_path / "drawn"), **drawn, resamples=0)
    assert np.array_equal(found.outputs[0].confusion[[0, 2]], plain.outputs[0].confusion[[0, 2]])
    unknown = found.outputs[0].findings["pixels of label values that are not a class"]
    assert unknown.times == plain.outputs[0].confusion[1].sum()
    assert unknown.examples[0].startswith("color (1, 200, 3): ")
    assert found.outputs[0].findings["classes in no inspected label"].examples == ["middle"]
    assert found.to_json()["survey"]["absent"] == ["middle"]


def test_labels_in_0_and_255_are_refused(work: Path, tmp_path: Path) -> None:
    binary = write_labels(tmp_path / "binary", {i: 255 * (picture(i)[1] == 2).astype(np.uint8) for i in range(IMAGES)})
    with pytest.raises(SpecError, match=r"every pixel that counts is 'dark', of 3 classes .* value 255: 1\d\.\d %"):
        evaluate(str(work / "network"), labels=str(binary), resamples=0)
    mapping = {0: "dark", 255: "bright"}
    assert (
        evaluate(str(work / "network"), labels=str(binary), class_map=mapping, resamples=0).outputs[0].images == IMAGES
    )
