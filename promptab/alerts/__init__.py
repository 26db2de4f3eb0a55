"""Alerts: what somebody should hear of, in which words, and how it is told. Pure."""
