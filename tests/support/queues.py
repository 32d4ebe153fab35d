"""Queues in virtual time, made of whole arrays: many thousand requests in a millisecond.

A server is a function of arrival times in seconds; it gives the response times in order of arrival.
"""

from __future__ import annotations

import bisect
import copy
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.analysis.slo import judge
from bench.core.slo import Slo
from bench.experiments.search.algorithm import Capacity, Length, Probe, find_capacity

Times = NDArray[np.float64]
Server = Callable[[Times, np.random.Generator], Times]
Draw = Callable[[np.random.Generator, int], Times]


@dataclass(frozen=True, slots=True)
class Service:
    """A distribution of service times. `beyond`: the share that takes longer than so many seconds."""

    mean_s: float
    draw: Draw
    beyond: Callable[[Times], Times]


def fifo(arrivals: Times, service: Times, busy_until: float = 0.0) -> Times:
    """One server, first come, first served: Lindley's recursion as a cumulative maximum."""
    ahead = np.concatenate(([0.0], np.cumsum(service)[:-1]))
    started = np.maximum(np.maximum.accumulate(arrivals - ahead), busy_until)
    return np.asarray(started + ahead + service - arrivals)


def single(service: Service) -> Server:
    """M/G/1."""
    return lambda arrivals, rng: fifo(arrivals, service.draw(rng, len(arrivals)))


def several(service: Service, servers: int) -> Server:
    """M/G/k: the request at the head of the queue goes to the server that is free first."""

    def response(arrivals: Times, rng: np.random.Generator) -> Times:
        free = [0.0] * servers
        taken = []
        for at, takes in zip(arrivals.tolist(), service.draw(rng, len(arrivals)).tolist(), strict=True):
            done = max(at, free[0]) + takes
            heapq.heapreplace(free, done)
            taken.append(done - at)
        return np.array(taken)

    return response


def alternating(service: Service, good_s: float, bad_s: float, speed: float) -> Server:
    """One server whose speed is 1 for an exponential time, then `speed` for another; 0 is a pause."""

    def response(arrivals: Times, rng: np.random.Generator) -> Times:
        count = int(arrivals[-1] / (good_s + bad_s) * 4) + 40
        spells = np.column_stack((rng.exponential(good_s, count), rng.exponential(bad_s, count)))
        return _in_spells(arrivals, service.draw(rng, len(arrivals)), spells, speed)

    return response


def stopping(service: Service, every_s: float, pause_s: float) -> Server:
    """One server that stands still for `pause_s` at the end of every `every_s`, as in garbage collection."""

    def response(arrivals: Times, rng: np.random.Generator) -> Times:
        count = int(arrivals[-1] / every_s) * 3 + 40
        spells = np.tile([every_s - pause_s, pause_s], (count, 1))
        spells[0, 0] *= rng.random()
        return _in_spells(arrivals, service.draw(rng, len(arrivals)), spells, 0.0)

    return response


def _in_spells(arrivals: Times, service: Times, spells: Times, speed: float) -> Times:
    """One server with spells of speed 1 and `speed` in turn: a queue in units of work, put back into time."""
    clock = np.concatenate(([0.0], np.cumsum(spells.ravel())))
    # A pause does a trifle of work, so that time is a function of work.
    work = np.concatenate(([0.0], np.cumsum((spells * [1.0, max(speed, 1e-9)]).ravel())))
    asked = np.interp(arrivals, clock, work)
    return np.asarray(np.interp(asked + fifo(asked, service), work, clock) - arrivals)


def batching(base_s: float, item_s: float, most: int, delay_s: float = 0.0) -> Server:
    """A dynamic batcher: an idle server takes what waits, up to `most` requests.

    With fewer than `most` it waits until the first of them has waited for `delay_s`.
    """

    def response(arrivals: Times, _: np.random.Generator) -> Times:
        times = arrivals.tolist()
        done = np.empty(len(times))
        first, now = 0, 0.0
        while first < len(times):
            filled = times[first + most - 1] if first + most <= len(times) else math.inf
            now = max(now, min(times[first] + delay_s, filled))
            last = min(bisect.bisect_right(times, now, first), first + most)
            now += base_s + item_s * (last - first)
            done[first:last] = now
            first = last
        return np.asarray(done - arrivals)

    return response


@dataclass(slots=True)
class Heating:
    """One server that becomes slower with its heat, which follows how busy it is over the last `memory_s`.

    Beyond half busy each further tenth makes it `slowing` / 5 slower. The heat stays from probe to probe.
    """

    service: Service
    memory_s: float
    slowing: float
    heat: float = 0.0
    chunk: int = 64
    busy_s: float = field(default=0.0, init=False)

    def __call__(self, arrivals: Times, rng: np.random.Generator) -> Times:
        service = self.service.draw(rng, len(arrivals))
        taken, free, before = np.empty(len(arrivals)), 0.0, 0.0
        for first in range(0, len(arrivals), self.chunk):
            part = slice(first, first + self.chunk)
            slower = 1 + self.slowing * max(0.0, self.heat - 0.5) / 0.5
            taken[part] = fifo(arrivals[part], service[part] * slower, free)
            end = float(arrivals[part][-1])
            free = end + float(taken[part][-1])
            span = end - before
            busy = min(1.0, float(service[part].sum()) * slower / span)
            self.heat += (busy - self.heat) * -math.expm1(-span / self.memory_s)
            before = end
        return taken


def constant(mean_s: float) -> Service:
    return Service(mean_s, lambda _, count: np.full(count, mean_s), lambda x: np.where(x < mean_s, 1.0, 0.0))


def lognormal(mean_s: float, cv: float) -> Service:
    sigma = math.sqrt(math.log1p(cv * cv))
    error = np.frompyfunc(math.erfc, 1, 1)

    def beyond(x: Times) -> Times:
        scaled = (np.log(np.maximum(x, 1e-12) / mean_s) + sigma * sigma / 2) / (sigma * math.sqrt(2))
        return np.asarray(error(scaled), dtype=np.float64) / 2

    return Service(
        mean_s, lambda rng, count: mean_s * rng.lognormal(-sigma * sigma / 2, sigma, count), beyond
    )


def exponential(mean_s: float) -> Service:
    return Service(mean_s, lambda rng, count: rng.exponential(mean_s, count), lambda x: np.exp(-x / mean_s))


def erlang(mean_s: float) -> Service:
    """Gamma of shape 2: a coefficient of variation of 0.71."""
    rate = 2 / mean_s
    return Service(
        mean_s,
        lambda rng, count: rng.gamma(2.0, 1 / rate, count),
        lambda x: (1 + rate * x) * np.exp(-rate * x),
    )


def hyperexponential(mean_s: float, cv: float) -> Service:
    """Exponential times of two kinds, of which each is half of the work."""
    share = (1 + math.sqrt((cv * cv - 1) / (cv * cv + 1))) / 2
    short, long = mean_s / 2 / share, mean_s / 2 / (1 - share)
    return Service(
        mean_s,
        lambda rng, count: rng.exponential(1.0, count) * np.where(rng.random(count) < share, short, long),
        lambda x: share * np.exp(-x / short) + (1 - share) * np.exp(-x / long),
    )


def pareto(mean_s: float, shape: float) -> Service:
    least = mean_s * (shape - 1) / shape
    return Service(
        mean_s,
        lambda rng, count: least * (1 + rng.pareto(shape, count)),
        lambda x: (least / np.maximum(x, least)) ** shape,
    )


def mixed(mean_s: float) -> Service:
    """One request in twenty takes ten times as long as the others."""
    short = mean_s / 1.45
    return Service(
        mean_s,
        lambda rng, count: short * np.where(rng.random(count) < 0.05, 10.0, 1.0),
        lambda x: np.where(x < short, 1.0, np.where(x < 10 * short, 0.05, 0.0)),
    )


# Within a step of the grid the share that takes longer may jump, so that the mean of these places is taken.
_PLACES = (np.arange(16) + 0.5) / 16


def late_share(service: Service, rate: float, bound_s: float, slower: float = 1.0) -> float:
    """The share of requests that an M/G/1 queue in equilibrium answers later than `bound_s`.

    By the formula of Pollaczek and Khinchine: the wait is a geometric number of residual service times. It is
    summed on a grid by Fourier transforms, with a step of a 100th of the service time.
    """
    rate, bound_s = rate * slower, bound_s / slower  # the same queue, with time measured in its own unit
    busy = rate * service.mean_s
    if busy >= 1:
        return 1.0
    times, residual = _residual(service)
    wait = np.fft.irfft((1 - busy) / (1 - busy * residual), len(times))
    inside = times < bound_s + times[1]
    left, step = bound_s - times[inside], times[1]
    late = [
        np.where(left > x, service.beyond(np.maximum(left - x, 0.0)), 1.0) for x in (_PLACES - 0.5) * step
    ]
    return float(wait[inside] @ np.mean(late, axis=0) + 1 - wait[inside].sum())


@lru_cache(maxsize=4)
def _residual(service: Service) -> tuple[Times, NDArray[np.complex128]]:
    """A grid of times, and the Fourier transform of the residual service time on it."""
    step = service.mean_s / 100
    times = step * np.arange(2**17)
    beyond = np.mean([service.beyond(times + x) for x in _PLACES * step], axis=0)
    half = beyond / beyond.sum() / 2
    half[1:] += half[:-1].copy()  # half to each end of a step, so that the mean is kept
    return times, np.fft.rfft(half)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A server with an SLO. `start_per_s`: about 0.3 of what a closed loop serves.

    `service`: of an M/G/1 queue, whose capacity is computed; None: its capacity is simulated. `luck`: the
    standard deviation of the logarithm of its speed from probe to probe. `drift`: how much longer everything
    takes, as a share, after `drift_s` seconds of a study; it grows steadily, or at once where `is_step`, in
    the middle of `drift_s`.
    """

    name: str
    server: Server
    slo: Slo
    start_per_s: float
    service: Service | None = None
    luck: float = 0.0
    drift: float = 0.0
    drift_s: float = 0.0
    is_step: bool = False

    def latencies(self, rate: float, count: int, rng: np.random.Generator, slower: float = 1.0) -> Times:
        """Response times of `count` Poisson arrivals in seconds; `slower`: every time of the server's."""
        return self._served(self.server, rate, count, rng, slower)

    def _served(
        self, server: Server, rate: float, count: int, rng: np.random.Generator, slower: float
    ) -> Times:
        arrivals = np.cumsum(rng.exponential(1 / (rate * slower), count))
        return server(arrivals, rng) * slower

    def slower_at(self, seconds: float) -> float:
        """How much slower than at first the server is."""
        passed = seconds / self.drift_s if self.drift_s else 0.0
        return 1 + self.drift * (float(passed >= 0.5) if self.is_step else passed)

    def search(self, seed: Seed, longest_s: float = math.inf) -> tuple[Capacity, float]:
        """One study, and how many seconds of the server's time it took."""
        rng, now, server = np.random.default_rng(seed), 0.0, copy.deepcopy(self.server)

        def measure(rate: float, length: Length) -> Probe:
            nonlocal now
            count = length.warmup + length.requests
            slower = self.slower_at(now + count / rate / 2) * math.exp(rng.normal(0, self.luck))
            now += count / rate
            taken = self._served(server, rate, count, rng, slower)[length.warmup :]
            return probe_of(rate, np.round(taken * 1e9).astype(np.int64), self.slo)

        return find_capacity(measure, self.start_per_s, self.slo, longest_s), now

    def capacity(self, slower: float = 1.0, count: int = 1_500_000) -> float:
        """The highest rate at which the SLO holds. `count`: requests of a simulation, where it needs one."""
        if self.service is not None:
            return self._bisected(
                lambda rate, _: max(
                    late_share(self.service, rate, bound_ns / 1e9, slower) / (1 - percent / 100)  # type: ignore[arg-type]
                    for percent, bound_ns in self.slo.latencies
                ),
                1e-4,
            )
        rough = self._bisected(lambda rate, seed: self._used(rate, count // 10, seed, slower), 0.02)
        # A curve through many independent simulations nearby, where it crosses the budget.
        away = np.linspace(-0.06, 0.06, 13)
        used = [self._used(rough * math.exp(x), count, 100 + i, slower) for i, x in enumerate(away)]
        curve = np.poly1d(np.polyfit(away, np.log(np.maximum(used, 1e-9)), 2))
        fine = np.linspace(-0.06, 0.06, 2401)
        return rough * math.exp(float(fine[np.argmin(np.abs(curve(fine)))]))

    def _used(self, rate: float, count: int, seed: int, slower: float) -> float:
        """How many times the budget of late requests is used up in a long run at a rate."""
        rng = np.random.default_rng([99, seed])
        server = copy.deepcopy(self.server)
        taken = self._served(server, rate, count, rng, slower)[count // 50 :] * 1e9
        return max(
            float((taken > bound_ns).mean()) / (1 - percent / 100) for percent, bound_ns in self.slo.latencies
        )

    def _bisected(self, used: Callable[[float, int], float], tolerance: float) -> float:
        low = high = self.start_per_s
        while used(low, 0) > 1:
            low /= 1.5
        while used(high, 0) <= 1:
            high *= 1.5
        while math.log(high / low) > tolerance:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if used(middle, 0) <= 1 else (low, middle)
        return math.sqrt(low * high)


Seed = int | list[int]


def probe_of(rate: float, in_order_ns: NDArray[np.int64], slo: Slo) -> Probe:
    """What the runner makes of a trial's response times, in order of arrival."""
    return Probe(rate, *judge(in_order_ns, 0, len(in_order_ns), slo, rate))
