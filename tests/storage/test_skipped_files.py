"""What a listing holds besides records: counted by reason and named, and never a photograph that looks odd."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from segbatch.codecs.decode import decode
from segbatch.errors import SourceError
from tests.corpus import photograph, photographs, write_folder, write_manifest, write_parquet, write_tar
from tests.here import run, spec
from tests.inputs import open_source
from tests.sources.contract import read

SAMPLES = photographs(2, side=32)
JPEG = SAMPLES[0][1]


def listing(*inputs: Path | str, format: str | None = None) -> tuple[list[str], dict[str, list[str]]]:
    """(ids of the records, names of what is skipped by reason); that the counts are those of the names is asserted."""
    source = open_source([str(i) for i in inputs], format=format)
    ids = [r.image_id for r in read(source)]
    skipped = source.corpus().skipped
    assert skipped.count == sum(len(k.names) for k in skipped.kinds.values())
    return ids, {reason: kind.names for reason, kind in skipped.kinds.items()}


def folder(path: Path, *names: str) -> Path:
    return write_folder(path, [(name, JPEG) for name in names])


@pytest.mark.parametrize(
    "name", ["_DSC0001.JPG", "_2019/a.jpg", "__a.png", "a/_b/_c.webp", "_MG_1.jpe", "@home/a.jpg", "_started_race.jpg"]
)
def test_an_underscore_hides_no_photograph(tmp_path: Path, name: str):
    assert listing(folder(tmp_path, "z.jpg", name)) == (sorted([name, "z.jpg"]), {})


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([".a.jpg", "._a.jpg", ".git/x/a.jpg", ".ipynb_checkpoints/a.jpg", ".DS_Store"], "hidden by a leading dot"),
        (["_SUCCESS", "_temporary/0/a.jpg", "_metadata", "_common_metadata"], "left by Spark, Hive or Hadoop"),
        (["_started_123", "d/_committed_123", "_delta_log/0.json"], "left by Spark, Hive or Hadoop"),
        (["Thumbs.db", "sub/desktop.ini", "__MACOSX/a.jpg", "@eaDir/a.jpg"], "left by an operating system"),
        (["lost+found/a.jpg", "$RECYCLE.BIN/a.jpg"], "left by an operating system"),
        (["IMG_0004", "m.jpg_large", "p.jpg.1", "p.JPG~", "r.arw", "s.pdf", "t.tif.gz"], "with an unknown suffix"),
        (["shard-three", "s.tar.lz4", "README.md"], "with an unknown suffix"),
    ],
)
def test_what_is_no_record_is_named_with_the_reason(tmp_path: Path, names: list[str], reason: str):
    assert listing(folder(tmp_path, "z.jpg", *names)) == (["z.jpg"], {reason: sorted(names)})


def test_a_store_is_listed_by_the_same_rules_as_a_disk(tmp_path: Path):
    names = ["_DSC1.JPG", ".b.jpg", "_SUCCESS", "c/.git/d.jpg", "e.arw", "Thumbs.db", "f/g.jpg"]
    for name in names:
        fsspec.filesystem("memory").pipe_file(f"/skipped-files/{name}", JPEG)
    assert listing("memory://skipped-files") == listing(folder(tmp_path, *names))
    assert listing("memory://skipped-files/**/*.jpg") == listing(tmp_path / "**" / "*.jpg")


def test_an_mpo_of_a_stereo_camera_is_read_as_its_first_image(tmp_path: Path):
    first, second = Image.fromarray(photograph(0)), Image.fromarray(photograph(1))
    out = io.BytesIO()
    first.save(out, "MPO", save_all=True, append_images=[second], quality=95)
    write_folder(tmp_path, [("stereo.MPO", out.getvalue())])
    (record,) = read(open_source([str(tmp_path)]))
    assert record.data is not None
    assert abs(decode(record.data, 10**6).astype(float) - photograph(0)).mean() < 5


def test_pipes_sockets_and_links_in_circles_are_counted(tmp_path: Path):
    folder(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        (tmp_path / "loop").symlink_to(tmp_path)
        ids, skipped = listing(tmp_path)
        assert ids == ["a.jpg"]
        assert skipped == {"not regular files": ["pipe.jpg", "socket"], "links to a folder above them": ["loop/"]}
        assert listing(tmp_path / "**" / "*.jpg") == (["a.jpg"], {"not regular files": ["pipe.jpg"]})


def test_a_manifest_beside_images_is_counted_and_not_followed(tmp_path: Path):
    folder(tmp_path, "a.jpg")
    write_manifest(tmp_path / "labels.csv", ["a.jpg"])
    assert listing(tmp_path) == (["a.jpg"], {"manifests beside other files": ["labels.csv"]})


def test_with_a_format_files_of_the_others_are_counted(tmp_path: Path):
    folder(tmp_path, "a.jpg", "notes.txt")
    write_tar(tmp_path / "s.tar", SAMPLES)
    write_parquet(tmp_path / "t.parquet", SAMPLES)
    ids, skipped = listing(tmp_path, format="webdataset")
    assert len(ids) == 2
    assert skipped == {
        "of another format than webdataset": ["a.jpg", "t.parquet"],
        "with an unknown suffix": ["notes.txt"],
    }


def test_a_pattern_means_hidden_names_only_if_it_begins_as_they_do(tmp_path: Path):
    folder(tmp_path, "a.jpg", ".b.jpg", ".cache/c.jpg", "_temporary/d.jpg", "sub/e.jpg")
    assert listing(tmp_path / "*.jpg") == (["a.jpg"], {"hidden by a leading dot": [".b.jpg"]})
    assert listing(tmp_path / ".*.jpg") == ([".b.jpg"], {})
    assert listing(tmp_path / ".c*" / "*.jpg") == ([".cache/c.jpg"], {})
    assert listing(tmp_path / ".cache") == (["c.jpg"], {})
    ids, skipped = listing(tmp_path / "**" / "*.jpg")
    assert ids == ["a.jpg", "sub/e.jpg"]
    assert skipped == {
        "hidden by a leading dot": [".b.jpg", ".cache/c.jpg"],
        "left by Spark, Hive or Hadoop": ["_temporary/d.jpg"],
    }


def test_a_pattern_counts_files_of_unknown_suffix_unless_the_option_tells_their_format(tmp_path: Path):
    folder(tmp_path, "a.jpg", "IMG_2", "b.arw")
    assert listing(tmp_path / "*") == (["a.jpg"], {"with an unknown suffix": ["IMG_2", "b.arw"]})
    assert listing(tmp_path / "*", format="images") == (["IMG_2", "a.jpg", "b.arw"], {})
    with pytest.raises(SourceError, match=r"only 1 with an unknown suffix: IMG_2; known: .*set the option format"):
        listing(tmp_path / "IMG*")
    with pytest.raises(SourceError, match="IMG_2: its name tells no format"):
        listing(tmp_path / "{a.jpg,IMG_2}")


def test_a_name_in_a_store_may_have_characters_of_patterns():
    fsspec.filesystem("memory").pipe_file("/magic/a[1]*.jpg", JPEG)
    assert listing("memory://magic/a[1]*.jpg") == (["a[1]*.jpg"], {})


def test_a_folder_that_a_pattern_matches_is_counted(tmp_path: Path):
    folder(tmp_path, "a.jpg", "sub.jpg/b.jpg")
    ids, skipped = listing(tmp_path / "*.jpg")
    assert ids == ["a.jpg"]
    (names,) = skipped.values()
    assert names == ["sub.jpg"]
    with pytest.raises(SourceError, match=r"folders that a pattern matches; end it with /\*\* to read them: sub.jpg"):
        listing(tmp_path / "s*")


def test_a_folder_of_nothing_that_can_be_read_is_refused_with_the_counts(tmp_path: Path):
    folder(tmp_path, "a.arw", "b.arw", ".c.jpg", "_SUCCESS")
    with pytest.raises(SourceError) as caught:
        listing(tmp_path)
    for part in ("2 with an unknown suffix: a.arw, b.arw", "1 hidden by a leading dot: .c.jpg", "_SUCCESS"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_names_of_several_inputs_are_those_of_their_common_folder(tmp_path: Path):
    folder(tmp_path, "a/x.jpg", "a/x.arw", "b/y.jpg", "b/y.arw")
    assert listing(tmp_path / "a", tmp_path / "b")[1] == {"with an unknown suffix": ["a/x.arw", "b/y.arw"]}


def test_a_thousand_files_are_counted_and_twenty_named(tmp_path: Path):
    folder(tmp_path, "z.jpg", *(f"{n:04}.arw" for n in range(1000)))
    (kind,) = open_source([str(tmp_path)]).corpus().skipped.kinds.values()
    assert kind.count == 1000
    assert kind.names == [f"{n:04}.arw" for n in range(20)]


def test_a_job_records_what_its_listing_skipped(tmp_path: Path):
    folder(tmp_path / "in", "a.jpg", "b.arw", ".c.jpg")
    outcome = run(spec([str(tmp_path / "in")], tmp_path / "out"))
    assert outcome.totals.records == 1
    assert outcome.skipped.to_json() == {
        "hidden by a leading dot": {"count": 1, "names": [".c.jpg"]},
        "with an unknown suffix": {"count": 1, "names": ["b.arw"]},
    }
