"""Sensors give rates on the trial's clock; one that is not there gives nothing, never a zero."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping

import pytest

from bench.sensors import environment, nvml
from bench.sensors import host as machine
from bench.sensors.host import Paced, Sampler, host_sensors, process_sensor


def test_the_machine_is_described_in_words() -> None:
    said = environment.machine()
    assert {"cpu", "cores", "memory_bytes", "os", "kernel", "architecture", "python"} <= set(said)
    assert all(isinstance(value, str) and value for value in said.values())
    assert int(said["cores"]) == machine.usable_cores() >= 1


def test_a_sampler_reads_every_sensor_on_one_clock() -> None:
    before = time.monotonic_ns()
    with Sampler([lambda: {"a": 1.0, "b": 2.0}, lambda: {"c": 3.0}], every_s=0.01) as sampler:
        time.sleep(0.1)
    series = sampler.series()
    assert set(series) == {"a", "b", "c"}
    assert all(len(rows) == len(series["a"]) > 2 for rows in series.values())
    times = [at_ns for at_ns, _ in series["a"]]
    assert before <= times[0] <= times[-1] <= time.monotonic_ns()
    assert times == sorted(times)


def test_a_sensor_that_is_not_there_gives_no_series() -> None:
    nothing: Mapping[str, float] = {}
    with Sampler([lambda: nothing], every_s=0.01) as sampler:
        time.sleep(0.03)
    assert sampler.series() == {}


def test_a_trial_shorter_than_the_sampling_is_read_once_at_least() -> None:
    with Sampler([lambda: {"a": 1.0}], every_s=60) as sampler:
        pass
    assert len(sampler.series()["a"]) >= 1


def test_host_sensors_are_shares_of_time() -> None:
    with Sampler(host_sensors(), every_s=0.25) as sampler:
        time.sleep(0.6)
    series = sampler.series()
    assert "cpu_busy_percent" in series
    for rows in series.values():
        assert all(-1 <= value <= 120 for _, value in rows)


@pytest.mark.parametrize(("busy", "low", "high"), [(True, 0.1, 1.5), (False, 0.0, 0.1)])
def test_a_process_and_its_children_are_measured_in_cores(busy: bool, low: float, high: float) -> None:
    """Bounds that hold on a crowded machine too."""
    work = "while True: pass" if busy else "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {work!r}])"
    process = subprocess.Popen([sys.executable, "-S", "-c", parent], start_new_session=True)
    try:
        time.sleep(0.3)
        with Sampler([process_sensor("cores", lambda: [process.pid])], every_s=0.4) as sampler:
            time.sleep(1.0)
        values = [value for _, value in sampler.series()["cores"]]
        assert low <= max(values) <= high
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_process_that_is_gone_gives_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    with Sampler([process_sensor("cores", lambda: [process.pid])], every_s=0.01) as sampler:
        time.sleep(0.05)
    assert sampler.series() == {}


def test_a_machine_without_a_gpu_has_no_gpu_series() -> None:
    assert len(nvml.sensors()) == nvml.count()
    assert bool(environment.gpus()) == bool(nvml.count())


def test_each_sensor_is_read_at_its_own_pace() -> None:
    fast, slow = Paced(lambda: {"fast": 1.0}, 0.02), Paced(lambda: {"slow": 1.0}, 60)
    with Sampler([fast, slow]) as sampler:
        time.sleep(0.3)
    series = sampler.series()
    assert len(series["slow"]) == 1
    assert len(series["fast"]) >= 4


def test_processes_that_end_leave_no_negative_reading() -> None:
    """As when perf_analyzer ends among the clients: what it had used is gone from the sum."""
    used = iter([1.0, 2.0, 0.5, 0.6])
    sensor = machine._Counted("cores", lambda: next(used), 1.0)
    assert [bool(sensor()) for _ in range(4)] == [False, True, False, True]
