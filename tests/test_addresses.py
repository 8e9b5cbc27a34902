"""``file:`` URIs by RFC 8089, and what rows name by RFC 3986."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.errors import RecordFailure, SourceError
from segbatch.storage.uri import as_plain, beside, split_uri, without_dots


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:/data/a.jpg", "/data/a.jpg"),
        ("file:///data/a.jpg", "/data/a.jpg"),
        ("file://localhost/data/a.jpg", "/data/a.jpg"),
        ("FILE://LocalHost/data/a.jpg", "/data/a.jpg"),
        ("file:////data/a.jpg", "//data/a.jpg"),
        ("file:/data/with%20space/%C3%BC.jpg", "/data/with space/ü.jpg"),
        ("file:///data/%FC.jpg", "/data/\udcfc.jpg"),
        ("file:///data/x%2520y.jpg", "/data/x%20y.jpg"),
        ("file:///data/100%.jpg", "/data/100%.jpg"),
        ("file:///data/a#1?.jpg", "/data/a#1?.jpg"),
        ("file:///data/a%23%3F%5B1%5D.jpg", "/data/a#?[1].jpg"),
    ],
)
def test_a_file_uri_names_a_path(uri: str, path: str) -> None:
    assert as_plain(uri) == path
    assert split_uri(uri) == ("file", path)


@pytest.mark.parametrize("path", ["/data/x%20y.jpg", "a b.jpg", "file:relative.jpg", "files/a.jpg", "s3://b/%20.jpg"])
def test_all_else_stays_as_it_is(path: str) -> None:
    assert as_plain(path) == path


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).map(lambda t: f"/{t}"))
def test_what_python_writes_of_a_path_names_it(path: str) -> None:
    written = Path(path)
    assert Path(as_plain(written.as_uri())) == written


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("file://server/share/a.jpg", "host 'server'"),
        ("file://a.jpg", "host 'a.jpg'"),
        ("file:///a%00.jpg", "does not name a file"),
        ("file://", "does not name a file"),
    ],
)
def test_what_names_no_file_of_this_machine_is_refused(uri: str, problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        as_plain(uri)
    with pytest.raises(RecordFailure, match=problem) as failure:
        beside("/lists/list.csv", uri)
    assert failure.value.type == "BadUri"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("a.jpg", "http://h/lists/a.jpg"),
        ("./a.jpg", "http://h/lists/a.jpg"),
        ("../photos/a%20b.jpg", "http://h/photos/a%20b.jpg"),
        ("../../../a.jpg", "http://h/a.jpg"),
        ("/photos/a.jpg?v=2", "http://h/photos/a.jpg?v=2"),
        ("//cdn/a.jpg", "http://cdn/a.jpg"),
        ("12:30.jpg", "http://h/lists/12:30.jpg"),
        ("cam:1.jpg", "http://h/lists/cam:1.jpg"),
        ("a[1].jpg", "http://h/lists/a[1].jpg"),
        ("https://other/a/../b.jpg", "https://other/a/../b.jpg"),
        ("file:/data/a%20b.jpg", "/data/a b.jpg"),
    ],
)
def test_rows_of_a_manifest_on_a_web_server(reference: str, expected: str) -> None:
    assert beside("http://h/lists/list.csv?sig=5", reference) == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("a.jpg", "s3://b/lists/a.jpg"),
        ("./a.jpg", "s3://b/lists/a.jpg"),
        ("../photos/a.jpg", "s3://b/photos/a.jpg"),
        ("x/.././/a.jpg", "s3://b/lists//a.jpg"),
        ("x//../a.jpg", "s3://b/lists/x/a.jpg"),
        ("..a/...jpg", "s3://b/lists/..a/...jpg"),
        ("%2e%2e/a{1}[2]*?#.jpg", "s3://b/lists/%2e%2e/a{1}[2]*?#.jpg"),
        ("s3://other/x/../a.jpg", "s3://other/a.jpg"),
        ("/mnt/../a.jpg", "/mnt/../a.jpg"),
        ("zip://x/../a.jpg::s3://b/a.zip", "zip://x/../a.jpg::s3://b/a.zip"),
    ],
)
def test_rows_of_a_manifest_in_an_object_store(reference: str, expected: str) -> None:
    assert beside("s3://b/lists/list.csv", reference) == expected


@pytest.mark.parametrize("reference", ["../../a.jpg", "x/../../../other/a.jpg", "s3://b/../other/a.jpg"])
def test_no_row_leads_out_of_its_bucket(reference: str) -> None:
    with pytest.raises(RecordFailure, match="lead out of s3://b") as failure:
        beside("s3://b/lists/list.csv", reference)
    assert failure.value.type == "BadUri"
    assert reference in str(failure.value)


@given(st.lists(st.sampled_from(["a", "b", "", ".", ".."]), min_size=1))
def test_resolving_dots_again_changes_nothing(parts: list[str]) -> None:
    uri = "gs://bucket/" + "/".join(parts)
    try:
        resolved = without_dots(uri)
    except SourceError:
        return
    assert resolved.startswith("gs://bucket")
    assert without_dots(resolved) == resolved
    assert not {".", ".."}.intersection(resolved.split("/"))
