"""Sums over units, out of a warehouse: what `stores.queries.moments` and `unit_history` are for the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ibis

from promptab.analysis.evidence import ArmCounts, UnitTotal
from promptab.integrations.warehouse.columns import Column, Table
from promptab.integrations.warehouse.units import (
    Source,
    UnitMetric,
    carrier,
    unit_metric,
)
from promptab.stats.covariate_sums import CovariateSums
from promptab.stats.metric import MetricDefinition
from promptab.stats.summary import UnitSums
from promptab.stores.queries.unit_facts import Series, all_series

if TYPE_CHECKING:
    from promptab.stats.quantile import QuantileArm

ByVariant = dict[str, dict[int, UnitSums]]


class Sums(NamedTuple):
    """Everything that some units add up to."""

    metrics: dict[str, ByVariant]
    arms: dict[str, dict[int, ArmCounts]]


def summed(
    facts: Table,
    series: Sequence[Series],
    metrics: Sequence[MetricDefinition],
    *,
    segment: str | None = None,
) -> dict[str, Sums]:
    """Return the sums of these metrics by variant and epoch, for each value of the column `segment`, or under "".

    Second moments are about the metrics' means over all these units: two passes over the units.
    """
    pairs = [unit_metric(metric, carrier(facts, series)) for metric in metrics]
    centers = _means(facts, pairs)
    grouped = ["variant", "epoch", *([] if segment is None else [segment])]
    columns: dict[str, Column] = {
        "exposed": facts.count(),
        "reporting": facts.reporting.sum(),
        "switched": facts.switched.sum(),
    }
    for index, (pair, center) in enumerate(zip(pairs, centers, strict=True)):
        columns |= {f"{name}_{index}": column for name, column in _moments(pair, center).items()}
    found: dict[str, Sums] = {}
    for row in facts.group_by(grouped).aggregate(**columns).to_pyarrow().to_pylist():
        part = found.setdefault("" if segment is None else row[segment], Sums({}, {}))
        counts = ArmCounts(int(row["exposed"]), int(row["reporting"]), int(row["switched"]))
        part.arms.setdefault(row["variant"], {})[row["epoch"]] = counts
        for index, metric in enumerate(metrics):
            if sums := _unit_sums(row, index, centers[index]):
                part.metrics.setdefault(metric.name, {}).setdefault(row["variant"], {})[row["epoch"]] = sums
    return found


def unit_totals(
    facts: Table, series: Sequence[Series], metric: MetricDefinition
) -> dict[str, dict[int, list[UnitTotal]]]:
    """Return (n, s) of every unit that counts in the metric, in the order of exposure, then of the unit's name."""
    pair = unit_metric(metric, carrier(facts, series))
    counted = facts.mutate(pair_n=pair.n, pair_s=pair.s).filter(pair.counts)
    rows = counted.order_by("at", "unit").select("variant", "epoch", "pair_n", "pair_s").to_pyarrow()
    found: dict[str, dict[int, list[UnitTotal]]] = {}
    for row in rows.to_pylist():
        of_epoch = found.setdefault(row["variant"], {}).setdefault(row["epoch"], [])
        of_epoch.append((float(row["pair_n"]), float(row["pair_s"])))
    return found


def covariate_sums(source: Source, metric: MetricDefinition) -> dict[str, dict[int, CovariateSums]]:
    """Return the sums with what the units did in the metric's `history_days` before their exposure."""
    series = all_series([metric])
    facts, past = source.facts(series), source.pasts(series, metric.history_days or 0.0)
    earlier = past.rename({"past_unit": "unit"} | {f"{c}_past": c for c in past.columns if c != "unit"})
    joined = facts.left_join(earlier, facts.unit == earlier.past_unit)
    joined = joined.mutate(**{c: joined[c].fill_null(0) for c in earlier.columns if c != "past_unit"})
    since = unit_metric(metric, carrier(joined, series))
    before = unit_metric(metric, carrier(joined, series, "_past"))
    pairs = joined.filter(since.counts).select(
        "variant", "epoch", n=since.n, s=since.s, m=before.n, x=before.s
    )
    pairs = pairs.cache()
    try:
        return _covariates(pairs)
    finally:
        pairs.release()


def quantiles(source: Source, metric: MetricDefinition) -> dict[str, dict[int, QuantileArm]]:
    """Return the quantile of every arm, from the values of its single events, which are fetched."""
    import pyarrow.compute as pc  # noqa: PLC0415 - nothing else here needs it

    from promptab.stats.quantile import quantile_arm  # noqa: PLC0415 - brings scipy

    rows = source.values(Series(metric.source)).to_pyarrow()
    # the draws of a bootstrap go by the units' numbers: the same each time, in whatever order the rows come
    rows = rows.sort_by([("unit", "ascending"), ("value", "ascending")])
    numbers = pc.dictionary_encode(rows["unit"].combine_chunks()).indices
    rows = rows.append_column("number", numbers)
    found: dict[str, dict[int, QuantileArm]] = {}
    for key in rows.group_by(["variant", "epoch"]).aggregate([]).to_pylist():
        among = rows.filter(
            pc.and_(pc.equal(rows["variant"], key["variant"]), pc.equal(rows["epoch"], key["epoch"]))
        )
        arm = quantile_arm(among["value"].to_numpy(), among["number"].to_numpy(), metric.quantile or 0.5)
        found.setdefault(key["variant"], {})[key["epoch"]] = arm
    return found


def _means(facts: Table, pairs: Sequence[UnitMetric]) -> list[float]:
    """Return Σs/Σn of each pair over all units, 0 where nothing can be divided by."""
    if not pairs:
        return []
    totals: dict[str, Column] = {}
    for index, pair in enumerate(pairs):
        totals |= {f"n_{index}": pair.n.sum(), f"s_{index}": pair.s.sum()}
    (row,) = facts.aggregate(**totals).to_pyarrow().to_pylist()
    return [
        float(row[f"s_{index}"]) / float(row[f"n_{index}"]) if row[f"n_{index}"] else 0.0
        for index in range(len(pairs))
    ]


def _moments(pair: UnitMetric, center: float) -> dict[str, Column]:
    residual = pair.s - center * pair.n
    return {
        "units": ibis.ifelse(pair.counts, 1, 0).sum(),
        "n": pair.n.sum(),
        "s": pair.s.sum(),
        "rr": (residual * residual).sum(),
        "nn": (pair.n * pair.n).sum(),
        "rn": (residual * pair.n).sum(),
    }


def _unit_sums(row: Mapping[str, Any], index: int, center: float) -> UnitSums | None:
    if not row[f"units_{index}"]:
        return None
    sums = {name: float(row[f"{name}_{index}"]) for name in ("n", "s", "rr", "nn", "rn")}
    return UnitSums(units=int(row[f"units_{index}"]), center=center, **sums)


def _covariates(pairs: Table) -> dict[str, dict[int, CovariateSums]]:
    """Return the sums of pairs (n, s) and (m, x), about the means of all of them."""
    (totals,) = (
        pairs.aggregate(**{name: pairs[name].sum() for name in ("n", "s", "m", "x")}).to_pyarrow().to_pylist()
    )
    center = totals["s"] / totals["n"] if totals["n"] else 0.0
    pre_center = totals["x"] / totals["m"] if totals["m"] else 0.0
    n, s, m, x = pairs.n, pairs.s, pairs.m, pairs.x
    r, z = s - center * n, x - pre_center * m
    products = {"rr": r * r, "nn": n * n, "rn": r * n, "zz": z * z, "mm": m * m, "zm": z * m}
    products |= {"rz": r * z, "rm": r * m, "nz": n * z, "nm": n * m, "n": n, "s": s, "m": m, "x": x}
    rows = pairs.group_by("variant", "epoch").aggregate(
        units=pairs.count(),
        with_history=ibis.ifelse((m != 0) | (x != 0), 1, 0).sum(),
        **{name: product.sum() for name, product in products.items()},
    )
    found: dict[str, dict[int, CovariateSums]] = {}
    for row in rows.to_pyarrow().to_pylist():
        sums = {name: float(row[name]) for name in products}
        found.setdefault(row["variant"], {})[row["epoch"]] = CovariateSums(
            units=int(row["units"]),
            with_history=int(row["with_history"]),
            center=center,
            pre_center=pre_center,
            **sums,
        )
    return found
