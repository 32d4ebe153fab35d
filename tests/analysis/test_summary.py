"""What counts where: the window, the two loops, failures, and the server's own times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.analysis.summary import credits_of, in_flight_mean, measured_requests, server_times, summarize
from bench.core.samples import Outcome, Samples, Window
from bench.core.slo import Slo
from bench.core.trial import Trial
from tests.support.simulation import SECOND, Server, always, cell, trial

WINDOW = Window(10, 20)
OK, TIMEOUT, UNFINISHED = int(Outcome.OK), int(Outcome.TIMEOUT), int(Outcome.UNFINISHED)


def of(rows: list[tuple[int, int, int, int]], *, open_loop: bool, batch: int = 1) -> Trial:
    load = cell(rate_per_s=1.0, batch=batch) if open_loop else cell(concurrency=1, batch=batch)
    like = trial(Server(always(10)), load, seconds=1)
    return replace(like, samples=Samples.of(rows), window=WINDOW, counters=None)


ROWS = [
    # intended, sent, done, outcome: which of the two loops asks about it
    (5, 5, 9, OK),  # neither: over before the window
    (8, 8, 12, OK),  # closed: done in the window
    (11, 13, 14, OK),  # both
    (12, 12, 15, TIMEOUT),  # both
    (19, 19, 30, OK),  # open: due in the window
    (19, 40, 40, UNFINISHED),  # open: never sent
    (25, 25, 30, OK),  # neither
]


def test_an_open_loop_counts_what_was_done_in_the_window() -> None:
    summary = summarize(of(ROWS, open_loop=True, batch=8))
    assert summary.requests == 2
    assert summary.throughput_req_per_s == pytest.approx(2 / WINDOW.seconds)
    assert summary.throughput_img_per_s == 8 * summary.throughput_req_per_s


def test_a_closed_loop_credits_the_share_of_a_request_that_lies_in_the_window() -> None:
    summary = summarize(of(ROWS, open_loop=False, batch=8))
    assert summary.requests == 2
    assert summary.throughput_req_per_s == pytest.approx((2 / 4 + 1 + 1 / 11) / WINDOW.seconds)
    assert summary.throughput_img_per_s == 8 * summary.throughput_req_per_s


def test_a_request_that_took_no_time_counts_where_it_ended() -> None:
    assert credits_of(of([(15, 15, 15, OK), (20, 20, 20, OK)], open_loop=False)).tolist() == [1, 0]


@pytest.mark.parametrize("service_ms", [0.5, 7, 700, 900, 1300])
@pytest.mark.parametrize("users", [1, 4])
def test_throughput_of_an_even_server_is_exact_wherever_the_window_lies(
    service_ms: float, users: int
) -> None:
    """A whole count reads 7 to 13 % too low at 700, 900 and 1300 ms with a window of 3 s."""
    for warmup_s in (0.5, 1.37, 2.0):
        one = trial(
            Server(always(service_ms), users), cell(concurrency=users), seconds=3.0, warmup_s=warmup_s
        )
        assert summarize(one).throughput_req_per_s == pytest.approx(users * 1e3 / service_ms, rel=1e-6)


def test_under_overload_an_open_loop_gives_the_capacity() -> None:
    """Shares would credit requests that wait ever longer: 8 % too much at 120 %."""
    one = trial(Server(always(10)), cell(rate_per_s=120.0), seconds=20.0)
    assert summarize(one).throughput_req_per_s == pytest.approx(100, rel=0.005)


def test_a_closed_loop_asks_about_requests_done_in_the_window() -> None:
    summary = summarize(of(ROWS, open_loop=False))
    assert summary.latencies_ns.tolist() == [3, 3, 4]
    assert summary.in_order_ns.tolist() == [4, 3, 3]  # by when they were due
    assert summary.errors == 1


def test_an_open_loop_asks_about_requests_due_in_the_window_and_the_unanswered_waited() -> None:
    summary = summarize(of(ROWS, open_loop=True))
    assert summary.latencies_ns.tolist() == [3, 3, 11, 21]
    assert summary.waited_ns == 3  # a request that ended at its timeout took at least so long
    assert summary.service_ns.tolist() == [1, 11]  # a request that was never sent has none
    assert summary.lateness_ns.tolist() == [0, 0, 2, 21]
    assert summary.errors == 2


def test_every_request_is_in_one_of_the_two_counts() -> None:
    for open_loop in (True, False):
        one = of(ROWS, open_loop=open_loop)
        asked = measured_requests(one)
        assert len(asked) == len(asked.good()) + summarize(one).errors == summarize(one).asked


def test_a_request_that_never_ended_counts_once_in_the_share_of_errors() -> None:
    rows = [(11, 11, 12, OK), (12, 12, 13, OK), (13, 13, 14, OK), (14, 14, 99, Outcome.UNFINISHED)]
    summary = summarize(of(rows, open_loop=True))
    assert summary.errors / summary.asked == 1 / 4


def test_in_flight_is_the_time_average_over_the_window() -> None:
    assert in_flight_mean(of([(0, 0, 100, OK)], open_loop=False)) == 1
    assert in_flight_mean(of([(15, 15, 20, OK), (0, 0, 10, OK)], open_loop=False)) == 0.5


def test_goodput_counts_right_answers_within_the_deadline() -> None:
    """The deadline is the bound of the highest percentile; a failure is never good."""
    slo = Slo(((50.0, 3), (99.0, 11)))
    assert summarize(of(ROWS, open_loop=True), slo).goodput_img_per_s == pytest.approx(2 / WINDOW.seconds)
    tight = Slo(((99.0, 3),))
    assert summarize(of(ROWS, open_loop=True), tight).goodput_img_per_s == pytest.approx(1 / WINDOW.seconds)
    assert summarize(of(ROWS, open_loop=True)).goodput_img_per_s is None


def test_goodput_of_an_overload_falls_to_nothing() -> None:
    """120 % of capacity: the queue grows for as long as it lasts."""
    slo = Slo(((99.0, SECOND // 10),))
    below = summarize(trial(Server(always(10)), cell(rate_per_s=50)), slo).goodput_img_per_s
    above = summarize(trial(Server(always(10)), cell(rate_per_s=120)), slo).goodput_img_per_s
    assert below is not None
    assert above is not None
    assert below == pytest.approx(50, rel=0.1)
    assert above < 5


def test_server_times_are_means_per_request() -> None:
    counters = trial(Server(always(10)), cell(concurrency=1, batch=8)).counters
    assert counters is not None
    times = server_times(replace(counters, queue_ns=counters.success_count * 2_000_000))
    assert times is not None
    assert (times.queue_ms, times.compute_infer_ms, times.total_ms) == pytest.approx((2, 10, 10))
    assert times.executed_batch_mean == 8
    assert server_times(None) is None
    assert server_times(replace(counters, success_count=0)) is None
