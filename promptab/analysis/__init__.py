"""Summaries in, a result with its reasons out. `result` is light; the rest brings scipy along."""
