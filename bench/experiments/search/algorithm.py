"""Find the highest Poisson rate that meets an SLO.

Pure: `find_capacity` is given a function that probes one rate, and never sees a server or a clock. It raises
the rate until the SLO is missed and bisects between the last two rates, both by majority of probes. That only
finds the neighbourhood. There a `CapacityEstimate` weighs every probe: it says which rate to probe next, and
how exactly the capacity is known. It moves with the probes, so that a wrong majority does not bound it.

Every probe starts with a warm-up at its own rate, since an empty queue would flatter it. Warm-up and probe
are as long as the queue's relaxation asks: the design effect of the probes so far says how many requests
count as one independent one.

The answer is a rate that is within the capacity with the probability 1 - SAFE. Where that lies far below the
likely capacity, or the capacity changed in the course of the study, there is no answer, only an interval: the
search is not settled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from bench.analysis.capacity_estimate import CapacityEstimate, Evidence
from bench.analysis.slo import Holds
from bench.analysis.stats import samples_needed
from bench.core.slo import Slo

# The ramp raises the rate by this factor as long as the SLO is met.
RAMP = 1.5
# Bisection ends when the lowest rate that missed the SLO is within this factor of the highest that met it.
COARSE = 1.15
# Refining probes in turn the rates at which so many times the allowed share is probably late. Probes on both
# sides of the capacity tell how steeply the share rises with the rate; more late ones tell more.
LOOK_AT = (0.5, 1.0, 2.5)
# Refining takes at least and at most so many probes. Fewer may agree with each other by luck.
LEAST_REFINED, MOST_REFINED = 12, 24
# Refining ends when the answer is so near to the likely capacity, in ln(rate). That is less than SETTLED,
# because a change of the server meanwhile is weighed at the end.
TIGHT = 0.037
# The answer is the rate that exceeds the capacity with this probability.
SAFE = 0.005
# A search is settled when its answer is at most this far below the likely capacity, in ln(rate). 5 % of the
# capacity are claimed, and the likely one is not exact.
SETTLED = 0.045
# Probes so near to the answer, as a share of it, say whether it is the server's.
NEAR = 0.05
# It is not settled when the capacity changes over the study with more than this probability.
TRENDING = 0.5
# A search ends after so many probes, with or without an answer.
MOST_PROBES = 45
# The code of the one finding that says a probe missed the SLO because of the load generator.
CLIENT_BOUND = "client-bound"
# What search.json calls the outcome of a probe.
OUTCOMES = {Holds.YES: "holds", Holds.LIKELY: "undecided", Holds.UNKNOWN: "undecided", Holds.NO: "misses"}
# A majority is taken over so many probes: close to the capacity one probe is a coin toss.
VOTES = 3
# A probe has at least so many independent pieces: it is as long as the queue's relaxation asks.
PIECES = 30
# It starts after so many pieces of the same load, in which the queue fills.
FILLING = 3
# No probe is longer than this many times the usual REFINE of a p99.
LONGEST = 8


class Effort(IntEnum):
    """How long a probe is, in multiples of the fewest samples that decide a percentile (662 for p99)."""

    RAMP = 1  # far from the capacity short probes are enough, since a wrong step is corrected later
    LOOK = 2
    REFINE = 12  # few long probes tell more than many short ones, since each has to fill the queue first


@dataclass(frozen=True, slots=True)
class Length:
    """Of a probe, in requests: `warmup` of the same load before those that count."""

    requests: int
    warmup: int


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
    """The answer of a search. `rate_per_s`: None when the search is not settled, or no rate meets the SLO.

    `estimate_per_s`: the highest rate that meets the SLO, with its 95 % interval `low` to `high`; None when
    the ramp did not find a rate that meets the SLO and one that misses it. `change`: of the capacity over the
    study, as a share; None where none was seen. `longer`: how many times longer probes should settle the
    search; None where it is settled, or time does not help. `failure`: why the search could not be
    finished, in a sentence; "" when it was.
    """

    rate_per_s: float | None
    probes: tuple[Probe, ...]
    estimate_per_s: float | None = None
    low: float | None = None
    high: float | None = None
    failure: str = ""
    change: float | None = None
    longer: float | None = None

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

        These are what more than half of the probes near the answer have, and CLIENT_BOUND where more than
        half of the probes that missed have it. A single INVALID probe decides nothing. Other findings of
        probes that missed do not count, since above its capacity a server cannot be given all its load.
        """
        answer = self.rate_per_s or math.inf
        at_answer = [p for p in self.probes if abs(p.rate_per_s / answer - 1) <= NEAR]
        at_answer = [p for p in at_answer if p.outcome is not Holds.NO]
        misses = [probe for probe in self.probes if probe.outcome is Holds.NO]
        client = {CLIENT_BOUND} & _most(misses)
        return tuple(sorted(client | (_most(at_answer) if self.is_confirmed else set())))


def _most(probes: Sequence[Probe]) -> set[str]:
    """Codes that more than half of the probes have."""
    counts = Counter(code for probe in probes for code in set(probe.invalid))
    return {code for code, count in counts.items() if 2 * count > len(probes)}


Measure = Callable[[float, Length], Probe]


@dataclass(slots=True)
class _Log:
    """Every probe in order, and the estimate that weighs them.

    `least`: samples that decide the SLO. `longest_s`: of a probe, and of its warm-up.
    """

    measure: Measure
    least: int
    longest_s: float
    probes: list[Probe] = field(default_factory=list)
    estimate: CapacityEstimate | None = None

    def locate(self, rate: float) -> CapacityEstimate:
        """Begin the estimate around a rate, with every probe so far; each new one is added."""
        self.estimate = CapacityEstimate(rate)
        for probe in self.probes:
            self.estimate.see(probe.seen)
        return self.estimate

    def holds(self, rate: float, effort: Effort, longer: float = 1.0) -> bool:
        probe = self.measure(round_rate(rate), self._length(rate, effort, longer))
        self.probes.append(probe)
        if self.estimate is not None:
            self.estimate.see(probe.seen)
        return probe.outcome is not Holds.NO

    def _length(self, rate: float, effort: Effort, longer: float) -> Length:
        """As long as the percentile and the queue's relaxation ask: by the probes so far near this rate."""
        near = [p.seen.design for p in self.probes if p.seen and 1 / RAMP < p.rate_per_s / rate < RAMP]
        design = float(np.median(near)) if near else 1.0
        most = LONGEST * Effort.REFINE * max(self.least, samples_needed(99.0))
        most = max(1, round(min(most, self.longest_s * rate)))
        requests = min(round(longer * max(effort * self.least, PIECES * design)), most)
        warmup = max(self.least // 2, min(round(FILLING * design), requests))
        return Length(requests, min(warmup, most))

    def majority(self, rate: float, effort: Effort) -> bool:
        """Whether most of VOTES probes meet the SLO; one is enough when its samples prove that it does."""
        ayes = noes = 0
        while max(ayes, noes) <= VOTES // 2 and not self.is_full:
            ayes, noes = (ayes + 1, noes) if self.holds(rate, effort) else (ayes, noes + 1)
            if self.probes[-1].outcome is Holds.YES and not noes:
                return True
        return ayes > noes

    @property
    def is_full(self) -> bool:
        return len(self.probes) >= MOST_PROBES


def find_capacity(measure: Measure, start_per_s: float, slo: Slo, longest_s: float = math.inf) -> Capacity:
    """Search upwards from `start_per_s` requests per second, with probes no longer than `longest_s`.

    Raises what `measure` raises.
    """
    log = _Log(measure, samples_wanted(slo), longest_s)
    held, missed = _ramp(log, start_per_s)
    if held is None or missed is None:
        return Capacity(None, tuple(log.probes))
    held, missed = _bisect(log, held, missed)
    estimate = log.locate(math.sqrt(held * missed))
    _refine(log, estimate)
    _confirm(log, estimate)
    return _answer(log, estimate)


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


def _refine(log: _Log, estimate: CapacityEstimate) -> None:
    """Probe where the capacity may be until it is known well enough; longer where that needs more."""
    for count in range(MOST_REFINED):
        gap = math.log(estimate.quantile(0.5) / estimate.quantile(SAFE))
        if log.is_full or (count >= LEAST_REFINED and gap <= TIGHT):
            return
        left = MOST_REFINED - count
        missing = (gap / TIGHT) ** 2 * count / left if count >= LEAST_REFINED else 1.0
        log.holds(estimate.rate_with(LOOK_AT[count % len(LOOK_AT)]), Effort.REFINE, max(1.0, missing))


def _confirm(log: _Log, estimate: CapacityEstimate) -> None:
    """Probe the rate that is safe by all probes, until it holds: further probes say whether it is."""
    while not log.is_full:
        if log.majority(estimate.quantile(SAFE), Effort.REFINE):
            return


def _answer(log: _Log, estimate: CapacityEstimate) -> Capacity:
    """By all probes, if the capacity may have changed meanwhile."""
    final = estimate.with_trend()
    (low, high), middle, rate = final.ends(0.95), final.quantile(0.5), final.quantile(SAFE)
    probes, gap, steady = tuple(log.probes), math.log(middle / rate), final.trending <= TRENDING
    if gap <= SETTLED and steady:
        return Capacity(round_rate(rate), probes, middle, low, high, change=final.change)
    # The gap shrinks with the square root of the time. Half as long again, lest the next search be unlucky.
    longer = 1.5 * (gap / SETTLED) ** 2 if steady else None
    return Capacity(None, probes, middle, low, high, change=final.change, longer=longer)


def round_rate(rate: float) -> float:
    """The rate to four significant digits: the key of its cell contains it."""
    return float(f"{rate:.4g}")


def samples_wanted(slo: Slo) -> int:
    """The fewest requests that decide the strictest percentile of the SLO."""
    return max(samples_needed(percent) for percent, _ in slo.latencies)


def table(answers: Sequence[tuple[str, Capacity]]) -> list[dict[str, object]]:
    """One JSON object per search: the answer, its interval, its probes, and why it failed, if it did."""
    return [
        {
            "what": name,
            "rate_per_s": capacity.rate_per_s,
            "edge_per_s": capacity.estimate_per_s,
            "edge_per_s_low": capacity.low,
            "edge_per_s_high": capacity.high,
            "change": capacity.change,
            "longer": capacity.longer,
            "probes": [
                {"rate_per_s": probe.rate_per_s, "outcome": OUTCOMES[probe.outcome], "why": probe.why}
                for probe in capacity.probes
            ],
            "doubts": list(capacity.doubts),
            "failed": capacity.failure,
        }
        for name, capacity in answers
    ]
