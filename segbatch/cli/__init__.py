"""The command line, the only package that prints."""

import sys

from segbatch.shadowing import problem

if found := problem():  # before the imports that it would break
    sys.stderr.write(f"error: {found}\n")
    sys.exit(2)
