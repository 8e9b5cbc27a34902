"""What each strategy prefers, on images with known classes."""

from __future__ import annotations

import itertools

import numpy as np

from segbatch.evaluation.selection import STRATEGIES, Candidates, Choice

NAMES = ("background", "road", "car", "cat")


def candidates(*rows: dict[str, tuple[float, float]], **fields: np.ndarray) -> Candidates:
    """Of each image: class -> (fraction, confidence)."""
    fractions, confidences = np.zeros((2, len(rows), len(NAMES)), np.float32)
    for i, row in enumerate(rows):
        for name, (fraction, confidence) in row.items():
            fractions[i, NAMES.index(name)], confidences[i, NAMES.index(name)] = fraction, confidence
    return Candidates(NAMES, fractions.mean(axis=0, dtype=np.float64), fractions, confidences, 0, **fields)


def chosen(strategy: str, of: Candidates, n: int = 10, before: tuple[int, ...] = ()) -> list[Choice]:
    available = np.ones(len(of), bool)
    available[list(before)] = False
    return list(itertools.islice(STRATEGIES[strategy](of, available, before), n))


IMAGES = candidates(
    {"background": (0.9, 0.99), "road": (0.1, 0.5)},
    {"background": (1.0, 0.30)},
    {"background": (0.5, 0.40), "road": (0.3, 0.9), "car": (0.2, 0.8)},
    {"background": (0.5, 0.99), "road": (0.49, 0.9), "cat": (0.01, 0.1)},
)


def test_the_background_does_not_count_as_confidence() -> None:
    found = chosen("least-confident", IMAGES)
    assert [choice.position for choice in found] == [0, 2, 3]
    assert [round(choice.score, 3) for choice in found] == [0.5, 0.86, 0.884]
    assert found[2].reason == "confidence 0.884; cat 0.100 on 1.0% of the image"


def test_rare_classes_come_first_and_then_those_not_yet_chosen() -> None:
    rows = [{"background": (0.5, 0.9), "road": (0.5, 0.9)}] * 5 + [
        {"background": (0.9, 0.9), "cat": (0.1, 0.9)},
        {"background": (0.9, 0.9), "cat": (0.1, 0.9)},
        {"background": (0.9, 0.9), "car": (0.1, 0.9)},
    ]
    assert [choice.position for choice in chosen("rare-class", candidates(*rows), 3)] == [7, 5, 6]
    assert [choice.position for choice in chosen("rare-class", candidates(*rows), 2, before=(5, 6))] == [7, 0]
    first = chosen("rare-class", candidates(*rows), 1)[0]
    assert first.reason == "car: 10.0% of this image, 1.25% of all pixels, in 0 images chosen before"


def test_rare_classes_are_chosen_as_by_the_greedy_rule_over_all_images() -> None:
    rng = np.random.default_rng(1)
    fractions = rng.dirichlet([0.05] * 4, 150).astype(np.float32)
    fractions[fractions < 0.002] = 0
    of = Candidates(NAMES, fractions.mean(axis=0, dtype=np.float64), fractions, fractions)
    presence, total, wanted = np.minimum(fractions / 0.01, 1), np.zeros(4), []
    for _ in range(30):
        gains = presence @ (1 / np.log(1.02 + of.shares) / (1 + total))
        gains[wanted] = -1
        wanted.append(int(np.argmax(gains)))
        total += presence[wanted[-1]]
    found = chosen("rare-class", of, 30)
    assert [round(choice.score, 4) for choice in found] == sorted((round(c.score, 4) for c in found), reverse=True)
    assert [choice.position for choice in found] == wanted


def test_disagreement_ranks_by_its_value_and_leaves_out_what_the_other_lacks() -> None:
    of = candidates(*[{"road": (1.0, 0.9)}] * 4, disagreement=np.array([0.1, np.nan, 0.7, 0.3]))
    found = chosen("disagreement", of)
    assert [choice.position for choice in found] == [2, 3, 0]
    assert found[0].reason == "mean IoU 0.300 of the two outputs"


def test_each_diverse_image_is_the_farthest_from_those_before() -> None:
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet([0.3] * 4, 200).astype(np.float32)
    of = Candidates(NAMES, fractions.mean(axis=0), fractions, fractions)
    found = [choice.position for choice in chosen("diverse", of, 12)]
    assert found[0] == 0
    for k in range(1, len(found)):
        distances = np.linalg.norm(fractions[:, None] - fractions[found[:k]], axis=2).min(axis=1)
        assert distances[found[k]] >= distances.max() - 1e-5
    assert chosen("diverse", of, 1, before=tuple(found[:5]))[0].position == found[5]


def test_every_strategy_takes_each_image_at_most_once_and_none_that_is_not_available() -> None:
    of = candidates(*[{"road": (1.0, 0.9)}] * 6, disagreement=np.linspace(0, 1, 6))
    for name, strategy in STRATEGIES.items():
        available = np.array([True, False, True, True, False, True])
        found = [choice.position for choice in strategy(of, available, [1])]
        assert sorted(found) == [0, 2, 3, 5], name
        assert not available.any()
