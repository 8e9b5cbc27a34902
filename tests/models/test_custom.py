"""Models of one's own, and the model that is none."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from segbatch import models
from segbatch.crf.params import CRFSettings
from segbatch.errors import ModelError, SpecError
from segbatch.models.info import DEEPLAB_CRF
from tests.networks import LABELS, Brightness


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("own_networks")
    monkeypatch.setitem(sys.modules, "own_networks", module)
    return module


def test_a_factory_gets_what_it_asks_for(own: types.ModuleType) -> None:
    seen = {}

    def factory(weights: str, batch_size: int, device: str = "cpu") -> Brightness:
        """The brightness of things."""
        seen.update(weights=weights, batch_size=batch_size, device=device)
        return Brightness()

    own.factory = factory  # type: ignore[attr-defined]
    model = models.build("own_networks:factory", weights="w1", device="cpu", batch_size=3)
    assert seen == {"weights": "w1", "batch_size": 3, "device": "cpu"}
    models.build("own_networks:factory", weights="w1", device="cpu")
    assert seen["batch_size"] == 8
    assert model.labels is LABELS
    info = models.describe("own_networks:factory", weights="w1")
    assert (info.summary, info.stride, info.labels) == ("The brightness of things.", 4, LABELS)
    assert info.digest != models.describe("own_networks:factory", weights="w2").digest


def test_what_is_wrong_with_a_factory_is_named(own: types.ModuleType) -> None:
    own.nothing = lambda: object()  # type: ignore[attr-defined]
    own.needy = lambda secret: Brightness()  # type: ignore[attr-defined]
    own.factory = Brightness  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"lacks labels .*; stride .*; scores"):
        models.build("own_networks:nothing")
    with pytest.raises(ModelError, match="secret"):
        models.build("own_networks:needy")
    with pytest.raises(SpecError, match=r"'factry' does not exist.*factory"):
        models.build("own_networks:factry")
    with pytest.raises(SpecError, match="importable here and on every worker"):
        models.build("absent_networks:factory")


def test_a_network_names_the_parameters_of_the_crf_that_suit_it(own: types.ModuleType) -> None:
    def factory(weights: str) -> Brightness:
        network = Brightness()
        if weights != "default":
            network.crf = {"theta_alpha": 9} if weights == "right" else {"theta_alfa": 9}  # type: ignore[attr-defined]
        return network

    own.factory = factory  # type: ignore[attr-defined]
    crf = models.describe("own_networks:factory", weights="right").crf
    assert (crf.parameters, crf.source) == (CRFSettings(theta_alpha=9), "the network's attribute crf")
    assert models.describe("own_networks:factory").crf == DEEPLAB_CRF
    with pytest.raises(
        ModelError, match=r"its attribute crf is .*did you mean 'crf.theta_alpha'.* give a mapping of the"
    ):
        models.describe("own_networks:factory", weights="wrong")


def test_the_null_model_gives_class_0() -> None:
    model = models.build("null")
    sizes = [(1, 1), (33, 64), (31, 97)]
    scores = model.scores([np.zeros((*size, 3), np.uint8) for size in sizes])
    assert [s.shape for s in scores] == [(2, 1, 1), (2, 2, 2), (2, 1, 4)]
    assert all((s.argmax(axis=0) == 0).all() for s in scores)
    with pytest.raises(SpecError, match="has no weights"):
        models.build("null", weights="some.pth")


def test_a_temperature_is_the_networks_or_1(own: types.ModuleType) -> None:
    own.plain = Brightness  # type: ignore[attr-defined]
    own.warm = type("Warm", (Brightness,), {"temperature": 2})  # type: ignore[attr-defined]
    assert models.describe("own_networks:plain").temperature == 1
    assert models.describe("own_networks:warm").temperature == 2
    for wrong in (0, -1.5, float("nan"), float("inf"), True, "2", None):
        own.wrong = type("Wrong", (Brightness,), {"temperature": wrong})  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match=r"its temperature is .*; give a number above 0"):
            models.build("own_networks:wrong")


def test_ids_are_given_to_a_network_that_needs_them_and_a_name_is_not_needed(own: types.ModuleType) -> None:
    class ById:
        labels, stride, needs_ids = LABELS, 4, True

        def scores(self, images: list[np.ndarray], ids: list[str]) -> list[str]:
            return [*ids]

    own.by_id = ById  # type: ignore[attr-defined]
    own.plain = type("Plain", (ById,), {"needs_ids": False, "scores": lambda self, images: [len(images)]})  # type: ignore[attr-defined]
    image = np.zeros((4, 4, 3), np.uint8)
    assert models.build("own_networks:by_id").scores([image], ["a"]) == ["a"]
    assert models.build("own_networks:plain").scores([image], ["a"]) == [1]
    assert models.build("own_networks:plain").name == "own_networks:plain"
