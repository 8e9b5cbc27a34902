"""Which image of a tar's sample counts: chosen by ``image_member``, or refused where several are alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest

from segbatch.errors import SourceError
from tests.corpus import encode, photograph, tar_bytes, write_tar
from tests.inputs import open_source
from tests.sources.contract import read

STEREO = [f"{i:03}.{side}.jpg" for i in range(4) for side in ("left", "right")]
MIXED = [f"{i:03}.{name}" for i in range(3) for name in ("png", "seg.png", "cam1.depth.tif", "json")]


def packed(path: Path, names: Sequence[str]) -> str:
    """A tar in which the content of each member is its name."""
    return str(write_tar(path, [(name, name.encode()) for name in names]))


def records(path: str, **options: str) -> list[str]:
    """Of each record the name of its image, or its key and its error."""
    found = read(open_source([path], **options), 3)  # type: ignore[arg-type]
    return [r.data.decode() if r.data else f"{r.image_id.partition('/')[2]} {r.error and r.error.type}" for r in found]


def refusal(path: str, **options: str) -> str:
    source = open_source([path], **options)  # type: ignore[arg-type]
    with pytest.raises(SourceError) as caught:
        source.check(list(source.shards()))
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "member", "chosen"),
    [
        (STEREO, "left.jpg", "left.jpg"),
        (STEREO, "right", "right.jpg"),
        (STEREO, "LEFT", "left.jpg"),
        (MIXED, "png", "png"),
        (MIXED, ".png", "png"),
        (MIXED, "seg.png", "seg.png"),
        (MIXED, "seg", "seg.png"),
        (MIXED, "depth.tif", "cam1.depth.tif"),
        (MIXED, "cam1.depth", "cam1.depth.tif"),
        (MIXED, "json", "json"),  # what is named is the image, whatever its suffix
    ],
)
def test_the_member_that_is_named_is_the_image_of_its_sample(
    tmp_path: Path, names: list[str], member: str, chosen: str
) -> None:
    path = packed(tmp_path / "a.tar", names)
    source = open_source([path], image_member=member)
    source.check(list(source.shards()))
    keys = sorted({name.partition(".")[0] for name in names})
    assert records(path, image_member=member) == [f"{key}.{chosen}" for key in keys]
    apart = packed(tmp_path / "b.tar", sorted(names, key=lambda name: name.partition(".")[2]))
    assert sorted(records(apart, image_member=member)) == [f"{key}.{chosen}" for key in keys]


def test_a_sample_without_the_member_is_an_error_row_that_names_it(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", ["0.left.jpg", "0.right.jpg", "1.right.jpg", "1.seg.left.png", "2.left.png"])
    assert records(path, image_member="left.jpg") == ["0.left.jpg", "1 NoImage", "2 NoImage"]
    rows = read(open_source([path], image_member="left.jpg"))
    assert [r.error.message for r in rows if r.error] == [
        f"no member 'left.jpg' (--image-member) among the members ({members}) of sample '{key}'"
        for key, members in (("1", "right.jpg, seg.left.png"), ("2", "left.png"))
    ]
    twice = packed(tmp_path / "b.tar", ["0.left.jpg", "0.left.png", "1.left.jpg"])
    assert records(twice, image_member="left") == ["0 AmbiguousImage", "1.left.jpg"]


def test_a_member_that_no_sample_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", STEREO)
    said = refusal(path, image_member="middle")
    assert "no member 'middle' (--image-member) among the members (left.jpg, right.jpg) of sample '000'" in said
    assert "3 samples" in said or "4 samples" in said


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("names", "candidates"),
    [
        (STEREO, "left.jpg, right.jpg"),
        ([f"{i}.{name}" for i in range(3) for name in ("rgb.png", "seg.png", "txt")], "rgb.png, seg.png"),
        (
            ["odd.jpg", *(f"{i}.{name}" for i in range(9) for name in ("b.jpg", "a.jpg", "c.png"))],
            "a.jpg, b.jpg, c.png",
        ),
    ],
)
def test_samples_of_several_images_are_refused_before_work_with_the_candidates(
    tmp_path: Path, names: list[str], candidates: str, suffix: str
) -> None:
    said = refusal(packed(tmp_path / f"a.{suffix}", names))
    assert candidates in said
    assert f"--image-member {candidates.partition(',')[0]}" in said


def test_one_odd_sample_is_an_error_row(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [*(f"{i}.jpg" for i in range(8)), "8.left.jpg", "8.right.jpg"])
    source = open_source([path])
    source.check(list(source.shards()))
    assert records(path)[8] == "8 AmbiguousImage"
    assert "choose one by --image-member" in read(source)[8].error.message  # type: ignore[union-attr]


def test_a_shard_that_is_met_later_says_what_to_choose(tmp_path: Path) -> None:
    *_, last = read(open_source([packed(tmp_path / "a.tar", STEREO)]))
    assert last.error is not None
    assert "choose one by --image-member left.jpg" in last.error.message


def test_large_images_in_a_store_are_looked_at_by_their_headers_alone() -> None:
    large = bytes(2**20)
    fsspec.filesystem("memory").pipe_file("/members/a.tar", tar_bytes([(name, large) for name in STEREO]))
    assert "4 of 4 samples have several images that count alike: left.jpg, right.jpg" in refusal("memory://members")


def test_images_that_count_and_are_smaller_than_others_are_refused(tmp_path: Path) -> None:
    small, full = encode(photograph(0, 16)), encode(photograph(0, 64))
    mask = encode(photograph(0, 64)[..., 0], "PNG")
    members = [(f"{i}.{name}", data) for i in range(3) for name, data in (("jpg", small), ("full.jpg", full))]
    said = refusal(str(write_tar(tmp_path / "a.tar", members)))
    assert "jpg, which counts as the image, is smaller than full.jpg; choose one by --image-member full.jpg" in said
    for name in ("full.jpg", "jpg"):
        source = open_source([str(tmp_path / "a.tar")], image_member=name)
        source.check(list(source.shards()))
        assert [r.data for r in read(source)] == [full if name == "full.jpg" else small] * 3
    labeled = [(f"{i}.{name}", data) for i in range(3) for name, data in (("jpg", full), ("png", mask))]
    source = open_source([str(write_tar(tmp_path / "b.tar", labeled))])
    source.check(list(source.shards()))
    assert [r.data for r in read(source)] == [full] * 3
