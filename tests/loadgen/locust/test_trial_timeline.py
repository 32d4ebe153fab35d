"""The end of an automatic duration, in virtual time."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from bench.analysis.checks import window
from bench.analysis.stats import samples_needed
from bench.analysis.summary import half_width_within, summarize
from bench.core.cell import Load, Protocol
from bench.core.spec import AUTO_LONGEST_S, AUTO_WITHIN
from bench.loadgen.locust import trial_timeline
from bench.loadgen.locust.trial_timeline import TrialTimeline
from bench.loadgen.locust.worker_pool import Worker
from bench.loadgen.warmup import Milestone, planned_s
from benchmarks.coverage import duration
from benchmarks.coverage.duration import VirtualLoad

RATE_PER_S = 100.0


def even_load(*, at_work: bool = True) -> VirtualLoad:
    """A worker that answers evenly, and its clock."""
    return VirtualLoad(np.arange(1, 20_000) / RATE_PER_S, at_work=at_work)


@pytest.mark.parametrize(("percent", "at_most_s"), [(99.0, 60.0), (99.9, 120.0), (99.9, 60.0)])
def test_a_window_grows_until_the_percentile_asked_has_its_samples(
    monkeypatch: pytest.MonkeyPatch, percent: float, at_most_s: float
) -> None:
    time = even_load()
    monkeypatch.setattr(trial_timeline, "time", time)
    timeline = TrialTimeline(0, [cast(Worker, time)], lambda _: None)
    timeline.wait(Milestone(2.0))
    timeline.wait_until_tight(2.0, 2.0 + at_most_s, percent)
    seconds, wanted_s = time.now_ns / 1e9 - 2.0, samples_needed(percent) / RATE_PER_S
    assert min(wanted_s, at_most_s) <= seconds <= min(wanted_s + 1.5, at_most_s + 0.5)


def test_nobody_waits_for_workers_that_have_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their process lives, and what they said last was an error."""
    time = even_load(at_work=False)
    monkeypatch.setattr(trial_timeline, "time", time)
    timeline = TrialTimeline(0, [cast(Worker, time)], lambda _: None)
    timeline.wait(Milestone(1.0, ended=1_000_000))
    timeline.wait_for_answers(Load(protocol=Protocol.HTTP, batch=1, concurrency=4), 2.0, 2.0, 2.0)
    assert timeline.seconds < 1.0


@pytest.mark.parametrize(
    ("users", "at_least_s", "at_most_s"), [(1, 2.0, 2.5), (100, 8.0, 8.5), (900, 12.0, 12.5)]
)
def test_a_window_grows_until_each_user_has_some_answers(
    monkeypatch: pytest.MonkeyPatch, users: int, at_least_s: float, at_most_s: float
) -> None:
    """At 100 requests a second, a hundred users have an answer a second each."""
    time = even_load()
    monkeypatch.setattr(trial_timeline, "time", time)
    timeline = TrialTimeline(0, [cast(Worker, time)], lambda _: None)
    load = Load(protocol=Protocol.HTTP, batch=1, concurrency=users)
    timeline.wait(Milestone(2.0))
    planned = planned_s(load, 2.0, timeline.seconds, timeline.requests)
    timeline.wait_for_answers(load, 2.0, planned, 2.0)
    assert at_least_s <= timeline.seconds - 2.0 <= at_most_s


@pytest.mark.parametrize(("cv", "users"), [(0.5, 1), (0.5, 16), (1.0, 16)])
def test_a_window_ends_when_throughput_is_known_as_asked_or_says_what_it_reached(
    cv: float, users: int
) -> None:
    """Looking at the spread every half second, and stopping as soon as it looks right: 40 to 80 % are."""
    random = np.random.default_rng([5, users])
    trials = [duration.trial(random, cv, users) for _ in range(20)]
    reached = [half_width_within(trial) or 1.0 for trial in trials]
    at_end = [trial.window.seconds > AUTO_LONGEST_S - 0.5 for trial in trials]
    assert np.mean([width <= AUTO_WITHIN or last for width, last in zip(reached, at_end, strict=True)]) >= 0.9
    for trial, width in zip(trials, reached, strict=True):
        said = list(window.loose(trial, summarize(trial)))
        assert bool(said) == (width > AUTO_WITHIN)
        assert all("of 3% asked after" in finding.seen for finding in said)
