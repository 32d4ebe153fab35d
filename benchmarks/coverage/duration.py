"""What --duration auto reaches.

Closed loops with lognormal service times of a coefficient of variation (cv), in virtual time. The window ends
as the Locust engine ends it: when throughput looks known to 3 % of itself, or after 60 s. "Reached" is the
half width of the 95 % interval over ten spans of the finished window, by share. Where it is over 3 %, the
trial has the finding `duration-not-reached` with the figure. "Off" is how often throughput is more than 3 %
from the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from bench.analysis.summary import half_width_within, throughput_req_per_s
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.samples import Samples, Window
from bench.core.spec import AUTO_LONGEST_S, AUTO_SHORTEST_S, AUTO_WITHIN
from bench.core.trial import Generator, Plan, Trial
from bench.loadgen.locust import trial_timeline
from bench.loadgen.locust.trial_timeline import TrialTimeline
from bench.loadgen.locust.worker_pool import Worker
from bench.loadgen.warmup import Milestone, planned_s
from benchmarks.coverage.row import Row
from benchmarks.coverage.throughput import lognormal

OPENS_S = 1.0
SERVICE_S = {1: 0.01, 4: 0.05, 16: 0.05}  # by users
LEAST_REACHED = 0.8


@dataclass(slots=True)
class VirtualLoad:
    """Stands for the module `time`, and for a worker whose requests end at `ends_s`, sorted."""

    ends_s: NDArray[np.float64]
    now_ns: int = 0
    at_work: bool = True

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += max(1, round(seconds * 1e9))

    @property
    def live(self) -> dict[str, Any]:
        return {"requests": int(np.searchsorted(self.ends_s, self.now_ns / 1e9))}


def rows(studies: int, say: Callable[[str], None]) -> list[Row]:
    """A row for each spread of the service times and number of users."""
    table = []
    for cv in (0.02, 0.1, 0.5, 1.0):
        for users in SERVICE_S:
            trials = [trial(np.random.default_rng([19, users, k]), cv, users) for k in range(studies)]
            half_widths = [half_width_within(one) or math.inf for one in trials]
            ended = [
                width <= AUTO_WITHIN
                for one, width in zip(trials, half_widths, strict=True)
                if one.window.seconds < AUTO_LONGEST_S - 0.5
            ]
            truth = users / SERVICE_S[users]
            off = np.mean([abs(throughput_req_per_s(one) / truth - 1) > AUTO_WITHIN for one in trials])
            reached = float(np.mean(ended)) if ended else 1.0
            said = (
                f"{reached:.0%} of those that end before 60 s ({len(ended) / studies:.0%}); off {off:.1%}; "
                f"median {np.median([one.window.seconds for one in trials]):.0f} s"
            )
            over = f"cv {cv:g}, {users} users, service {SERVICE_S[users] * 1e3:g} ms"
            say(f"{over}: {said}")
            table.append(
                Row("reaches 3 %, or says what", over, ">= 80 %", said, reached >= LEAST_REACHED, studies)
            )
    return table


def trial(random: np.random.Generator, cv: float, users: int) -> Trial:
    """One trial with --duration auto."""
    service_s, load = SERVICE_S[users], Load(protocol=Protocol.HTTP, batch=1, concurrency=users)
    longest_s = OPENS_S + AUTO_LONGEST_S + 2
    ends = np.cumsum(lognormal(cv)(random, (users, int(1.3 * longest_s / service_s) + 50)) * service_s, 1)
    starts = np.concatenate([np.zeros((users, 1)), ends[:, :-1]], axis=1)
    clock = VirtualLoad(np.sort(ends, axis=None))
    with mock.patch.object(trial_timeline, "time", clock):
        timeline = TrialTimeline(0, [cast(Worker, clock)], lambda _: None)
        opens_s = OPENS_S + float(random.random()) * service_s
        timeline.wait(Milestone(opens_s))
        planned = planned_s(load, AUTO_SHORTEST_S, timeline.seconds, timeline.requests)
        timeline.wait_for_answers(load, AUTO_SHORTEST_S, planned, opens_s)
        timeline.wait_until_tight(opens_s, opens_s + AUTO_LONGEST_S, 99.0)
    kept = starts.ravel() < clock.now_ns / 1e9
    sent, done = ((times.ravel()[kept] * 1e9).astype(np.int64) for times in (starts, ends))
    return Trial(
        plan=Plan(
            cell=Cell(server=ServerConfiguration(model="m"), load=load), repeat=0, seed=1, warmup_s=OPENS_S,
            duration_s=AUTO_SHORTEST_S, longest_s=AUTO_LONGEST_S,
        ),
        window=Window(int(opens_s * 1e9), clock.now_ns),
        samples=Samples(sent, sent, done, np.zeros_like(sent)),
        errors={},
        generator=Generator(workers=1, cpu_s=(0.0,), max_rss_bytes=0),
    )  # fmt: skip
