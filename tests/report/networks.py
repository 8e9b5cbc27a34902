"""A network whose classes have hostile names: ``tests.report.networks:hostile``."""

from __future__ import annotations

from segbatch.labels import LabelSet
from tests.networks import Brightness

NAMES = ("background", "<script>alert('class')</script>", "{{ 7 * 7 }}</script>")


class Hostile(Brightness):
    """Brightness, with names that would run as HTML, scripts or templates if a page did not escape them."""

    name = "hostile"
    labels = LabelSet.of(NAMES)


def hostile() -> Hostile:
    return Hostile()
