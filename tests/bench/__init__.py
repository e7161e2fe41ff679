"""Benchmarks beside their peers in the same run. ``python -m tests.bench`` prints JSON on stdout."""
