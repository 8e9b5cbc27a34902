"""Safe names of image ids."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segbatch.exports.names import Names, name_hashes, safe_name
from tests.exports.conftest import STRANGERS


def named(ids: list[str]) -> list[str]:
    names = Names.of([name_hashes(ids[:3]), name_hashes(ids[3:])])
    return [names.name_of(image_id) for image_id in ids]


def test_usual_ids_keep_their_names_without_the_extension() -> None:
    ids = ["2007_000663.jpg", "train-000.tar/0001", "sub/b.c.JPEG", "v1.5"]
    assert named(ids) == ["2007_000663", "train-000.tar/0001", "sub/b.c", "v1.5"]


def test_what_is_unsafe_is_encoded() -> None:
    assert safe_name("../../etc/passwd") == "%2E./%2E./etc/passwd"
    assert safe_name("/absolute.jpg") == "absolute"
    assert safe_name(".hidden.jpg") == "%2Ehidden"
    assert safe_name("a b~%\n/ü.png") == "a%20b%7E%25%0A/%C3%BC"
    assert safe_name("folder.jpg/b") == "folder%2Ejpg/b"
    assert safe_name("") == safe_name("/") == "image"
    assert len(safe_name("x" * 300)) == 200
    assert "%/" not in safe_name("ü" * 300 + "/a")


def test_reserved_folders_are_encoded() -> None:
    reserved = frozenset({"images"})
    assert safe_name("images/images.v2/images.jpg", reserved) == "%69mages/images.v2/images"
    names = Names.of([name_hashes(["a/images/b", "a/%69mages/b"], reserved)], reserved)
    assert names.name_of("a/images/b") != names.name_of("a/%69mages/b")


def test_names_that_differ_in_case_or_extension_alone_get_a_hash() -> None:
    assert [re.sub("~.{8}$", "~", name) for name in named(["a.jpg", "a.png", "A", "b.jpg"])] == ["a~", "a~", "A~", "b"]


@given(st.lists(st.text(max_size=12) | st.sampled_from(STRANGERS), unique=True, max_size=12))
def test_all_ids_have_different_safe_names(ids: list[str]) -> None:
    names = named(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        for segment in name.split("/"):
            assert re.fullmatch(r"[A-Za-z0-9_%~-][A-Za-z0-9._%~-]*", segment), name
            assert len(segment) <= 210


def test_nothing_to_name() -> None:
    assert Names.of([np.zeros((0, 2), np.uint64)]).ambiguous == frozenset()
