"""What a scrape of Prometheus finds."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from promptab import PriceBook

MODEL = "our-own-7b"
PRICES = PriceBook({MODEL: {"input": 10.0, "output": 20.0, "cache_read": 0.0}})


class Scraped:
    """The metrics of a registry, as they are on the wire."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.text = generate_latest(registry).decode()
        self.samples = [
            sample for family in text_string_to_metric_families(self.text) for sample in family.samples
        ]

    def by(self, label: str, name: str, **selected: str) -> dict[str, float]:
        """`sum by (label) (name{selected})`."""
        found: dict[str, float] = {}
        for sample in self.samples:
            if sample.name == name and selected.items() <= sample.labels.items():
                key = sample.labels[label]
                found[key] = found.get(key, 0.0) + sample.value
        return found

    def sum(self, name: str, **selected: str) -> float:
        return sum(self.by("experiment", name, **selected).values())

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self.samples if sample.name == name]
