"""Edges to other systems; each needs an extra of its own, and knows none of the others."""
