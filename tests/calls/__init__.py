"""Tracked calls: the real clients of OpenAI and Anthropic, over HTTP, against a server on this machine."""
