"""Exports: the masks of an output as files that other tools read, one file per format."""

from __future__ import annotations

from segbatch.export.format import Format
from segbatch.registry import Registry

EXPORTS: Registry[Format] = Registry("export format")
