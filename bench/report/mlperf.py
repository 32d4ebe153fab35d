"""The one figure that MLPerf's scenarios are about, and what a real MLPerf run has that this one lacks.

The rules are those of MLPerf Inference: https://github.com/mlcommons/inference_policies.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.cell_row import PERCENTS, CellRow
from bench.analysis.labels import load_text, name_of
from bench.analysis.recommendation import Limit, holds
from bench.analysis.slo import Holds
from bench.analysis.stats import samples_needed
from bench.core.run_folder import RunRecord
from bench.core.slo import parse_slo
from bench.core.spec import Scenario
from bench.core.units import count, plural, significant

_PERCENT = {Scenario.SINGLE_STREAM: 90.0, Scenario.MULTI_STREAM: 99.0}
# A run of LoadGen lasts at least this long, in one piece.
_LEAST_S = 600.0
# The multi-stream scenario sends so many samples a query; the offline scenario has at least so many in all.
_SAMPLES_PER_QUERY, _OFFLINE_SAMPLES = 8, 24_576


def headline(rows: Sequence[CellRow], record: RunRecord) -> str:
    """The figure in a sentence, and in another what is not as MLPerf's rules ask; "" without a scenario."""
    name = record.spec.get("scenario")
    if not name:
        return ""
    scenario = Scenario(name)
    valid = [row for row in rows if row.is_candidate]
    if scenario in _PERCENT:
        row, figure = _latency(valid, _PERCENT[scenario])
    elif scenario is Scenario.SERVER:
        row, figure = _rate(valid, record.slo)
    else:
        row, figure = _throughput(valid)
    shorter = _shortened(scenario, row) if row is not None else []
    missing = f" This is not an MLPerf result: {'; '.join(shorter)}." if shorter else ""
    return f"In the manner of MLPerf {scenario}: {figure}{missing}"


def _shortened(scenario: Scenario, row: CellRow) -> list[str]:
    """In what a cell falls short of LoadGen's rules."""
    samples = row.requests * row.batch
    seconds = samples / (row.throughput_img_per_s or 1.0) / max(row.repeats, 1)
    lacks = []
    if seconds < _LEAST_S:
        windows = plural(row.repeats, "window")
        lacks.append(f"{windows} of about {significant(seconds)} s, where LoadGen runs {_LEAST_S:g} s")
    if scenario is Scenario.MULTI_STREAM and row.batch != _SAMPLES_PER_QUERY:
        lacks.append(f"{row.batch} samples a query, where LoadGen sends {_SAMPLES_PER_QUERY}")
    if scenario is Scenario.OFFLINE:
        if samples < _OFFLINE_SAMPLES:
            lacks.append(f"{count(samples)} samples, where LoadGen sends {count(_OFFLINE_SAMPLES)}")
        users = plural(row.concurrency or 0, "request")
        lacks.append(f"{users} in flight, where LoadGen hands over all samples at once")
    return [*lacks, "no accuracy run"]


def _latency(valid: Sequence[CellRow], percent: float) -> tuple[CellRow | None, str]:
    """The early-stopping estimate is LoadGen's result; the percentile of the samples stands beside it."""
    known = [(value, row) for row in valid if (value := row.latency_ms(percent)) is not None]
    if not known:
        return None, f"p{percent:g} latency n/a, it needs {samples_needed(percent)} requests per cell."
    value, row = min(known, key=lambda pair: pair[0])
    estimate = row.early_stopping_ms[PERCENTS.index(percent)] if row.early_stopping_ms else None
    early = f", early-stopping estimate {significant(estimate)} ms" if estimate is not None else ""
    return row, f"p{percent:g} latency {significant(value)} ms{early} ({_of(row, valid)})."


def _rate(valid: Sequence[CellRow], slo: str) -> tuple[CellRow | None, str]:
    if not slo:
        return None, "the rate under an SLO, and no --slo was given."
    limit = Limit.of(parse_slo(slo))
    held = [row for row in valid if row.rate_per_s and holds(row, limit) in (Holds.YES, Holds.LIKELY)]
    if not held:
        return None, f"no rate that was measured holds {slo}."
    row = max(held, key=lambda one: one.rate_per_s or 0.0)
    proved = "" if holds(row, limit) is Holds.YES else ", likely, not proved"
    return row, f"{load_text(row)} under {slo}{proved} ({name_of(row, valid)})."


def _throughput(valid: Sequence[CellRow]) -> tuple[CellRow | None, str]:
    if not valid:
        return None, "nothing valid was measured."
    row = max(valid, key=lambda one: one.throughput_img_per_s or 0.0)
    return row, f"{significant(row.throughput_img_per_s or 0.0)} img/s ({_of(row, valid)})."


def _of(row: CellRow, valid: Sequence[CellRow]) -> str:
    return f"{name_of(row, valid)} over {row.protocol}"
