"""Nights: several datasets, only what is new, one night at a time, and drift against the nights before."""
