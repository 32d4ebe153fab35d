"""GPU series of a server that runs elsewhere, from its Prometheus metrics (`nv_gpu_*`).

Triton refreshes these every 2 s unless started with --metrics-interval-ms=100 or so: between, they stand
still. Names and units are those of `bench.sensors.nvml`; clocks, temperature and throttling it does not tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from bench.core.target import Target
from bench.sensors.host import Paced, Sensor

EVERY_S = 0.5
# A slow page of metrics is given up soon, since the other sensors wait for it.
_TIMEOUT_S = 0.4
# After so many failures in a row the page is not asked for again in this trial.
_MOST_FAILURES = 3
# metric -> (our reading, times what)
_READINGS = {
    "nv_gpu_utilization": ("utilisation_percent", 100.0),
    "nv_gpu_memory_used_bytes": ("memory_used_bytes", 1.0),
    "nv_gpu_power_usage": ("power_w", 1.0),
    "nv_energy_consumption": ("energy_j", 1.0),
}
_LINE = re.compile(r'^(nv_\w+)\{[^}]*gpu_uuid="([^"]+)"[^}]*\}\s+(\S+)', re.M)


def is_here(target: Target) -> bool:
    """Whether the server runs on this host, as far as its address tells."""
    host = urlsplit(target.http_url).hostname or ""
    try:
        return target.pid is not None or host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def readings(text: str) -> dict[str, float]:
    """gpuN_* of a metrics page; N counts the cards in the order of their ids. Empty without a GPU."""
    found = [(name, uuid, value) for name, uuid, value in _LINE.findall(text) if name in _READINGS]
    order = {uuid: index for index, uuid in enumerate(sorted({uuid for _, uuid, _ in found}))}
    known = {}
    for name, uuid, text in found:
        reading, scale = _READINGS[name]
        value = _number(text) * scale
        if math.isfinite(value):  # a card that cannot be read is NaN there
            known[f"gpu{order[uuid]}_{reading}"] = value
    return known


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def sensors(target: Target, fetch: Callable[[float], str]) -> list[Sensor]:
    """None without a metrics address. `fetch`: seconds it may take -> the page, "" where none comes."""
    if target.metrics_url is None:
        return []
    return [Paced(_Metrics(lambda: fetch(_TIMEOUT_S)), EVERY_S)]


class _Metrics:
    """A sensor that gives up on a page that does not come, or has no GPU on it."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch
        self._failures = 0

    def __call__(self) -> Mapping[str, float]:
        if self._failures >= _MOST_FAILURES:
            return {}
        found = readings(self._fetch())
        self._failures = 0 if found else self._failures + 1
        return found
