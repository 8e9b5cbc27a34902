from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segbatch.skipped import MAX_NAMES, Skipped

ITEMS = st.lists(st.tuples(st.sampled_from(["hidden", "unknown"]), st.text(max_size=3)), max_size=60)


def counted(items: list[tuple[str, str]]) -> Skipped:
    skipped = Skipped()
    for reason, name in items:
        skipped.add(reason, name)
    return skipped


@given(ITEMS, st.randoms(use_true_random=False), st.integers(0, 60))
def test_counts_and_names_do_not_depend_on_the_order(items: list[tuple[str, str]], random: object, at: int) -> None:
    shuffled = items[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = counted(shuffled[:at])
    merged.merge(counted(shuffled[at:]))
    assert merged == counted(items)
    assert merged.count == len(items)
    assert Skipped.from_json(merged.to_json()) == merged


def test_a_line_has_count_reason_and_the_first_names() -> None:
    skipped = counted([("hidden", f"_{i:03}.jpg") for i in range(30)] + [("unknown suffix", "a.arw")])
    first, second = skipped.lines()
    assert first.startswith("30 hidden: _000.jpg, _001.jpg")
    assert first.endswith(f"_{MAX_NAMES - 1:03}.jpg, …")
    assert second == "1 unknown suffix: a.arw"
