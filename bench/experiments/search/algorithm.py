"""Find the highest Poisson rate that meets an SLO.

Pure: `find_capacity` is given a function that probes one rate, and never sees a server or a clock. It raises
the rate until the SLO is missed and bisects between the last two rates, both by majority of probes. That only
finds the neighbourhood. There a `CapacityEstimate` weighs every probe: it says which rate to probe next, and
how exactly the capacity is known. The answer is a rate at which the SLO is met with 95 % probability by all
probes so far, and at which further probes have met it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from bench.analysis.capacity_estimate import CapacityEstimate, Evidence
from bench.analysis.slo import Holds
from bench.analysis.stats import samples_needed
from bench.core.slo import Slo

# The ramp raises the rate by this factor as long as the SLO is met.
RAMP = 1.5
# Bisection ends when the lowest rate that missed the SLO is within this factor of the highest that met it.
COARSE = 1.15
# Majorities can be wrong, so the capacity is looked for this factor outside the last two rates of bisection.
BEYOND = 1.3
# Refining probes the rates at these quantiles of the estimate in turn. Probes on both sides of the capacity
# tell how steeply the share of late requests rises with the rate.
LOOK_AT = (0.2, 0.5, 0.8)
# Refining takes at least and at most so many probes.
LEAST_REFINED, MOST_REFINED = 6, 16
# Refining ends when the standard error of ln(capacity) is at most this, about 1.2 % of the rate.
TIGHT = 0.012
# The answer is the rate that exceeds the capacity with this probability by the probes so far. Confirming it
# with further probes leaves less.
SAFE = 0.1
# A rate that was not confirmed is lowered by at least this factor.
BACK_OFF = 0.995
# A search ends after so many probes, with or without an answer.
MOST_PROBES = 45
# The code of the one finding that says a probe missed the SLO because of the load generator.
CLIENT_BOUND = "client-bound"
# What search.json calls the outcome of a probe.
OUTCOMES = {Holds.YES: "holds", Holds.LIKELY: "undecided", Holds.UNKNOWN: "undecided", Holds.NO: "misses"}
# A majority is taken over so many probes: close to the capacity one probe is a coin toss.
VOTES = 3


class Effort(IntEnum):
    """How long a probe is, in multiples of the fewest samples that decide a percentile (662 for p99)."""

    RAMP = 1  # far from the capacity short probes are enough, since a wrong step is corrected later
    LOOK = 2
    REFINE = 12  # few long probes tell more than many short ones, since each starts with an empty queue


@dataclass(frozen=True, slots=True)
class Probe:
    """One trial at a rate. `why`: its outcome in a phrase, for the report.

    `seen`: how many requests were late; None when nothing was answered. `invalid`: codes of the findings that
    make the trial INVALID.
    """

    rate_per_s: float
    outcome: Holds
    why: str
    seen: Evidence | None = None
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer of a search. `rate_per_s`: the confirmed rate; None when there is none.

    `estimate_per_s`: the highest rate that meets the SLO, with its 95 % interval `low` to `high`; None when
    the ramp did not find a rate that meets the SLO and one that misses it. `failure`: why the search could
    not be finished, in a sentence; "" when it was.
    """

    rate_per_s: float | None
    probes: tuple[Probe, ...]
    estimate_per_s: float | None = None
    low: float | None = None
    high: float | None = None
    failure: str = ""

    @property
    def is_confirmed(self) -> bool:
        return self.rate_per_s is not None

    @property
    def is_missed(self) -> bool:
        """Whether every rate that was probed misses the SLO. Otherwise, without an answer, probes ran out."""
        misses = all(probe.outcome is Holds.NO for probe in self.probes)
        return misses and not self.is_confirmed and not self.failure

    @property
    def doubts(self) -> tuple[str, ...]:
        """Codes of the findings for which the answer is not the server's capacity.

        These are what more than half of the probes at the answer have, and CLIENT_BOUND where more than half
        of the probes that missed have it. A single INVALID probe decides nothing. Other findings of probes
        that missed do not count, since above its capacity a server cannot be given all its load.
        """
        at_answer = [probe for probe in self.probes if probe.rate_per_s == self.rate_per_s]
        misses = [probe for probe in self.probes if probe.outcome is Holds.NO]
        client = {CLIENT_BOUND} & _most(misses)
        return tuple(sorted(client | (_most(at_answer) if self.is_confirmed else set())))


def _most(probes: Sequence[Probe]) -> set[str]:
    """Codes that more than half of the probes have."""
    counts = Counter(code for probe in probes for code in set(probe.invalid))
    return {code for code, count in counts.items() if 2 * count > len(probes)}


Measure = Callable[[float, Effort], Probe]


@dataclass(slots=True)
class _Log:
    """Every probe in order."""

    measure: Measure
    probes: list[Probe] = field(default_factory=list)
    estimate: CapacityEstimate | None = None

    def feed(self, estimate: CapacityEstimate) -> CapacityEstimate:
        """Give every probe so far, and from here on each new one, to the estimate."""
        self.estimate = estimate
        for probe in self.probes:
            estimate.see(probe.seen)
        return estimate

    def holds(self, rate: float, effort: Effort) -> bool:
        probe = self.measure(round_rate(rate), effort)
        self.probes.append(probe)
        if self.estimate is not None:
            self.estimate.see(probe.seen)
        return probe.outcome is not Holds.NO

    def majority(self, rate: float, effort: Effort) -> bool:
        """Whether most of VOTES probes meet the SLO; one is enough when its samples prove that it does."""
        ayes = noes = 0
        while max(ayes, noes) <= VOTES // 2:
            ayes, noes = (ayes + 1, noes) if self.holds(rate, effort) else (ayes, noes + 1)
            if self.probes[-1].outcome is Holds.YES and not noes:
                return True
        return ayes > noes

    @property
    def is_full(self) -> bool:
        return len(self.probes) >= MOST_PROBES


def find_capacity(measure: Measure, start_per_s: float) -> Capacity:
    """Search upwards from `start_per_s` requests per second. Raises what `measure` raises."""
    log = _Log(measure)
    held, missed = _ramp(log, start_per_s)
    if held is None or missed is None:
        return Capacity(None, tuple(log.probes))
    held, missed = _bisect(log, held, missed)
    estimate = _refine(log, held / BEYOND, missed * BEYOND)
    confirmed = _confirm(log, estimate)
    low, middle, high = (estimate.quantile(share) for share in (0.025, 0.5, 0.975))
    return Capacity(confirmed, tuple(log.probes), middle, low, high)


def _ramp(log: _Log, start: float) -> tuple[float | None, float | None]:
    """Raise the rate while it holds; lower it when even the start does not.

    Returns the highest rate that held and the lowest that missed; None for one that was not found.
    """
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
        rate *= RAMP
    return held, None


def _bisect(log: _Log, held: float, missed: float) -> tuple[float, float]:
    """Halve the distance between the two rates in log space, each step by majority, until it is COARSE."""
    while missed / held > COARSE and not log.is_full:
        middle = math.sqrt(held * missed)
        held, missed = (middle, missed) if log.majority(middle, Effort.LOOK) else (held, middle)
    return held, missed


def _refine(log: _Log, low: float, high: float) -> CapacityEstimate:
    """Probe where the capacity may be until it is known well enough."""
    estimate = log.feed(CapacityEstimate(low, high))
    for count in range(MOST_REFINED):
        if log.is_full or (count >= LEAST_REFINED and estimate.error <= TIGHT):
            break
        log.holds(estimate.quantile(LOOK_AT[count % len(LOOK_AT)]), Effort.REFINE)
    return estimate


def _confirm(log: _Log, estimate: CapacityEstimate) -> float | None:
    """The highest rate that is safe by all probes and holds when it is probed; None: probes ran out."""
    rate = estimate.quantile(SAFE)
    while not log.is_full:
        if log.majority(rate, Effort.REFINE):
            return round_rate(rate)
        rate = min(rate * BACK_OFF, estimate.quantile(SAFE))
    return None


def round_rate(rate: float) -> float:
    """The rate to four significant digits: the key of its cell contains it."""
    return float(f"{rate:.4g}")


def samples_wanted(slo: Slo, effort: Effort) -> int:
    """How many requests a probe should have, for the strictest percentile of the SLO."""
    return effort * max(samples_needed(percent) for percent, _ in slo.latencies)


def table(answers: Sequence[tuple[str, Capacity]]) -> list[dict[str, object]]:
    """One JSON object per search: the answer, its interval, its probes, and why it failed, if it did."""
    return [
        {
            "what": name,
            "rate_per_s": capacity.rate_per_s,
            "edge_per_s": capacity.estimate_per_s,
            "edge_per_s_low": capacity.low,
            "edge_per_s_high": capacity.high,
            "probes": [
                {"rate_per_s": probe.rate_per_s, "outcome": OUTCOMES[probe.outcome], "why": probe.why}
                for probe in capacity.probes
            ],
            "doubts": list(capacity.doubts),
            "failed": capacity.failure,
        }
        for name, capacity in answers
    ]
