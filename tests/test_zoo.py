"""The table of networks in README.md names what the registry holds, as it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from segbatch import models

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "zoo.py"


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_that_of_the_registry(zoo: ModuleType):
    """If this fails: python benchmarks/zoo.py --new"""
    rows = zoo.table(zoo.README.read_text())
    assert list(rows) == list(models.MODELS)
    for name, cells in rows.items():
        assert cells[:-1] == zoo.row(name), name
        assert cells[-1] == "–" or float(cells[-1]) > 0


def test_receptive_fields_and_figures_are_computed_and_stated(zoo: ModuleType):
    """By hand: Chen et al. 2015 for a VGG16 with fc6 7 x 7 at stride 32, 404; DeconvNet sees its window."""
    assert [zoo.row(name)[3] for name in ("fcn8s", "deconvnet", "lraspp_mobilenet_v3_large")] == ["404", "224", "image"]
    assert zoo.row("deeplabv3_resnet50")[4].startswith("66.4, ")
    assert zoo.row("deeplabv3plus_mobilenet_v2")[5].replace(".", "").isdecimal()


def test_speed_is_measured(zoo: ModuleType):
    assert zoo.speed("null", 1, least=0.01) == "–"
    assert float(zoo.speed("lraspp_mobilenet_v3_large", 1, least=0.01)) > 0


def test_writing_again_changes_nothing_but_the_table(zoo: ModuleType):
    text = zoo.README.read_text()
    rows = list(zoo.table(text).values())
    measured_on = text.partition("images/s, ")[2].partition(" |")[0]
    assert zoo.replaced(text, zoo.render(rows, measured_on)) == text
    assert zoo.table(zoo.replaced(text, zoo.render(rows[:2], "x"))) == dict(list(zoo.table(text).items())[:2])
    with pytest.raises(SystemExit, match="once, in this order"):
        zoo.replaced("no marks", "")
