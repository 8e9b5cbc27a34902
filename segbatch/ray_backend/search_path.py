"""Where the workers of a driver look for modules."""

from __future__ import annotations

import os
import sys
from typing import Any

from ray.job_config import JobConfig


class DriverSearchPath(JobConfig):
    """Workers search the folders that the driver searches.

    Ray 2.60 puts the driver's current folder first in the search path of every worker, whether the driver searches it
    or not. A ``numpy.py`` there then ends each worker while it starts, and Ray starts the next one without end.
    """

    def _serialize(self) -> Any:
        searched = set(map(os.path.realpath, sys.path))
        self._py_driver_sys_path = [f for f in self._py_driver_sys_path if os.path.realpath(f) in searched]
        return super()._serialize()  # bytes, whatever its annotation
