"""What a measurement rests on, as strings for the run's record: the machine, its GPUs, and versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import pynvml

from bench.core.version import __version__
from bench.sensors.host import usable_cores
from bench.sensors.nvml import Nvml, count

_PACKAGES = (
    "locust",
    "tritonclient",
    "gevent",
    "numpy",
    "torch",
    "transformers",
    "plotly",
    "nvidia-pytriton",
)


def versions() -> dict[str, str]:
    """Versions of bench and of the packages it uses; those that are not installed are left out."""
    installed = {"bench": __version__}
    for name in _PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def machine() -> dict[str, str]:
    """Describe the machine the load generator runs on, with its GPUs."""
    memory = psutil.virtual_memory().total
    return {
        "cpu": _cpu_model(),
        "cores": str(usable_cores()),
        "memory_bytes": str(memory),
        "os": _os_name(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        **gpus(),
    }


def gpus(nvml: Nvml = pynvml) -> dict[str, str]:
    """Describe name, memory and driver of each GPU; empty without one."""
    cards: dict[str, str] = {}
    for index in range(count(nvml)):
        try:
            gpu = nvml.nvmlDeviceGetHandleByIndex(index)
            memory_mib = nvml.nvmlDeviceGetMemoryInfo(gpu).total >> 20
            cards[f"gpu{index}"] = f"{nvml.nvmlDeviceGetName(gpu)}, {memory_mib} MiB"
        except nvml.NVMLError as error:
            cards[f"gpu{index}"] = f"does not answer: {error}"
    if cards:
        cards["gpu_driver"] = str(nvml.nvmlSystemGetDriverVersion())
    return cards


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform()
