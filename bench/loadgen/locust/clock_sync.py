"""Two hosts' monotonic clocks, put on one: the offset between them, and how well it is known.

An exchange is NTP's, with the worker's two stamps taken as one: it answers at once. The true offset lies
within half a round trip of the estimate, whatever the two ways took, so the quickest of several exchanges
is the best one (Mills, RFC 5905, section 8 and its clock filter).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.core.samples import Int64, Samples


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer: sent and returned on our clock, answered on the other."""

    sent_ns: int
    answered_ns: int
    returned_ns: int

    @property
    def round_trip_ns(self) -> int:
        return self.returned_ns - self.sent_ns


@dataclass(frozen=True, slots=True)
class Offset:
    """The other clock is `offset_ns` ahead of ours, give or take half the round trip, at `at_ns` of ours."""

    at_ns: int
    offset_ns: int
    round_trip_ns: int

    @property
    def uncertainty_ns(self) -> int:
        return (self.round_trip_ns + 1) // 2


def offset_of(exchanges: Iterable[Exchange]) -> Offset:
    """From the exchange with the shortest round trip. Raises ValueError without any."""
    best = min(exchanges, key=lambda exchange: exchange.round_trip_ns)
    middle_ns = best.sent_ns + best.round_trip_ns // 2
    return Offset(middle_ns, best.answered_ns - middle_ns, best.round_trip_ns)


@dataclass(frozen=True, slots=True)
class ClockMap:
    """A worker's clock to ours and back, through its offset before a trial and (if known) after it.

    Between the two the offset moves on a straight line: clocks run at slightly different, steady rates.
    """

    before: Offset
    after: Offset | None = None

    @property
    def uncertainty_ns(self) -> int:
        return max(self.before.uncertainty_ns, self.after.uncertainty_ns if self.after else 0)

    @property
    def drift_ns(self) -> int:
        return self.after.offset_ns - self.before.offset_ns if self.after else 0

    def theirs(self, ours_ns: int) -> int:
        """A moment ahead, as the worker's clock will show it."""
        return ours_ns + self.before.offset_ns

    def ours(self, theirs_ns: Int64) -> Int64:
        """Stamps of the worker's clock, shape (n,) int64, on ours."""
        if self.after is None or self.after.at_ns <= self.before.at_ns:
            return theirs_ns - self.before.offset_ns
        begun_ns = self.before.at_ns + self.before.offset_ns  # on their clock
        span_ns = self.after.at_ns + self.after.offset_ns - begun_ns
        # Deltas first: a float holds them exactly, the stamps themselves it would not.
        moved_ns = np.rint((theirs_ns - begun_ns) * (self.drift_ns / span_ns)).astype(np.int64)
        shifted: Int64 = theirs_ns - self.before.offset_ns - moved_ns
        return shifted

    def samples(self, recorded: Samples) -> Samples:
        """A worker's samples with its clock's stamps, on our clock."""
        shifted = {name: self.ours(getattr(recorded, name)) for name in ("intended_ns", "sent_ns", "done_ns")}
        return replace(recorded, **shifted)

    def described(self) -> dict[str, int]:
        """For the trial's record."""
        return {
            "offset_ns": self.before.offset_ns,
            "drift_ns": self.drift_ns,
            "uncertainty_ns": self.uncertainty_ns,
        }


def from_json(rows: Sequence[Mapping[str, int]]) -> tuple[Exchange, ...]:
    return tuple(Exchange(row["sent_ns"], row["answered_ns"], row["returned_ns"]) for row in rows)
