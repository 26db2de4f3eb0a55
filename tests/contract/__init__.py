"""What every store promises, whichever database is underneath.

The docstrings of `promptab.stores.base` and of the queries, sentence by sentence.
A test takes the fixture `store` and never asks which it has; `lasting_url` is for what outlives a connection.
"""
