"""Statistics on plain numbers: sums over units in, named tuples out. No rows, no store, no clock, no hidden
randomness.

An estimate (`ratio`, `cuped`, `quantile`) makes a `contrast` of a treatment and the control; an inference
(`sequential`, `fixed`, `bayesian`) says what the contrast shows. `summary` and `metric` are light; the other
modules import scipy.
"""
