"""Simulated experiments by the thousand: do the numbers that promptab reports keep their promises?

`python -m tests.calibration` runs them all and writes the tables of README.md; `--quick` runs a tenth of each.
"""
