"""Run stages whose records may crash their process. Other packages import only these names, and ``failures``."""

from segbatch.isolation.attempts import AttemptCounter, Draining, begin_attempt
from segbatch.isolation.limits import Limits
from segbatch.isolation.supervise import supervise

__all__ = ["AttemptCounter", "Draining", "Limits", "begin_attempt", "supervise"]
