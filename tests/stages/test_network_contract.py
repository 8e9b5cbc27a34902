"""What a network answers is checked at every image: a broken contract stops the job, and commits nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from segbatch.errors import ModelError, NetworkError, SegbatchError, WrongSize
from segbatch.models import scores
from segbatch.operations.explain import explain
from tests import faulty_networks, here
from tests.corpus import encode, write_folder
from tests.networks import Brightness


def pictures(folder: Path, count: int = 4, height: int = 45, width: int = 70) -> str:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(count)]
    return str(
        write_folder(folder / f"in-{height}x{width}", [(f"{i}.png", encode(p, "PNG")) for i, p in enumerate(pixels)])
    )


def masks(output: Path) -> list[bytes]:
    rows = [row for file in sorted(output.glob("masks/*.parquet")) for row in pq.read_table(file).to_pylist()]
    return [row["mask"] for row in sorted(rows, key=lambda row: row["image_id"])]


WRONG_SIZE = {
    "full_size": "(3, 45, 70)",
    "stride_8": "(3, 6, 9)",
    "swapped": "(3, 18, 12)",
    "floored": "(3, 11, 17)",
    "padded": "(3, 13, 19)",
    "channels_last": "(12, 18, 3)",
    "one_cell": "(3, 1, 1)",
}
WRONG = {
    "two_channels": "float32 (2, 17, 26)",
    "four_channels": "float32 (4, 17, 26)",
    "class_ids": "int64 (17, 26)",
    "masks": "bool (3, 17, 26)",
    "integers": "int32 (3, 17, 26)",
    "four_dimensions": "float32 (1, 3, 17, 26)",
    "lists": "list",
    "nothing": "NoneType",
    "dictionary": "dict",
    "stacked_dictionary": "dict",
    "none": "NoneType",
    "too_few": "1 arrays for 2 images",
    "too_many": "3 arrays for 2 images",
    "one_array": "3 arrays for 2 images",
}


@pytest.mark.parametrize(("kind", "got"), WRONG_SIZE.items())
def test_scores_of_a_wrong_size_stop_the_job_at_the_first_image(kind: str, got: str, tmp_path: Path) -> None:
    spec = here.spec([pictures(tmp_path)], tmp_path / "out", model=f"tests.faulty_networks:{kind}")
    with pytest.raises(NetworkError) as stopped:
        here.run(spec)
    said = str(stopped.value)
    assert stopped.value.exit_code == 1
    assert "float32 (3, 12, 18) expected" in said
    assert f"got float32 {got}" in said
    assert f"altered (tests.faulty_networks:{kind})" in said
    assert "0.png (45 x 70 pixels)" in said
    assert masks(tmp_path / "out") == []
    assert not (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.parametrize("kind", WRONG_SIZE)
def test_a_dry_run_refuses_scores_of_a_wrong_size(kind: str, tmp_path: Path) -> None:
    spec = here.spec([pictures(tmp_path)], tmp_path / "out", model=f"tests.faulty_networks:{kind}")
    with pytest.raises(ModelError, match=r"float32 \(3, 17, 26\) expected, for 3 classes and stride 4") as refused:
        explain(spec).to_text()
    assert refused.value.exit_code == 2


def test_a_network_that_rounds_down_does_images_that_need_no_rounding(tmp_path: Path) -> None:
    spec = here.spec([pictures(tmp_path, 4, 48, 64)], tmp_path / "out", model="tests.faulty_networks:floored")
    outcome = here.run(spec)
    assert (outcome.totals.records, outcome.totals.failed) == (4, 0)


@pytest.mark.parametrize(("kind", "got"), WRONG.items())
def test_an_answer_that_is_wrong_whatever_the_image_is_refused_before_any_work(
    kind: str, got: str, tmp_path: Path
) -> None:
    spec = here.spec([pictures(tmp_path)], tmp_path / "out", model=f"tests.faulty_networks:{kind}")
    for job in (here.run, explain):
        with pytest.raises(ModelError) as refused:
            job(spec)
        assert got in str(refused.value)
        assert f"altered (tests.faulty_networks:{kind})" in str(refused.value)
        assert refused.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["generator", "pair", "double", "half"])
def test_other_sequences_and_other_floats_give_the_same_masks(kind: str, tmp_path: Path) -> None:
    source = pictures(tmp_path)
    for name, model in (("right", "tests.networks:fast"), (kind, f"tests.faulty_networks:{kind}")):
        assert here.run(here.spec([source], tmp_path / name, model=model)).totals.failed == 0
    assert masks(tmp_path / kind) == masks(tmp_path / "right")


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7, 8, 16, 32])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 64), (45, 70), (97, 16)])
def test_the_size_is_that_of_the_image_over_the_stride_rounded_up(stride: int, size: tuple[int, int]) -> None:
    network = Brightness()
    network.stride = stride
    image = np.zeros((*size, 3), np.uint8)
    (right,) = scores.checked_scores(network, [image], ["a"])
    assert right.shape == (3, -(-size[0] // stride), -(-size[1] // stride))
    for wrong in (np.pad(right, ((0, 0), (0, 1), (0, 0))), right[:, :, :-1]):
        altered = faulty_networks.Altered(each=lambda scores, image, wrong=wrong: wrong)
        altered.stride = stride
        with pytest.raises(WrongSize):
            scores.checked_scores(altered, [image], ["a"])


def test_a_tensor_is_refused_with_the_way_to_return_an_array() -> None:
    torch = pytest.importorskip("torch")
    network = faulty_networks.Altered(each=lambda scores, image: torch.from_numpy(scores))
    with pytest.raises(NetworkError, match=r"got Tensor \(3, 17, 26\); .*\.cpu\(\)\.numpy\(\)"):
        scores.try_on_samples(network)


def test_a_network_that_cannot_run_where_the_job_is_planned_is_warned_of(tmp_path: Path) -> None:
    spec = here.spec([pictures(tmp_path)], tmp_path / "out", model="tests.faulty_networks:only_45")
    assert "could not be tried on this machine (ValueError: 45 x 70 pixels, not 67 x 101)" in explain(spec).to_text()
    assert here.run(spec).totals.failed == 0


def test_a_network_that_is_too_slow_where_the_job_is_planned_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segbatch.models.custom.MAX_TRIAL_SECONDS", 0.01)
    spec = here.spec([pictures(tmp_path)], tmp_path / "out", model="tests.networks:slow")
    assert (
        "could not be tried on this machine (it did not score two small images within 0.01 s)"
        in explain(spec).to_text()
    )


def test_a_factory_that_fails_where_the_job_is_planned_is_named_with_its_cause(tmp_path: Path) -> None:
    spec = here.spec([pictures(tmp_path)], tmp_path / "out", model="tests.faulty_networks:unbuildable")
    with pytest.raises(SegbatchError, match=r"'tests\.faulty_networks:unbuildable'.*RuntimeError: no CUDA here"):
        explain(spec).to_text()
