"""Experiments: one script a question, each `python -m experiments.NAME`."""
