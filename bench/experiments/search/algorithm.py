"""The highest Poisson rate that holds an SLO: ramp from below, bisect, vote, refine, confirm.

Pure: `find_capacity` is given a function that probes a rate, and never sees a server or a clock. Ramp and
bisection go by majority, and only find the neighbourhood. There `edge` weighs every probe, says where to look
next, and with which error the capacity is known. The answer lies so far below it that the SLO holds there at
95 %, and a probe at that rate has to hold as well.
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

RAMP = 1.5
COARSE = 1.15  # bisection ends when the lowest missed rate is this close to the highest that held
BEYOND = 1.3  # votes err: the edge is looked for this far outside what they say
LOOK_AT = (0.2, 0.5, 0.8)  # quantiles of the edge in turn: both sides tell how steep it is
LEAST_REFINED, MOST_REFINED = 6, 16
TIGHT = 0.012  # standard error of ln(rate) at which the edge is known well enough
SAFE = 0.1  # probability that the answer breaks the SLO, by the probes so far; it is confirmed then
BACK_OFF = 0.995  # after a rate that did not confirm
MOST_PROBES = 45
CLIENT_BOUND = "client-bound"  # the one finding that makes a miss the generator's own
# What search.json calls the outcome of a probe.
OUTCOMES = {Holds.YES: "holds", Holds.LIKELY: "undecided", Holds.UNKNOWN: "undecided", Holds.NO: "misses"}
VOTES = 3  # near the edge one probe is a coin toss


class Effort(IntEnum):
    """How many times the samples that the percentile needs at all (662 for p99) a probe should have."""

    RAMP = 1  # far from the edge; steps by half forgive a wrong turn
    LOOK = 2
    REFINE = 12  # few long probes tell more than many short ones: each starts with an empty queue


@dataclass(frozen=True, slots=True)
class Probe:
    """`why`: in a phrase, for the report. `seen` None: nothing was answered.

    `invalid`: codes of the findings that make the trial INVALID.
    """

    rate_per_s: float
    outcome: Holds
    why: str
    seen: Evidence | None = None
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """`rate_per_s` None: not even the lowest rate tried holds.

    `edge_per_s`: where the SLO is just met, with its 95 % interval; None when the ramp did not find it.
    """

    rate_per_s: float | None
    probes: tuple[Probe, ...]
    edge_per_s: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def is_confirmed(self) -> bool:
        return self.rate_per_s is not None

    @property
    def is_missed(self) -> bool:
        """Nothing tried holds; without that, and without an answer, the probes ran out."""
        return not self.is_confirmed and all(probe.outcome is Holds.NO for probe in self.probes)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it is not the server's capacity: what most probes at the answer have, or misses of the client.

        A lone INVALID probe decides nothing, and above its capacity a server is not given all its load.
        """
        at_answer = [probe for probe in self.probes if probe.rate_per_s == self.rate_per_s]
        misses = [probe for probe in self.probes if probe.outcome is Holds.NO]
        client = {CLIENT_BOUND} & _most(misses)
        return tuple(sorted(client | (_most(at_answer) if self.is_confirmed else set())))


def _most(probes: Sequence[Probe]) -> set[str]:
    """Codes that more than half of them have."""
    counts = Counter(code for probe in probes for code in set(probe.invalid))
    return {code for code, count in counts.items() if 2 * count > len(probes)}


Measure = Callable[[float, Effort], Probe]


@dataclass(slots=True)
class _Log:
    """Every probe in order; raises when there are too many, since a search must end."""

    measure: Measure
    probes: list[Probe] = field(default_factory=list)
    edge: CapacityEstimate | None = None

    def watch(self, edge: CapacityEstimate) -> CapacityEstimate:
        """From here on every probe adds to what is known of the edge, as those before do."""
        self.edge = edge
        for probe in self.probes:
            edge.see(probe.seen)
        return edge

    def holds(self, rate: float, effort: Effort) -> bool:
        probe = self.measure(round_rate(rate), effort)
        self.probes.append(probe)
        if self.edge is not None:
            self.edge.see(probe.seen)
        return probe.outcome is not Holds.NO

    def majority(self, rate: float, effort: Effort) -> bool:
        """Best of three, unless the first already proves that it holds."""
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
    """Search upwards from `start_per_s`; see the module's head for the rules."""
    log = _Log(measure)
    held, missed = _ramp(log, start_per_s)
    if held is None or missed is None:
        return Capacity(None, tuple(log.probes))
    held, missed = _bisect(log, held, missed)
    edge = _refine(log, held / BEYOND, missed * BEYOND)
    confirmed = _confirm(log, edge)
    low, middle, high = (edge.quantile(share) for share in (0.025, 0.5, 0.975))
    return Capacity(confirmed, tuple(log.probes), middle, low, high)


def _ramp(log: _Log, start: float) -> tuple[float | None, float | None]:
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
        rate *= RAMP
    return held, None


def _bisect(log: _Log, held: float, missed: float) -> tuple[float, float]:
    """In log space, each step by majority."""
    while missed / held > COARSE and not log.is_full:
        middle = math.sqrt(held * missed)
        held, missed = (middle, missed) if log.majority(middle, Effort.LOOK) else (held, middle)
    return held, missed


def _refine(log: _Log, low: float, high: float) -> CapacityEstimate:
    """Look where the edge may be until it is known well enough."""
    edge = log.watch(CapacityEstimate(low, high))
    for turn in range(MOST_REFINED):
        if log.is_full or (turn >= LEAST_REFINED and edge.error <= TIGHT):
            break
        log.holds(edge.quantile(LOOK_AT[turn % len(LOOK_AT)]), Effort.REFINE)
    return edge


def _confirm(log: _Log, edge: CapacityEstimate) -> float | None:
    """The highest rate from here down that is safe by all probes, and holds when it is looked at."""
    rate = edge.quantile(SAFE)
    while not log.is_full:
        if log.majority(rate, Effort.REFINE):
            return round_rate(rate)
        rate = min(rate * BACK_OFF, edge.quantile(SAFE))
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
            "edge_per_s": found.edge_per_s,
            "edge_per_s_low": found.low,
            "edge_per_s_high": found.high,
            "probes": [
                {"rate_per_s": p.rate_per_s, "outcome": OUTCOMES[p.outcome], "why": p.why}
                for p in found.probes
            ],
            "doubts": list(found.doubts),
        }
        for name, found in results
    ]
