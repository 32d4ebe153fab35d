"""The highest Poisson rate that holds an SLO: ramp from below, bisect, vote, confirm.

Pure: `find_capacity` is given a function that probes a rate, and never sees a server or a clock. While it
looks, a probe holds when the percentile itself does, by majority near the edge. The answer is confirmed by
a longer probe that has to prove it (MLPerf's early stopping, 99 %), and backs off until one does: it errs
to the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from bench.slo import Holding
from bench.stats import samples_needed
from bench.units import Slo

RAMP = 1.5
PRECISION = 1.02  # bisection ends when the lowest missed rate is this close to the highest that held
BACK_OFF = 0.985  # after a rate that did not confirm
MOST_PROBES = 40
CONFIRMATIONS = 2
CONFIRM_FROM = 0.98  # of the rate that bisection ends at: on the edge itself it would be proved by luck only
VOTES = 3  # near the edge one probe is a coin toss


class Effort(IntEnum):
    """How many times the samples that the percentile needs at all (662 for p99) a probe should have."""

    RAMP = 1  # far from the edge; steps by half forgive a wrong turn
    LOOK = 4
    CONFIRM = 24  # fewer would prove only rates far below the capacity


@dataclass(frozen=True, slots=True)
class Probe:
    """`why`: in a phrase, for the report."""

    rate_per_s: float
    outcome: Holding
    why: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """`rate_per_s` None: not even the lowest rate tried holds.

    `low`, `high`: the highest rate that was confirmed, and the lowest above it that missed; None when none
    missed (the generator's own limit, or `most_per_s`, came first).
    """

    rate_per_s: float | None
    low: float | None
    high: float | None
    probes: tuple[Probe, ...]

    @property
    def is_confirmed(self) -> bool:
        return self.rate_per_s is not None


Measure = Callable[[float, Effort], Probe]


@dataclass(slots=True)
class _Log:
    """Every probe in order; raises when there are too many, since a search must end."""

    measure: Measure
    probes: list[Probe] = field(default_factory=list)

    def holds(self, rate: float, effort: Effort) -> bool:
        probe = self.measure(round_rate(rate), effort)
        self.probes.append(probe)
        undecided = probe.outcome is Holding.UNDECIDED and effort is not Effort.CONFIRM
        return probe.outcome is Holding.HOLDS or undecided

    def majority(self, rate: float, effort: Effort) -> bool:
        """Best of three, unless the first already proves that it holds."""
        ayes = noes = 0
        while max(ayes, noes) <= VOTES // 2:
            ayes, noes = (ayes + 1, noes) if self.holds(rate, effort) else (ayes, noes + 1)
            if self.probes[-1].outcome is Holding.HOLDS and not noes:
                return True
        return ayes > noes

    @property
    def is_full(self) -> bool:
        return len(self.probes) >= MOST_PROBES


def find_capacity(measure: Measure, start_per_s: float, most_per_s: float = math.inf) -> Capacity:
    """Search upwards from `start_per_s`; see the module's head for the rules."""
    log = _Log(measure)
    held, missed = _ramp(log, start_per_s, most_per_s)
    if held is None:
        return Capacity(None, None, missed, tuple(log.probes))
    held, missed = _bisect(log, held, missed)
    confirmed = _confirm(log, held if missed is None else held * CONFIRM_FROM)
    above = [p.rate_per_s for p in log.probes if p.outcome is Holding.MISSES]
    high = min((rate for rate in above if confirmed is not None and rate > confirmed), default=None)
    return Capacity(confirmed, confirmed, high, tuple(log.probes))


def _ramp(log: _Log, start: float, most: float) -> tuple[float | None, float | None]:
    """Up by half while it holds; down by half as often when even the start does not."""
    rate, held = start, None
    while not log.is_full:
        if not log.majority(rate, Effort.RAMP):
            if held is not None or rate < start / 50:
                return held, rate
            rate /= RAMP
            if log.majority(rate, Effort.RAMP):
                return rate, rate * RAMP
            continue
        held = rate
        if rate >= most:
            return held, None
        rate = min(rate * RAMP, most)
    return held, None


def _bisect(log: _Log, held: float, missed: float | None) -> tuple[float, float | None]:
    """In log space, each step by majority."""
    while missed is not None and missed / held > PRECISION and not log.is_full:
        middle = math.sqrt(held * missed)
        held, missed = (middle, missed) if log.majority(middle, Effort.LOOK) else (held, middle)
    return held, missed


def _confirm(log: _Log, rate: float) -> float | None:
    """The highest rate, from here down, that is proved to hold twice: requests of one probe queue
    behind each other, so they prove less than as many independent ones would."""
    while not log.is_full:
        if all(log.holds(rate, Effort.CONFIRM) for _ in range(CONFIRMATIONS)):
            return round_rate(rate)
        rate *= BACK_OFF
    return None


def round_rate(rate: float) -> float:
    """Four digits: a rate is a cell's name too."""
    return float(f"{rate:.4g}")


def samples_wanted(slo: Slo, effort: Effort) -> int:
    """Requests a probe should have, for the strictest percentile."""
    return effort * max(samples_needed(percent) for percent, _ in slo.latencies)


def table(results: Sequence[tuple[str, Capacity]]) -> list[dict[str, object]]:
    """One row a search, as JSON: the answer, its interval, and how it was found."""
    return [
        {
            "what": name,
            "rate_per_s": found.rate_per_s,
            "rate_per_s_low": found.low,
            "rate_per_s_high": found.high,
            "probes": [
                {"rate_per_s": p.rate_per_s, "outcome": p.outcome.value, "why": p.why} for p in found.probes
            ],
        }
        for name, found in results
    ]
