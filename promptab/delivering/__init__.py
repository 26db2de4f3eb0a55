"""Sending alerts: what a channel does with one, and the passes over what is due."""
