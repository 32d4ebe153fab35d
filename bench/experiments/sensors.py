"""Which sensors run beside a trial: of this host, of the GPU wherever it is, of servers and clients."""

from __future__ import annotations

from bench.core.target import Target
from bench.loadgen.locust.engine import LocustEngine
from bench.loadgen.perf_analyzer import process as perf_analyzer_process
from bench.sensors import host as machine
from bench.sensors import nvml, triton_metrics
from bench.server.session import Session


def sensors(target: Session, locust: LocustEngine) -> list[machine.Sensor]:
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
    here = nvml.sensors() if triton_metrics.is_here(target) else []
    return here or triton_metrics.sensors(target)
