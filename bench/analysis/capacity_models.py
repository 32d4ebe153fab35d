"""Capacity in formulas: Little's law, time over batch, scalability over concurrency, the roofline.

Each says how well it fits, and is not read beyond what was measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.samples import Samples, Window

# A curve is not read further out than this many times the largest point it was fitted to.
FURTHEST = 1.5
# The knee has this share of the highest throughput: more load costs latency and brings next to nothing.
KNEE = 0.95
# The universal scalability law has three parameters, and as many points again tell whether they fit.
LEAST_USL_POINTS = 6


@dataclass(frozen=True, slots=True)
class Little:
    """L = X R, all three measured over one window."""

    in_flight: float  # L: time average of requests between sent and done
    rate_per_s: float  # X: requests done, however they ended
    service_s: float  # R: mean of done - sent
    requests: int

    @property
    def off(self) -> float:
        """L / (X R) - 1; 0 without requests."""
        expected = self.rate_per_s * self.service_s
        return self.in_flight / expected - 1 if expected else 0.0

    @property
    def edges(self) -> float:
        """What requests that cross the ends of the window can be worth in `off`: those in flight, of all."""
        return 3 * self.in_flight / max(1, self.requests)


def little(samples: Samples, window: Window) -> Little:
    """Source: Little 1961. For one set of requests an identity, up to the window's ends."""
    done = samples.done_in(window)
    start_ns = np.maximum(samples.sent_ns, window.start_ns)
    inside_ns = np.maximum(np.minimum(samples.done_ns, window.end_ns) - start_ns, 0)
    return Little(
        in_flight=float(inside_ns.sum()) / (window.end_ns - window.start_ns),
        rate_per_s=len(done) / window.seconds,
        service_s=float(done.service_ns.mean()) / 1e9 if len(done) else 0.0,
        requests=len(done),
    )


@dataclass(frozen=True, slots=True)
class BatchModel:
    """Time of an execution: s(b) = fixed + per_item * b, in seconds."""

    fixed_s: float
    per_item_s: float
    residuals: Mapping[int, float]  # batch -> measured over predicted, minus one

    def execution_s(self, batch: int) -> float:
        return self.fixed_s + self.per_item_s * batch

    @property
    def ceiling_per_s(self) -> float:
        """Items a second of one device at any batch: instances that share it hide `fixed`, and no more."""
        return 1 / self.per_item_s if self.per_item_s > 0 else math.inf

    @property
    def worst(self) -> float:
        return max(abs(residual) for residual in self.residuals.values())


def fit_batches(batches: Mapping[int, tuple[int, int]]) -> BatchModel | None:
    """`batches`: executed batch size -> (executions, ns of all of them), as Triton's batch_stats count them.

    Least squares on relative errors, a size weighing as much as it has executions, up to a limit: sizes
    that the batcher made thousands of times must not drown the others. None for fewer than two sizes.
    """
    measured = {b: ns / count / 1e9 for b, (count, ns) in sorted(batches.items()) if count > 0 and ns > 0}
    if len(measured) < 2:
        return None
    times = np.array(list(measured.values()))
    weights = np.sqrt([min(batches[b][0], 100) for b in measured]) / times
    rows = np.array([[1.0, b] for b in measured])
    fixed, per_item = (float(x) for x in _nonnegative(rows * weights[:, None], times * weights))
    predicted = rows @ np.array([fixed, per_item])
    residuals = {b: float(r) for b, r in zip(measured, times / predicted - 1, strict=True)}
    return BatchModel(fixed, per_item, residuals)


@dataclass(frozen=True, slots=True)
class Usl:
    """Universal scalability law: X(N) = lambda N / (1 + sigma (N - 1) + kappa N (N - 1))."""

    single_per_s: float  # lambda: throughput of one
    contention: float  # sigma: the share that cannot run side by side
    coherence: float  # kappa: what each pays for every other
    largest: float  # N it was fitted to
    residuals: Mapping[float, float]  # N -> measured over predicted, minus one

    def per_s(self, concurrency: float) -> float:
        """Raises ValueError beyond 1.5 times the largest concurrency measured."""
        if concurrency > FURTHEST * self.largest:
            raise ValueError(
                f"{concurrency:g} is beyond {FURTHEST} times the largest point, {self.largest:g}"
            )
        return self._curve(concurrency)

    @property
    def peak(self) -> float | None:
        """Where throughput is highest: sqrt((1 - sigma) / kappa). None where the data do not reach."""
        if self.coherence <= 0 or self.contention >= 1:
            return None
        at = math.sqrt((1 - self.contention) / self.coherence)
        return at if at <= FURTHEST * self.largest else None

    @property
    def worst(self) -> float:
        return max(abs(residual) for residual in self.residuals.values())

    def _curve(self, n: float) -> float:
        return self.single_per_s * n / (1 + self.contention * (n - 1) + self.coherence * n * (n - 1))


def fit_usl(throughput_per_s: Mapping[float, float]) -> Usl | None:
    """`throughput_per_s`: concurrency -> requests or items a second. None with under 6 points, or no fit.

    N / X is linear in 1/lambda, sigma/lambda and kappa/lambda; least squares on relative errors, none of
    the three below 0. Source: Gunther 1993; Schwartz and Fortune 2010 (lambda fitted too).
    """
    points = sorted((n, x) for n, x in throughput_per_s.items() if n > 0 and x > 0)
    if len(points) < LEAST_USL_POINTS:
        return None
    n, x = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    rows = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1)
    inverse, contention, coherence = _nonnegative(rows * (x / n)[:, None], np.ones_like(n))
    if inverse == 0:
        return None
    predicted = n / (rows @ np.array([inverse, contention, coherence]))
    residuals = {float(at): float(r) for at, r in zip(n, x / predicted - 1, strict=True)}
    return Usl(float(1 / inverse), float(contention / inverse), float(coherence / inverse), n[-1], residuals)


def measured_knee(throughput_per_s: Mapping[float, float]) -> float:
    """The least concurrency with 95 % of the highest throughput."""
    enough = KNEE * max(throughput_per_s.values())
    return min(n for n, per_s in throughput_per_s.items() if per_s >= enough)


def roofline_per_s(
    *, batch: int, flop_per_item: float, bytes_per_item: float, weight_bytes: float, peak_flop_per_s: float,
    peak_bytes_per_s: float,
) -> float:  # fmt: skip
    """Items a second no implementation passes: arithmetic or memory, whichever is slower (Williams 2009).

    Weights are read once an execution.
    """
    arithmetic_s = batch * flop_per_item / peak_flop_per_s
    memory_s = (weight_bytes + batch * bytes_per_item) / peak_bytes_per_s
    return batch / max(arithmetic_s, memory_s)


def _nonnegative(rows: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with no coefficient below 0: the best of all subsets of columns (there are few)."""
    width = rows.shape[1]
    best, least = np.zeros(width), math.inf
    subsets = (c for size in range(1, width + 1) for c in itertools.combinations(range(width), size))
    for columns in map(list, subsets):
        solution = np.linalg.lstsq(rows[:, columns], values, rcond=None)[0]
        error = float(((rows[:, columns] @ solution - values) ** 2).sum())
        if (solution >= 0).all() and error < least:
            best, least = np.zeros(width), error
            best[columns] = solution
    return best
