"""Metrics of masks and of outputs against labels."""
