"""The one figure that MLPerf's scenarios are about."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.cell_row import CellRow
from bench.analysis.labels import load_text, name_of
from bench.analysis.recommendation import Limit, holds
from bench.analysis.slo import Holds
from bench.analysis.stats import samples_needed
from bench.core.run_folder import RunRecord
from bench.core.slo import parse_slo
from bench.core.spec import Scenario
from bench.core.units import significant

_PERCENT = {Scenario.SINGLE_STREAM: 90.0, Scenario.MULTI_STREAM: 99.0}


def headline(rows: Sequence[CellRow], record: RunRecord) -> str:
    """One sentence; "" without a scenario."""
    name = record.spec.get("scenario")
    if not name:
        return ""
    scenario = Scenario(name)
    valid = [row for row in rows if row.is_candidate]
    if scenario in _PERCENT:
        figure = _latency(valid, _PERCENT[scenario])
    elif scenario is Scenario.SERVER:
        figure = _rate(valid, record.slo)
    else:
        figure = _throughput(valid)
    return f"MLPerf {scenario}: {figure}"


def _latency(valid: Sequence[CellRow], percent: float) -> str:
    known = [(value, row) for row in valid if (value := row.latency_ms(percent)) is not None]
    if not known:
        return f"p{percent:g} latency n/a, it needs {samples_needed(percent)} requests per cell."
    value, row = min(known, key=lambda pair: pair[0])
    return f"p{percent:g} latency {significant(value)} ms ({_of(row, valid)})."


def _rate(valid: Sequence[CellRow], slo: str) -> str:
    if not slo:
        return "the rate under an SLO, and no --slo was given."
    limit = Limit.of(parse_slo(slo))
    held = [row for row in valid if row.rate_per_s and holds(row, limit) in (Holds.YES, Holds.LIKELY)]
    if not held:
        return f"no rate that was measured holds {slo}."
    row = max(held, key=lambda one: one.rate_per_s or 0.0)
    proved = "" if holds(row, limit) is Holds.YES else ", likely, not proved"
    return f"{load_text(row)} under {slo}{proved} ({name_of(row, valid)})."


def _throughput(valid: Sequence[CellRow]) -> str:
    if not valid:
        return "nothing valid was measured."
    row = max(valid, key=lambda one: one.throughput_img_per_s or 0.0)
    return f"{significant(row.throughput_img_per_s or 0.0)} img/s ({_of(row, valid)})."


def _of(row: CellRow, valid: Sequence[CellRow]) -> str:
    return f"{name_of(row, valid)} over {row.protocol}"
