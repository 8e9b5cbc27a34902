"""Nightly runs: only what is new of several datasets, with a deadline, compared with earlier nights."""
