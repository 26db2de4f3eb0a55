"""Benchmarks: scripts that print a table, `python -m tests.benchmarks.NAME`. They assert nothing about time."""
