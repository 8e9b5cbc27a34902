"""Which label belongs to which image, in the names and folders that people have."""

from __future__ import annotations

import pytest

from segbatch.errors import SpecError
from segbatch.evaluation.label_images import LabelFile
from segbatch.evaluation.pairing import ImageName, Pairing, Suffix, pair, refusal


def images(*names: str, root: str = "/data/images") -> list[ImageName]:
    return [ImageName(name, f"{root}/{name}") for name in names]


def labels(*names: str, root: str = "/data/labels") -> list[LabelFile]:
    return [LabelFile(name, f"{root}/{name}") for name in names]


def paired(of: list[ImageName], with_: list[LabelFile], suffix: str = "") -> dict[str, str]:
    found = pair(of, with_, Suffix.of(suffix))
    return {of[i].name: label.name for i, label in found.labels.items()}


@pytest.mark.parametrize(
    ("image", "label", "suffix"),
    [
        ("x.jpg", "x.png", ""),
        ("x.JPG", "x.PNG", ""),
        ("x.jpg", "x.jpg.png", ""),
        ("x.y.z.jpeg", "x.y.z.png", ""),
        ("x.v2", "x.v2.png", ""),  # an id of a table
        ("x.v2", "x.png", ""),
        ("s-000.tar/x", "x.png", ""),
        ("s-000.tar/a/x", "a/x.png", ""),
        ("p.parquet/x", "train/x.png", ""),
        ("a/b/x.jpg", "x.png", ""),
        ("x.jpg", "a/b/x.png", ""),
        ("train/a/x.jpg", "a/x.png", ""),
        ("a/x.jpg", "train/a/x.png", ""),
        ("x.jpg", "x_mask.png", "_mask"),
        ("x.jpg", "x.jpg_mask.png", "_mask"),
        ("a/x_leftImg8bit.png", "a/x_gtFine_labelIds.png", "_leftImg8bit=_gtFine_labelIds"),
        ("x_rgb.png", "x.png", "_rgb="),
        ("x.jpg", "x.png?sig=1", ""),
    ],
)
def test_names_that_belong_together(image: str, label: str, suffix: str) -> None:
    files = [LabelFile(label.partition("?")[0], f"/data/labels/{label}")]
    assert paired(images(image), files, suffix) == {image: files[0].name}


@pytest.mark.parametrize(
    ("image", "label", "suffix"),
    [
        ("x.jpg", "x_mask.png", ""),
        ("x.jpg", "x.png", "_mask"),
        ("x.jpg", "X.png", ""),
        ("x.jpg", "x.png", "_leftImg8bit="),
        ("cam1/x.jpg", "cam0/x.png", ""),
        ("a/cam0/x.jpg", "b/cam0/x.png", ""),
        ("x1.jpg", "x.png", ""),
    ],
)
def test_names_that_do_not(image: str, label: str, suffix: str) -> None:
    found = pair(images(image), labels(label), Suffix.of(suffix))
    assert found.labels == {}
    assert found.images_without == [image]
    assert found.labels_without == ([] if suffix == "_mask" else [label])


def test_images_of_one_name_have_the_labels_of_their_folders() -> None:
    both = images("cam0/0.jpg", "cam0/1.jpg", "cam1/0.jpg")
    assert paired(both, labels("cam0/0.png", "cam1/0.png")) == {"cam0/0.jpg": "cam0/0.png", "cam1/0.jpg": "cam1/0.png"}
    assert paired(both, labels("cam0/0.png")) == {"cam0/0.jpg": "cam0/0.png"}
    # The folder above the root tells where the names below it do not.
    assert paired(both, labels("0.png", root="/data/labels/cam0")) == {"cam0/0.jpg": "0.png"}
    one = images("0.jpg", root="/data/images/cam1")
    assert paired(one, labels("cam0/0.png", "cam1/0.png")) == {"0.jpg": "cam1/0.png"}
    assert paired(images("0.jpg", "cam1/0.jpg"), labels("0.png")) == {"0.jpg": "0.png"}


@pytest.mark.parametrize(
    ("of", "with_", "says"),
    [
        (images("cam0/0.jpg", "cam1/0.jpg"), labels("0.png"), "label 0.png fits 2 files: cam0/0.jpg, cam1/0.jpg"),
        (images("0.jpg"), labels("cam0/0.png", "cam1/0.png"), "image 0.jpg fits 2 files: cam0/0.png, cam1/0.png"),
        (images("0.jpg", "0.png"), labels("0.png"), "label 0.png fits 2 files: 0.jpg, 0.png"),
        (images("0.jpg"), labels("0.png", "0.tif"), "image 0.jpg fits 2 files: 0.png, 0.tif"),
    ],
)
def test_where_nothing_tells_nothing_is_guessed(of: list[ImageName], with_: list[LabelFile], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        pair(of, with_)


def test_the_whole_name_counts_more_than_the_name_without_its_last_part() -> None:
    assert paired(images("a", "a.v2"), labels("a.png", "a.v2.png")) == {"a": "a.png", "a.v2": "a.v2.png"}
    assert paired(images("a.jpg", "a.png"), labels("a.jpg.png", "a.png.png")) == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
    }
    assert paired(images("a", "a.v1"), labels("a.png")) == {"a": "a.png"}


def test_a_label_is_no_image() -> None:
    everything = images("images/x.jpg", "labels/x.png", "labels/y.png", root="/data")
    found = pair(everything, labels("x.png", "y.png"))
    assert {everything[i].name: label.name for i, label in found.labels.items()} == {"images/x.jpg": "x.png"}
    assert found.label_images == ["labels/x.png", "labels/y.png"]
    assert found.images_without == []
    assert found.notes() == [
        "1 have no image: y.png",
        "2 files among the images are labels and are left out: labels/x.png, labels/y.png",
    ]


def test_labels_beside_their_images_are_told_by_their_suffix() -> None:
    folder = ("x.jpg", "x_mask.png", "y.jpg", "y_mask.png")
    beside = images(*folder, root="/data"), labels(*folder, root="/data")
    assert paired(*beside, "_mask") == {"x.jpg": "x_mask.png", "y.jpg": "y_mask.png"}
    assert pair(*beside).labels == {}
    assert "all are among the labels; give labels by a pattern" in refusal(*beside, Suffix(), "/data", "/data")


@pytest.mark.parametrize(
    ("of", "with_", "says"),
    [
        (["p0.jpg", "p1.jpg"], ["p0_gtFine_labelIds.png", "p1_gtFine_labelIds.png"], "--label-suffix _gtFine_labelIds"),
        (
            ["b_000000_000019_leftImg8bit.png", "b_000000_000020_leftImg8bit.png"],
            ["b_000000_000019_gtFine_labelIds.png"],
            "--label-suffix _leftImg8bit=_gtFine_labelIds",
        ),
        (
            [f"aachen_{i}_19_leftImg8bit.png" for i in range(4)],
            [f"aachen_{i}_19_gtFine_{kind}.png" for i in range(4) for kind in ("color", "instanceIds", "labelIds")],
            "by --label-suffix _leftImg8bit=_gtFine_color or --label-suffix _leftImg8bit=_gtFine_instanceIds or "
            "--label-suffix _leftImg8bit=_gtFine_labelIds",
        ),
        (["119_sat.jpg", "12_sat.jpg"], ["119_mask.png"], "--label-suffix _sat=_mask"),
        (["0001TP_1.png", "0001TP_12.png"], ["0001TP_12_L.png"], "--label-suffix _L"),
        (["x_rgb.jpg"], ["x.png"], "--label-suffix _rgb="),
        (["a.jpg"], ["b.png"], "labels are paired by file name without extension"),
        (["cam0/a.jpg"], ["cam1/a.png"], "'cam0/a.jpg' and 'cam1/a.png' have one name, in other folders"),
    ],
)
def test_a_refusal_names_both_sides_and_what_helps(of: list[str], with_: list[str], says: str) -> None:
    text = refusal(images(*of), labels(*with_), Suffix(), "/data/labels", "/data/images")
    assert f"images such as {of[0]!r}, labels such as {with_[0]!r}" in text
    assert says in text


def test_what_has_no_partner_is_counted() -> None:
    found = pair(images(*(f"{i}.jpg" for i in range(8))), labels("0.png", "9.png"))
    assert isinstance(found, Pairing)
    assert found.notes() == [
        "7 of 8 images have no label: 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, …",
        "1 have no image: 9.png",
    ]
