"""``python -m segbatch``."""

from segbatch.cli.app import main

main()
