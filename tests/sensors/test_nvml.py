"""NVML by a module that plays it, metrics by their text, and what a lost or full GPU is called."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.analysis import aggregate
from bench.analysis.checks import findings_of
from bench.analysis.checks.gpu import SILENT_NS
from bench.analysis.results import RunResults
from bench.core.run_folder import RunFolder
from bench.core.target import Target
from bench.core.trial import Trial
from bench.sensors import environment, triton_metrics
from bench.sensors import nvml as gpu
from bench.sensors.host import Sampler
from bench.server.log_diagnosis import known_cause
from tests.support.synthetic import World, cell, trial


class Lost(Exception):
    """What NVML raises."""


class Nvml(SimpleNamespace):
    """A card without an energy counter; `lost` from the moment it is set."""

    NVMLError = Lost
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
    cards = 1
    lost = False

    def nvmlInit(self) -> None:  # noqa: N802 NVML's names
        if not self.cards:
            raise Lost("no driver")

    def __getattr__(self, name: str) -> Any:
        def answer(*_: object) -> Any:
            if self.lost or name == "nvmlDeviceGetTotalEnergyConsumption":
                raise Lost("GPU is lost")
            return {
                "nvmlDeviceGetCount": self.cards,
                "nvmlDeviceGetHandleByIndex": object(),
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=0),
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=5 << 20, total=80 << 30),
                "nvmlDeviceGetPowerUsage": 350_000,
                "nvmlDeviceGetComputeRunningProcesses": [1, 2],
                "nvmlDeviceGetName": "NVIDIA H200",
                "nvmlSystemGetDriverVersion": "570.1",
                "nvmlDeviceGetCurrentClocksThrottleReasons": 4,
            }.get(name, 1000)

        if not name.startswith("nvml"):
            raise AttributeError(name)
        return answer


def series(nvml: Nvml, seconds: float = 0.35) -> dict[str, Any]:
    with Sampler(gpu.sensors(nvml)) as sampler:
        time.sleep(seconds)
    return sampler.series()


def test_a_missing_sensor_gives_no_series_and_an_idle_one_gives_zeros() -> None:
    found = series(Nvml())
    assert "gpu0_energy_j" not in found
    assert {value for _, value in found["gpu0_utilisation_percent"]} == {0.0}
    assert {value for _, value in found["gpu0_power_w"]} == {350.0}


def test_what_changes_fast_is_read_more_often_than_the_rest() -> None:
    found = series(Nvml())
    assert len(found["gpu0_power_w"]) > len(found["gpu0_temperature_c"]) >= 1
    assert found["gpu0_processes"][0][1] == 2


def test_no_driver_no_sensors() -> None:
    assert gpu.sensors(Nvml(cards=0)) == []
    assert environment.gpus(Nvml(cards=0)) == {}


def test_a_card_that_is_lost_in_between_ends_its_series() -> None:
    nvml = Nvml()
    sensors = gpu.sensors(nvml)
    assert all(sensor() for sensor in sensors)
    nvml.lost = True
    assert not any(sensor() for sensor in sensors)
    assert "does not answer" in environment.gpus(Nvml(nvmlDeviceGetHandleByIndex=_raise))["gpu0"]


def _raise(*_: object) -> None:
    raise Lost("GPU is lost")


METRICS = """# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-b"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-a"} 0
nv_gpu_power_usage{gpu_uuid="GPU-a"} 71.5
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 1e9
nv_inference_count{model="m",version="1"} 3
"""


def test_metrics_of_a_remote_server_have_the_names_of_nvml_s() -> None:
    assert triton_metrics.readings(METRICS) == {
        "gpu1_utilisation_percent": 50.0,
        "gpu0_utilisation_percent": 0.0,
        "gpu0_power_w": 71.5,
    }


def test_a_metrics_page_that_does_not_come_gives_nothing_and_is_left_alone() -> None:
    sensor = triton_metrics.sensors(
        Target("http://127.0.0.1:9", metrics_url="http://127.0.0.1:9/metrics"), lambda _: ""
    )[0]
    assert [dict(sensor()) for _ in range(5)] == [{}] * 5
    assert triton_metrics.sensors(Target("http://127.0.0.1:9"), lambda _: "") == []


@pytest.mark.parametrize(
    ("url", "here"), [("http://127.0.0.1:8000", True), ("http://localhost", True), ("http://10.1.2.3", False)]
)
def test_nvml_is_asked_only_about_a_server_on_this_host(url: str, here: bool) -> None:
    assert triton_metrics.is_here(Target(url)) is here


def test_energy_comes_from_the_counter_and_else_from_power() -> None:
    of = trial(cell(), world=World(gpu=True))
    counted = aggregate.gpu_columns([of], 100.0)
    assert counted["gpu_energy_j_per_img"] == pytest.approx(1 / (counted["gpu_img_per_s_per_w"] or 0))
    bare = replace(of, machine={k: v for k, v in of.machine.items() if not k.endswith("energy_j")})
    powered = aggregate.gpu_columns([bare], 100.0)
    assert powered["gpu_energy_j_per_img"] == pytest.approx((powered["gpu_power_w"] or 0) / 100)
    assert set(aggregate.gpu_columns([replace(of, machine={})], 100.0).values()) == {None}


def codes(of: Trial) -> set[str]:
    return {finding.code for finding in findings_of(of)}


MEMORY = "CUDA out of memory. Tried to allocate 392.00 MiB. GPU 0 has a total capacity of 139.81 GiB of which 211.44 MiB is free. Process 4711 has 17 GiB"  # noqa: E501 as torch says it


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (MEMORY, "gpu-out-of-memory"),
        ("CUDA error: unspecified launch failure\nCUDA kernel errors might", "gpu-fault"),
        ("RuntimeError: CUDA error: device-side assert triggered", "gpu-fault"),
    ],
)
def test_requests_that_fail_for_the_gpu_make_a_labelled_cell(message: str, code: str) -> None:
    of = trial(cell())
    assert code in codes(replace(of, errors={message: 3}))
    assert not {"gpu-out-of-memory", "gpu-fault"} & codes(replace(of, errors={"no such input": 3}))


def test_a_card_that_stops_answering_in_the_window_is_a_finding() -> None:
    of = trial(cell(), world=World(gpu=True))
    end_ns = of.window.end_ns
    host = {"cpu_busy_percent": ((of.window.start_ns, 5.0), (end_ns, 5.0))}
    whole = replace(of, machine={**of.machine, **host})
    assert "gpu-gone" not in codes(whole)
    cut = {
        name: tuple(r for r in rows if not name.startswith("gpu") or r[0] < end_ns - SILENT_NS - 10**9)
        for name, rows in whole.machine.items()
    }
    assert "gpu-gone" in codes(replace(whole, machine=cut))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (f"TritonModelException: {MEMORY}", "211.44 MiB is free): fewer instances"),
        ("RuntimeError: CUDA error: out of memory\\n\\nAt:", "The GPU's memory is full: fewer instances"),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling", "The GPU's memory is full"),
        ("RuntimeError: CUDA error: device lost\\nx", "disappeared (CUDA error: device lost)"),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "Xid 79"),
        ("RuntimeError: No CUDA GPUs are available", "finds no GPU it can use (No CUDA GPUs are available)"),
    ],
)
def test_a_load_that_fails_for_the_gpu_says_so(said: str, sentence: str) -> None:
    assert sentence in known_cause(said)


@pytest.mark.e2e
def test_a_full_gpu_is_a_labelled_cell_and_the_sweep_goes_on(tmp_path: Path) -> None:
    """A model that loads as on a card with room for four instances, asked for eight."""
    words = ["--model", "faulty", "--parameter", "mode=gpu_full", "--instances", "8,1", "--batch", "1"]
    words += ["--duration", "0.3s", "--warmup", "0.1s", "--concurrency", "1", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "sweep", *words, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 3, done.stderr
    rows = {row.instances: row for row in RunResults.of(RunFolder.open(tmp_path / "run")).rows}
    assert rows[8].verdict == "FAILED"
    assert "211.44 MiB is free): fewer instances" in rows[8].reason
    assert rows[1].verdict == "VALID"
