"""Confidence and marginal from the network's logits to the rows, the card and the identity, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segbatch.codecs import mask_png as png
from segbatch.codecs.decode import decode
from segbatch.errors import PlanError
from segbatch.operations.compact import compact
from segbatch.operations.explain import explain
from segbatch.operations.verify import verify
from segbatch.output.schema import schema
from segbatch.output.stats import class_rows
from segbatch.planning.plan import make_plan
from segbatch.refiners.upsample import softmax, upsample
from segbatch.results.dataset import MaskDataset
from segbatch.stages.scoring import coarse_scores
from tests import here
from tests.corpus import photographs, write_folder
from tests.networks import Brightness

IMAGES = photographs(5, side=40)


class Warm(Brightness):
    """Brightness whose logits are twice as large as they should be."""

    temperature = 2.0

    def score(self, image: np.ndarray) -> np.ndarray:
        return 2 * super().score(image)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("in"), [*IMAGES, ("page.jpg", b"<html>gone</html>")])


def job(images: Path, output: Path, **more: Any) -> Any:
    return here.spec([str(images)], output, max_error_fraction=1, prune=0, **more)


def rows(output: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((output / "masks").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("refiner", ["none", "densecrf"])
def test_confidence_is_the_networks_probability_of_the_final_label(refiner: str, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    here.run(job(images, output, refiner=refiner, marginal=True))
    changed, total = 0, np.zeros(3)
    for row in rows(output):
        if row["error"] is not None:
            assert (row["confidence"], row["marginal"]) == (None, None)
            continue
        image = decode(dict(IMAGES)[row["image_id"].rpartition("/")[2]], 10**6)
        scores = upsample(coarse_scores(Brightness().score(image), *image.shape[:2], 4, 0))
        mask = png.decode(row["mask"])
        expected = np.take_along_axis(softmax(scores), mask[None].astype(np.int64), axis=0)[0]
        assert row["confidence"] == pytest.approx(expected.mean(), abs=1e-4)
        for c in row["classes"]:
            assert c["confidence"] == pytest.approx(expected[mask == c["class_id"]].mean(), abs=1e-4)
            total[c["class_id"]] += expected[mask == c["class_id"]].sum()
        changed += (mask != scores.argmax(axis=0)).sum()
        if refiner == "none":
            assert row["marginal"] == pytest.approx(row["confidence"], abs=1e-4)
        else:
            assert row["marginal"] > row["confidence"] + 0.01
    assert (changed > 0) == (refiner == "densecrf")
    found = MaskDataset.open(str(output))
    for r in class_rows(found.totals, found.record.labels):
        assert r.confidence == pytest.approx(total[r.class_id] / r.pixels, abs=1e-3)


def test_a_temperature_scales_confidence_and_nothing_else(images: Path, tmp_path: Path) -> None:
    here.run(job(images, tmp_path / "plain"))
    warm = job(images, tmp_path / "warm", model="tests.stages.test_confidence:Warm")
    here.run(warm)
    for plain, scaled in zip(rows(tmp_path / "plain"), rows(tmp_path / "warm"), strict=True):
        assert plain["mask"] == scaled["mask"]
        if plain["error"] is None:
            assert scaled["confidence"] == pytest.approx(plain["confidence"], abs=1e-3)
    assert make_plan(warm).record.identity["model"]["temperature"] == 2
    assert ", temperature 2\n" in explain(warm).to_text()


def test_an_output_is_resumed_with_its_columns_alone(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    here.run(job(images, output, marginal=True))
    assert make_plan(job(images, output, marginal=True)).is_complete
    with pytest.raises(PlanError, match="marginal true there, false requested"):
        make_plan(job(images, output))


def test_the_marginal_is_in_every_file_the_card_and_what_compact_writes(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    here.run(job(images, output, marginal=True))
    assert "- {name: marginal, dtype: float32}" in (output / "README.md").read_text()
    before = rows(output)
    assert verify(str(output)).problems == []
    compact(str(output), target_bytes=2**20)
    (merged,) = (output / "masks").glob("*.parquet")
    assert pq.read_schema(merged).equals(schema(has_marginal=True))
    assert rows(output) == before
    assert verify(str(output)).problems == []


def test_a_file_with_other_columns_than_its_job_is_found(images: Path, tmp_path: Path) -> None:
    with_marginal, without = tmp_path / "with", tmp_path / "without"
    here.run(job(images, with_marginal, marginal=True))
    here.run(job(images, without))
    victim = sorted((without / "masks").glob("*.parquet"))[0]
    victim.write_bytes((with_marginal / "masks" / victim.name).read_bytes())
    problems = " ".join(verify(str(without)).problems)
    assert "its columns are not those of this job" in problems
