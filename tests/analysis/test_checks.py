"""Each finding: one trial that has it, and the healthy trial that has none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.checks import findings_of
from bench.analysis.summary import mean_of
from bench.core.cell import Engine
from bench.core.findings import Finding, Severity, Verdict, verdict
from bench.core.samples import Outcome, Samples, Window
from bench.core.trial import Trial
from tests.support.simulation import MILLISECOND, SECOND, Server, always, cell, counters, drawn, trial

HEALTHY = trial(Server(drawn(lambda random, n: 10 * random.gamma(64, 1 / 64, n), 1)), cell(concurrency=2))
OPEN = trial(Server(always(10.0)), cell(rate_per_s=50))
INVALID, WARNING, NOTE = Severity.INVALID, Severity.WARNING, Severity.NOTE


def codes(of: Trial) -> dict[str, Severity]:
    return {finding.code: finding.severity for finding in findings_of(of)}


@pytest.mark.parametrize("healthy", [HEALTHY, OPEN], ids=["closed loop", "open loop"])
def test_a_healthy_trial_has_no_findings(healthy: Trial) -> None:
    assert findings_of(healthy) == ()


def with_outcome(of: Trial, outcome: Outcome, every: int) -> Trial:
    outcomes = of.samples.outcome.copy()
    outcomes[::every] = outcome
    samples = replace(of.samples, outcome=outcomes)
    return replace(of, samples=samples, errors={"the output is empty": len(outcomes[::every])})


def counted(of: Trial, **changes: Any) -> Trial:
    assert of.counters is not None
    return replace(of, counters=replace(of.counters, **changes))


def with_series(of: Trial, name: str, *values: float) -> Trial:
    start = of.window.start_ns
    rows = tuple((start + i * 10 * MILLISECOND, value) for i, value in enumerate(values))
    return replace(of, machine={name: rows})


def with_generator(of: Trial, **changes: Any) -> Trial:
    return replace(of, generator=replace(of.generator, **changes))


def late(of: Trial, by_ms: float) -> Trial:
    shift = np.int64(by_ms * MILLISECOND)
    columns = of.samples
    return replace(
        of, samples=replace(columns, sent_ns=columns.sent_ns + shift, done_ns=columns.done_ns + shift)
    )


def on(of: Trial, **load: Any) -> Trial:
    changed = replace(of.cell, load=replace(of.cell.load, **load))
    return replace(of, plan=replace(of.plan, cell=changed))


def giving_up(rate_per_s: float, timeout_ms: int) -> Trial:
    """An open loop at a server of 100 requests a second, whose clients wait no longer than their timeout."""
    base = trial(Server(always(10)), cell(rate_per_s=rate_per_s))
    return replace(
        base, samples=ended_at(base.samples, timeout_ms, base.samples.response_ns > timeout_ms * 1e6)
    )


def lost(share: float) -> Trial:
    """An open loop far below capacity, where some requests have no answer until their timeout of 500 ms."""
    base = trial(Server(always(10)), cell(rate_per_s=60))
    return replace(
        base, samples=ended_at(base.samples, 500, np.arange(len(base.samples)) % round(1 / share) == 0)
    )


def ended_at(samples: Samples, timeout_ms: int, which: np.ndarray) -> Samples:
    done_ns = np.where(which, samples.intended_ns + timeout_ms * 1_000_000, samples.done_ns)
    outcome = np.where(which, int(Outcome.TIMEOUT), samples.outcome)
    return replace(samples, done_ns=done_ns, outcome=outcome)


def slow_start() -> Trial:
    """Three times as slow at first, settled after half of the window."""
    noise = drawn(lambda random, n: 10 * random.gamma(64, 1 / 64, n), 1)
    server = Server(lambda index: round(noise(index) * (1 + 2 * np.exp(-index / 500))))
    return trial(server, cell(concurrency=2), warmup_s=0.0)


def dropped(of: Trial, share: float) -> Trial:
    """The server answered these requests, and the client forgot them."""
    kept = np.arange(len(of.samples)) >= share * len(of.samples)
    return replace(of, samples=of.samples.where(kept))


def long_ago(of: Trial) -> Trial:
    """Ten requests in flight all along that do not end in the window: L is far from X R."""
    sent = np.full(10, of.window.start_ns)
    done = np.full(10, of.window.end_ns + SECOND)
    extra = Samples(sent, sent, done, np.zeros(10, np.int64))
    return replace(of, samples=Samples.merge([of.samples, extra]))


def four_more(of: Trial) -> Trial:
    assert of.counters is not None
    return counted(of, success_count=of.counters.success_count + 4)


def early(of: Trial) -> Trial:
    """Pressure, from the end of the window on."""
    noisy = ((of.window.start_ns, 0.0), (of.window.end_ns, 100.0), (of.window.end_ns + 1, 100.0))
    return replace(of, machine={"cpu_pressure_some_percent": noisy})


throttled = (0x4,) * 30 + (0x1,) * 70
FOUND: list[tuple[str, Trial, str, Severity]] = [
    (
        "no request ended",
        replace(HEALTHY, window=Window(0, 1000), counters=None),
        "nothing-measured",
        INVALID,
    ),
    ("all failed", with_outcome(HEALTHY, Outcome.CONNECTION, 1), "nothing-measured", INVALID),
    (
        "one answer in a thousand is wrong",
        with_outcome(HEALTHY, Outcome.WRONG_ANSWER, 1000),
        "wrong-answers",
        INVALID,
    ),
    ("some time out", with_outcome(HEALTHY, Outcome.TIMEOUT, 100), "errors", WARNING),
    ("the generator had no CPU left", with_generator(HEALTHY, cpu_s=(3.0, 28.5)), "client-bound", INVALID),
    (
        "the generator slept hardly ever, as it had to share its core",
        with_generator(HEALTHY, cpu_s=(24.6,), waited_s=(3.6,)),
        "client-bound",
        INVALID,
    ),
    ("a file was lacking here", with_outcome(HEALTHY, Outcome.CLIENT, 1000), "client-bound", INVALID),
    ("a worker was stopped", with_generator(HEALTHY, stalled_s=(0.0, 1.6)), "generator-stalled", INVALID),
    ("a worker died", with_generator(HEALTHY, lost_workers=1), "worker-lost", INVALID),
    ("an arrival got lost", replace(OPEN, planned=len(OPEN.samples) + 1), "arrivals-missing", INVALID),
    ("the cap holds sends back", trial(Server(always(40)), cell(rate_per_s=60)), "under-delivered", INVALID),
    ("half of the users did nothing", on(HEALTHY, concurrency=4), "under-delivered", INVALID),
    ("every send is 5 ms late", late(OPEN, 5), "late-sends", WARNING),
    ("arrivals outrun the server", trial(Server(always(10)), cell(rate_per_s=115)), "saturated", WARNING),
    ("clients give up on a server that is outrun", giving_up(115, 500), "saturated", WARNING),
    ("the server warms up in the window", slow_start(), "unsteady", WARNING),
    (
        "the window is short",
        trial(Server(always(10)), cell(concurrency=1), seconds=5),
        "too-few-samples",
        WARNING,
    ),
    ("requests are missing", long_ago(HEALTHY), "little", WARNING),
    ("answers got lost", dropped(HEALTHY, 0.5), "counts-disagree", INVALID),
    ("another client sends too", counted(HEALTHY, success_count=4000), "counts-disagree", INVALID),
    ("a cache answers", counted(HEALTHY, inference_count=1000), "counts-disagree", INVALID),
    ("the model was reloaded", counted(HEALTHY, success_count=-5), "stale-counters", WARNING),
    ("counters of another replica", counted(HEALTHY, success_count=0), "stale-counters", WARNING),
    ("requests are split", counted(HEALTHY, execution_count=6000), "executed-batch-smaller", WARNING),
    (
        "the server took longer than the client",
        counted(HEALTHY, success_ns=10**12),
        "server-slower-than-client",
        WARNING,
    ),
    (
        "others use the CPU",
        with_series(HEALTHY, "cpu_pressure_some_percent", 10, 80),
        "cpu-pressure",
        WARNING,
    ),
    ("the hypervisor takes the CPU", with_series(HEALTHY, "cpu_steal_percent", 0, 9), "cpu-steal", WARNING),
    (
        "the card is held back",
        with_series(HEALTHY, "gpu0_throttle_reasons", *throttled),
        "gpu-throttled",
        WARNING,
    ),
    (
        "nothing to compare with",
        replace(HEALTHY, values_checked=0, reference=""),
        "values-not-compared",
        NOTE,
    ),
]


@pytest.mark.parametrize(
    ("of", "code", "severity"), [row[1:] for row in FOUND], ids=[row[0] for row in FOUND]
)
def test_it_is_found(of: Trial, code: str, severity: Severity) -> None:
    assert codes(of).get(code) is severity


@pytest.mark.parametrize("row", FOUND, ids=[row[0] for row in FOUND])
def test_a_finding_says_what_was_seen_why_and_what_to_do(row: tuple[str, Trial, str, Severity]) -> None:
    for finding in findings_of(row[1]):
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", finding.code)
        for sentence in (finding.seen, finding.cause, finding.next_step):
            assert re.fullmatch(r"[A-Za-z0-9-].*\.", sentence, re.DOTALL), sentence
            assert "nan" not in sentence


NOT_FOUND: list[tuple[str, Trial, str]] = [
    ("two requests are in flight at each end", four_more(HEALTHY), "counts-disagree"),
    (
        "the server served what the client gave up on",
        with_outcome(HEALTHY, Outcome.TIMEOUT, 20),
        "counts-disagree",
    ),
    (
        "the Python backend's errors count as successes",
        with_outcome(HEALTHY, Outcome.SERVER_ERROR, 2),
        "counts-disagree",
    ),
    (
        "an overload counts as sent when it was sent",
        trial(Server(always(10)), cell(rate_per_s=105)),
        "under-delivered",
    ),
    ("half a millisecond late", late(OPEN, 0.4), "late-sends"),
    (
        "late, but little of the response time",
        late(trial(Server(always(100)), cell(rate_per_s=5), seconds=60), 4),
        "late-sends",
    ),
    ("an idle card", with_series(HEALTHY, "gpu0_throttle_reasons", 0x1, 0x1), "gpu-throttled"),
    (
        "one reading of a hundred",
        with_series(HEALTHY, "gpu0_throttle_reasons", *([0] * 99), 0x4),
        "gpu-throttled",
    ),
    ("pressure after the window", early(HEALTHY), "cpu-pressure"),
    ("a busy queue below capacity", trial(Server(always(10)), cell(rate_per_s=80)), "saturated"),
    ("answers get lost, and nothing waits", lost(0.1), "saturated"),
]


@pytest.mark.parametrize(("of", "code"), [row[1:] for row in NOT_FOUND], ids=[row[0] for row in NOT_FOUND])
def test_it_is_not_found(of: Trial, code: str) -> None:
    assert code not in codes(of)


def test_noise_and_few_samples_invalidate_nothing() -> None:
    noisy = with_series(HEALTHY, "cpu_pressure_some_percent", 99, 99)
    assert verdict(findings_of(noisy)) is Verdict.VALID
    assert verdict(findings_of(trial(Server(always(10)), cell(concurrency=1), seconds=5))) is Verdict.VALID


def test_a_stall_of_the_server_is_its_own_and_leaves_the_trial_valid() -> None:
    stall = Window(15 * SECOND, 15 * SECOND + 1500 * MILLISECOND)
    found = findings_of(trial(Server(always(2.0), stall=stall), cell(rate_per_s=400)))
    assert verdict(found) is Verdict.VALID


def test_the_generators_cpu_is_not_asked_of_another_engine() -> None:
    """perf_analyzer is one process of many threads, and may use many cores."""
    other = with_generator(HEALTHY, cpu_s=(100.0,))
    other = replace(other, plan=replace(other.plan, cell=replace(other.cell, engine=Engine.PERF_ANALYZER)))
    assert "client-bound" not in codes(other)


def test_a_generator_that_mostly_waits_for_a_core_tells_of_the_machine() -> None:
    busy = with_generator(HEALTHY, cpu_s=(20.0,), waited_s=(9.9,))
    assert "client-bound" not in codes(busy)


def test_what_the_engine_saw_comes_first() -> None:
    own = Finding("own", Severity.NOTE, "Seen.", "Cause.", "Next.")
    assert findings_of(replace(HEALTHY, findings=(own,)))[0] == own


def test_a_series_is_read_inside_the_window_only() -> None:
    window = HEALTHY.window
    rows = (
        (window.start_ns - 1, 100.0),
        (window.start_ns, 1.0),
        (window.end_ns - 1, 3.0),
        (window.end_ns, 100.0),
    )
    assert mean_of(replace(HEALTHY, machine={"x": rows}), "x") == 2.0
    assert mean_of(HEALTHY, "x") is None


def test_what_this_machine_lacks_is_not_said_of_the_server() -> None:
    own = findings_of(with_outcome(HEALTHY, Outcome.CLIENT, 2))
    assert "errors" not in {finding.code for finding in own}
    assert not [finding for finding in own if "server refuses" in finding.cause]


def test_a_server_that_does_not_tell_is_no_finding() -> None:
    assert findings_of(replace(HEALTHY, counters=None)) == ()


def test_counters_of_the_simulation_agree_with_its_samples() -> None:
    assert counters(HEALTHY.samples, HEALTHY.window, 1) == HEALTHY.counters


def test_every_finding_is_documented() -> None:
    root = Path(__file__).parents[2]
    source = "".join(path.read_text() for path in (root / "bench").rglob("*.py"))
    codes = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', source))
    listed = (root / "docs" / "method.md").read_text()
    assert len(codes) > 20
    assert [code for code in sorted(codes) if f"`{code}`" not in listed] == []


def test_requests_answered_while_the_counters_were_read_may_be_on_either_side() -> None:
    trial = counted(HEALTHY, success_count=HEALTHY.counters.success_count + 60)
    slow = counted(trial, uncertain_ns=round(0.05 * HEALTHY.window.seconds * 1e9))
    assert "counts-disagree" in codes(trial)
    assert "counts-disagree" not in codes(slow)
