"""Queues in virtual time, made of whole arrays: many thousand requests in a millisecond.

A server is a function of arrival times in seconds; it gives the response times in order of arrival.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.slo import assess_slo, evidence_of
from bench.core.slo import Slo
from bench.experiments.search.algorithm import Capacity, Length, Probe, find_capacity

Times = NDArray[np.float64]
Server = Callable[[Times, np.random.Generator], Times]
Draw = Callable[[np.random.Generator, int], Times]


def fifo(arrivals: Times, service: Times) -> Times:
    """One server, first come, first served: Lindley's recursion as a cumulative maximum."""
    ahead = np.concatenate(([0.0], np.cumsum(service)[:-1]))
    return np.maximum.accumulate(arrivals - ahead) + ahead + service - arrivals


def single(draw: Draw) -> Server:
    """M/G/1 with service times from `draw(generator, count)`."""
    return lambda arrivals, rng: fifo(arrivals, draw(rng, len(arrivals)))


def several(draw: Draw, servers: int) -> Server:
    """M/G/k: the request at the head of the queue goes to the server that is free first."""

    def response(arrivals: Times, rng: np.random.Generator) -> Times:
        free = [0.0] * servers
        taken = []
        for at, service in zip(arrivals.tolist(), draw(rng, len(arrivals)).tolist(), strict=True):
            done = max(at, free[0]) + service
            heapq.heapreplace(free, done)
            taken.append(done - at)
        return np.array(taken)

    return response


def pausing(draw: Draw, work_s: float, pause_s: float) -> Server:
    """One server that works for an exponential time, and then stands still for another."""

    def response(arrivals: Times, rng: np.random.Generator) -> Times:
        count = int(arrivals[-1] / (work_s + pause_s) * 4) + 40
        works, pauses = rng.exponential(work_s, count), rng.exponential(pause_s, count)
        ends = np.cumsum(np.column_stack((works, pauses)).ravel())
        worked = np.cumsum(np.column_stack((works, np.zeros(count))).ravel())
        clock = np.concatenate(([0.0], ends))
        work = np.concatenate(([0.0], worked))
        asked = np.interp(arrivals, clock, work)
        done = asked + fifo(asked, draw(rng, len(arrivals)))
        period = np.minimum(np.searchsorted(work[1::2], done), count - 1)  # of work, in which it is done
        return clock[2 * period] + (done - work[2 * period]) - arrivals

    return response


def batching(base_s: float, item_s: float, most: int) -> Server:
    """A dynamic batcher without delay: an idle server takes what waits, up to `most` requests."""

    def response(arrivals: Times, _: np.random.Generator) -> Times:
        times = arrivals.tolist()
        done = np.empty(len(times))
        first, now = 0, 0.0
        while first < len(times):
            now = max(now, times[first])
            last = min(bisect.bisect_right(times, now, first), first + most)
            now += base_s + item_s * (last - first)
            done[first:last] = now
            first = last
        return done - arrivals

    return response


def constant(mean_s: float) -> Draw:
    return lambda _, count: np.full(count, mean_s)


def lognormal(mean_s: float, cv: float) -> Draw:
    sigma = float(np.sqrt(np.log1p(cv * cv)))
    return lambda rng, count: mean_s * rng.lognormal(-sigma * sigma / 2, sigma, count)


def exponential(mean_s: float) -> Draw:
    return lambda rng, count: rng.exponential(mean_s, count)


def pareto(mean_s: float, shape: float) -> Draw:
    least = mean_s * (shape - 1) / shape
    return lambda rng, count: least * (1 + rng.pareto(shape, count))


def mixed(mean_s: float) -> Draw:
    """One request in twenty takes ten times as long as the others."""
    return lambda rng, count: mean_s / 1.45 * np.where(rng.random(count) < 0.05, 10.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A server with an SLO. `start_per_s`: about 0.3 of what a closed loop serves.

    `drift`: how much longer everything takes, as a share, with each probe.
    """

    name: str
    server: Server
    slo: Slo
    start_per_s: float
    top_per_s: float  # a rate that no server of this kind can serve
    drift: float = 0.0

    def latencies(self, rate: float, count: int, rng: np.random.Generator, slower: float = 1.0) -> Times:
        """Response times of `count` Poisson arrivals in seconds; `slower`: every time of the server's."""
        arrivals = np.cumsum(rng.exponential(1 / (rate * slower), count))
        return self.server(arrivals, rng) * slower

    def search(self, seed: int) -> tuple[Capacity, float]:
        """One study, and how much slower than at first the server is at its end."""
        rng, slower = np.random.default_rng(seed), 1.0

        def measure(rate: float, length: Length) -> Probe:
            nonlocal slower
            count = length.warmup + length.requests
            taken = self.latencies(rate, count, rng, slower)[length.warmup :]
            slower += self.drift
            nanoseconds = np.round(taken * 1e9).astype(np.int64)
            return probe_of(rate, nanoseconds, self.slo)

        return find_capacity(measure, self.start_per_s, self.slo), slower

    def capacity(self, count: int = 3_000_000, slower: float = 1.0) -> float:
        """The highest rate at which the SLO holds, by bisection with the same random numbers."""
        ((percent, bound_ns),) = self.slo.latencies
        low, high = self.start_per_s / 20, self.top_per_s / slower
        for _ in range(40):
            middle = (low + high) / 2
            rough = high / low > 1.1
            size = count // 10 if rough else count
            taken = self.latencies(middle, size, np.random.default_rng(99), slower)
            late = float((taken * 1e9 > bound_ns).mean())
            low, high = (middle, high) if late <= 1 - percent / 100 else (low, middle)
            if high / low < 1.001:
                break
        return (low + high) / 2


def probe_of(rate: float, in_order_ns: NDArray[np.int64], slo: Slo) -> Probe:
    """What the runner makes of a trial's response times, in order of arrival."""
    count = len(in_order_ns)
    outcome, why = assess_slo(in_order_ns, 0, count, slo)
    return Probe(rate, outcome, why, evidence_of(in_order_ns, 0, count, slo, rate))
