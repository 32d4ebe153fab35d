"""GPU series from NVML, on the machine that has the GPU. No GPU, no driver: no sensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pynvml

from bench.machine import Sensor

# name -> how to read it from a device handle, in the unit the name says
_READINGS: dict[str, Callable[[object], float]] = {
    "utilisation_percent": lambda gpu: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory_used_bytes": lambda gpu: pynvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "power_w": lambda gpu: pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
    "energy_j": lambda gpu: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3,
    "sm_clock_mhz": lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM),
    "memory_clock_mhz": lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_MEM),
    "temperature_c": lambda gpu: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU),
    "throttle_reasons": lambda gpu: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu),
    "processes": lambda gpu: len(pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)),
}


def count() -> int:
    """GPUs of this machine; 0 without a driver."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def describe() -> dict[str, str]:
    """Name, memory and driver of each GPU, as strings for a report; empty without one."""
    found: dict[str, str] = {}
    for index in range(count()):
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory_mib = pynvml.nvmlDeviceGetMemoryInfo(gpu).total >> 20
        found[f"gpu{index}"] = f"{pynvml.nvmlDeviceGetName(gpu)}, {memory_mib} MiB"
    if found:
        found["gpu_driver"] = str(pynvml.nvmlSystemGetDriverVersion())
    return found


def sensors() -> list[Sensor]:
    return [_sensor(index) for index in range(count())]


def _sensor(index: int) -> Sensor:
    gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    readings = {name: read for name, read in _READINGS.items() if _works(read, gpu)}

    def read_all() -> Mapping[str, float]:
        return {
            f"gpu{index}_{name}": value
            for name, read in readings.items()
            if (value := _value(read, gpu)) is not None
        }

    return read_all


def _works(read: Callable[[object], float], gpu: object) -> bool:
    """Some sensors are missing on some cards; a missing one is left out, not read as zero."""
    return _value(read, gpu) is not None


def _value(read: Callable[[object], float], gpu: object) -> float | None:
    try:
        return float(read(gpu))
    except pynvml.NVMLError:
        return None
