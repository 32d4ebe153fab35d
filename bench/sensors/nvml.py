"""GPU series from NVML, on the machine that has the GPU. No GPU, no driver: no sensors.

Ten times a second what changes fast; once a second what is slow to read or to change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pynvml

from bench.sensors.host import Paced, Sensor

FAST_S, SLOW_S = 0.1, 1.0
Nvml = Any  # the module; another one in tests, since NVML answers only where a driver is
Readings = Mapping[str, Callable[[Nvml, object], float]]

# name -> how to read it from a device handle, in the unit the name says
_FAST: Readings = {
    "utilisation_percent": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory_used_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "energy_j": lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
    "sm_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "throttle_reasons": lambda nvml, gpu: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
}
_SLOW: Readings = {
    "memory_clock_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
    "temperature_c": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
    "processes": lambda nvml, gpu: len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu)),
}


def count(nvml: Nvml = pynvml) -> int:
    """GPUs of this machine; 0 without a driver."""
    try:
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return 0


def sensors(nvml: Nvml = pynvml) -> list[Sensor]:
    """Of every GPU that answers."""
    found: list[Sensor] = []
    for index in range(count(nvml)):
        try:
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:
            continue  # lost, or not ours: no series, and no zeros
        for readings, every_s in ((_FAST, FAST_S), (_SLOW, SLOW_S)):
            found.append(Paced(_sensor(nvml, index, gpu, readings), every_s))
    return found


def _sensor(nvml: Nvml, index: int, gpu: object, readings: Readings) -> Sensor:
    """Some sensors are missing on some cards: those that do not answer now are not asked again."""
    there = {
        f"gpu{index}_{name}": read for name, read in readings.items() if _value(nvml, read, gpu) is not None
    }

    def read_all() -> Mapping[str, float]:
        values = ((name, _value(nvml, read, gpu)) for name, read in there.items())
        return {name: value for name, value in values if value is not None}

    return read_all


def _value(nvml: Nvml, read: Callable[[Nvml, object], float], gpu: object) -> float | None:
    """None: this card has no such sensor, or does not answer any more."""
    try:
        return float(read(nvml, gpu))
    except nvml.NVMLError:
        return None
