"""Which sensors run beside a trial: of this host, of the GPU wherever it is, of servers and clients."""

from __future__ import annotations

from bench import gpu, gpu_metrics, machine, perf_analyzer_process
from bench.locust_engine import LocustEngine
from bench.opened import Opened
from bench.trial import Target


def sensors(target: Opened, locust: LocustEngine) -> list[machine.Sensor]:
    found = [*machine.host_sensors(), *_gpu_sensors(target.target)]
    if target.target.pid is not None:
        server_pid = target.target.pid
        found.append(machine.process_sensor("server_cpu_cores", lambda: [server_pid]))
    clients = machine.process_sensor(
        "client_cpu_cores", lambda: (*locust.pids, *perf_analyzer_process.RUNNING)
    )
    return [*found, clients]


def _gpu_sensors(target: Target) -> list[machine.Sensor]:
    """NVML sees this machine's GPUs; those of a server elsewhere only its metrics tell of."""
    here = gpu.sensors() if gpu_metrics.is_here(target) else []
    return here or gpu_metrics.sensors(target)
