"""Inputs on web servers of all kinds, read from a real one on loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segbatch.errors import Outage, RecordFailure, SourceError
from segbatch.storage.files import Files
from segbatch.storage.listing import list_input
from segbatch.storage.ranges import MAX_WHOLE_BYTES
from segbatch.storage.retry import RetryPolicy
from tests.corpus import photographs, tar_bytes
from tests.inputs import open_source
from tests.sources.contract import read
from tests.storage.web_server import Answer, web_server

SAMPLES = photographs(3, side=32)
A, B, C = (data for _, data in SAMPLES)
TAR = tar_bytes(SAMPLES)
EVERYTHING = {"ranges": True, "sizes": True, "head": True}
SERVERS = [EVERYTHING, *({**EVERYTHING, lacking: False} for lacking in EVERYTHING), dict.fromkeys(EVERYTHING, False)]
QUICK = {"retry": RetryPolicy(deadline_seconds=0.0)}


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["x", "y"], "image": [A, B]}), sink)
    return sink.getvalue().to_pybytes()


PHOTOS: Mapping[str, Answer] = {
    "/s0.tar": TAR,
    "/s1.tar": TAR,
    "/s0.tar?v=2": TAR,
    "/t.parquet": parquet(),
    "/photos/a.jpg": A,
    "/photos/with space.jpg": B,
    "/photos/{x}.jpg": C,
    "/photos/100%.jpg": C,
    "/moved/a.jpg": "/photos/a.jpg",
    "/lists/list.csv": b"uri\n../photos/a.jpg\nc.jpg\n/photos/with%20space.jpg\n../photos/with space.jpg\n",
    "/lists/c.jpg": C,
    "/photos": "/photos/",
    "/photos/": b"<html>",
}


@pytest.mark.parametrize("kind", SERVERS, ids=lambda kind: "-".join(k for k, has in kind.items() if has) or "bare")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/s0.tar", [A, B, C]),
        ("/s0.tar?v=2", [A, B, C]),
        ("/s{0..1}.tar", [A, B, C] * 2),
        ("/t.parquet", [A, B]),
        ("/photos/a.jpg", [A]),
        ("/photos/with%20space.jpg", [B]),
        ("/photos/with space.jpg", [B]),
        ("/photos/{x}.jpg", [C]),
        ("/photos/100%25.jpg", [C]),
        ("/moved/a.jpg", [A]),
        ("/lists/list.csv", [A, C, B, B]),
    ],
)
def test_what_a_server_has_is_read_whatever_it_lacks(kind: dict[str, bool], given: str, expected: list[bytes]) -> None:
    with web_server(PHOTOS, **kind) as (url, _):
        records = read(open_source([url + given]))
    assert [record.data for record in records] == expected, [record.error for record in records]


@pytest.mark.parametrize("kind", SERVERS)
def test_an_empty_object_is_one(kind: dict[str, bool]) -> None:
    with web_server({"/a.jpg": b""}, **kind) as (url, _):
        assert [record.data for record in read(open_source([f"{url}/a.jpg"]))] == [b""]


def refusal(answers: Mapping[str, Answer], given: str) -> str:
    with web_server(answers) as (url, _), pytest.raises(SourceError) as caught:
        list_input(Files(**QUICK), url + given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("/absent.tar", "absent.tar: does not exist"),
        ("/gone.tar", "gone.tar: does not exist"),
        ("/denied.tar?sig=1", "denied.tar: access is denied (the server answers 403"),
        ("/locked.tar", "locked.tar: access is denied (the server answers 401"),
        ("/teapot.tar", "teapot.tar: cannot be read (ClientResponseError: 418"),
        ("/photos/", "is a folder; over http a server lists no folders"),
        ("/photos/*.jpg", "does not exist; over http a server lists no folders"),
        ("/s{0..5}.tar", "does not exist"),
    ],
)
def test_what_cannot_be_read_is_named_before_the_work(given: str, message: str) -> None:
    failures = {"/gone.tar": 410, "/denied.tar?sig=1": 403, "/locked.tar": 401, "/teapot.tar": 418}
    assert message in refusal({**PHOTOS, **failures}, given)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_is_away_and_is_asked_again(status: int) -> None:
    with web_server({"/a.tar": status, "/b.tar": [*[status] * 4, TAR]}) as (url, _):
        with pytest.raises(Outage, match=f"{status}"):
            list_input(Files(**QUICK), f"{url}/a.tar")
        assert list_input(Files(), f"{url}/b.tar")[0].entries[0].size == len(TAR)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, "MissingObject"), (410, "MissingObject"), (403, "UnreadableObject"), (418, "UnreadableObject")],
)
def test_a_row_that_cannot_be_read_says_what_the_server_answered(status: int, kind: str) -> None:
    rows = b"uri\na.jpg\nb.jpg?sig=5ec0000\n"
    with web_server({"/list.csv": rows, "/a.jpg": A, "/b.jpg?sig=5ec0000": status}) as (url, _):
        good, bad = read(open_source([f"{url}/list.csv"]))
    assert good.data == A
    assert bad.error is not None
    assert bad.error.type == kind
    assert "5ec0000" not in f"{bad}"
    assert kind == "MissingObject" or str(status) in bad.error.message


@pytest.mark.parametrize("sizes", [True, False])
def test_a_large_object_of_a_server_without_ranges(sizes: bool) -> None:
    """An image is read whole; a shard, which is read in pieces, is refused with the remedy."""
    large = A + bytes(MAX_WHOLE_BYTES)
    with web_server({"/a.jpg": large, "/list.csv": b"uri\na.jpg\n"}, ranges=False, sizes=sizes) as (url, _):
        files = Files(**QUICK)
        assert files.read(f"{url}/a.jpg", len(large) + 1, len(large)) == large
        assert files.read(f"{url}/a.jpg", len(large) + 1) == large
        with pytest.raises(RecordFailure, match="more than max_record_bytes"):
            files.read(f"{url}/a.jpg", len(large) - 1)
        with pytest.raises(OSError, match="download it"):
            files.open(f"{url}/a.jpg")


def test_the_version_of_an_object_follows_its_content() -> None:
    answers: dict[str, Any] = {"/a.jpg": A}
    with web_server(answers, ranges=False, sizes=False) as (url, _):
        versions = []
        for data in (A, B[: len(A)].ljust(len(A)), A):
            answers["/a.jpg"] = data
            versions.append(list_input(Files(), f"{url}/a.jpg")[0].entries[0].version)
    assert versions[0] == versions[2] != versions[1]
