"""How busy the machine was during a trial.

A `Sampler` runs beside each trial and gives named series of (at_ns, value) on the trial's own clock. A sensor
that is not there gives no series; zero is a reading.

    cpu_pressure_some_percent  time some task waited for a CPU (Linux PSI)
    cpu_steal_percent          time the hypervisor ran somebody else
    cpu_busy_percent           of all cores
    server_cpu_cores           tritonserver and its stubs, where they run on this host
    client_cpu_cores           the load generator
    gpuN_*                     from NVML, see `nvml`; of a server elsewhere `triton_metrics`
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

Series = dict[str, tuple[tuple[int, float], ...]]
Sensor = Callable[[], Mapping[str, float]]

SAMPLE_EVERY_S = 0.25
# Children of a process are looked for this often: each of a server's dozens of threads has to be asked for
# them.
_CHILDREN_EVERY_S = 1.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def usable_cores() -> int:
    """Cores this process may use: affinity counts, a container's quota too."""
    cores = len(os.sched_getaffinity(0))
    quota = _cgroup_quota_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


@dataclass(frozen=True, slots=True)
class Paced:
    """A sensor with a pace of its own."""

    sensor: Sensor
    every_s: float

    def __call__(self) -> Mapping[str, float]:
        return self.sensor()


class Sampler:
    """Reads each sensor at its pace, in a thread, until it is stopped."""

    def __init__(self, sensors: Iterable[Sensor], every_s: float = SAMPLE_EVERY_S) -> None:
        self._sensors = tuple(sensors)
        self._every_s = every_s
        self._rows: dict[str, list[tuple[int, float]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="bench-sampler")

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def series(self) -> Series:
        return {name: tuple(rows) for name, rows in self._rows.items()}

    def _loop(self) -> None:
        """Each reading carries the moment it was there; paces are kept, readings missed are left out."""
        due_s = [time.monotonic()] * len(self._sensors)
        while True:
            for i, sensor in enumerate(self._sensors):
                every_s = sensor.every_s if isinstance(sensor, Paced) else self._every_s
                if time.monotonic() >= due_s[i]:
                    self._read(sensor)
                    due_s[i] = max(due_s[i] + every_s, time.monotonic())
            if self._stop.wait(max(0.0, min(due_s, default=time.monotonic() + 1) - time.monotonic())):
                return

    def _read(self, sensor: Sensor) -> None:
        values = sensor()
        at_ns = time.monotonic_ns()
        for name, value in values.items():
            self._rows.setdefault(name, []).append((at_ns, value))


class _Counted:
    """A sensor of a growing counter: gives its rate since the last reading."""

    def __init__(self, name: str, read: Callable[[], float | None], scale: float) -> None:
        self._name, self._read, self._scale = name, read, scale
        self._last: tuple[int, float] | None = None

    def __call__(self) -> Mapping[str, float]:
        now, value = time.monotonic_ns(), self._read()
        if value is None:
            return {}
        last, self._last = self._last, (now, value)
        if last is None or now <= last[0] or value < last[1]:
            return {}  # the first, or one of several processes has ended
        return {self._name: (value - last[1]) / ((now - last[0]) / 1e9) * self._scale}


def host_sensors() -> list[Sensor]:
    return [
        _Counted("cpu_pressure_some_percent", _pressure_us, 100 / 1e6),
        _Counted("cpu_steal_percent", lambda: _cpu_ticks("steal"), 100 / _TICKS_PER_S / _all_cores()),
        _Counted("cpu_busy_percent", lambda: _cpu_ticks("busy"), 100 / _TICKS_PER_S / _all_cores()),
    ]


def process_sensor(name: str, pids: Callable[[], Iterable[int]]) -> Sensor:
    """CPU of processes and all their descendants, in cores."""
    tree = _Tree(pids)
    return _Counted(name, tree.cpu_s, 1.0)


class _Tree:
    """Processes and what they started; looked for once a second, or when `pids` change."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._roots: tuple[int, ...] = ()
        self._members: tuple[int, ...] = ()
        self._next_s = 0.0

    def cpu_s(self) -> float | None:
        """Seconds of CPU of all together; falls when a process ends. None: none is there."""
        roots, now = tuple(self._pids()), time.monotonic()
        if roots != self._roots or now >= self._next_s:
            self._roots, self._next_s = roots, now + _CHILDREN_EVERY_S
            self._members = tuple(member for pid in roots for member in (pid, *_descendants(pid)))
        found = [seconds for pid in self._members if (seconds := _process_cpu_s(pid)) is not None]
        return sum(found) if found else None


def _descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task").iterdir()
        found = [int(c) for task in children for c in (task / "children").read_text().split()]
    except (OSError, ValueError):
        return []
    return found + [grandchild for child in found for grandchild in _descendants(child)]


def _process_cpu_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def waited_s(pid: int) -> float:
    """Spent so far by its first thread as runnable, without a core; 0 where Linux does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _pressure_us() -> float | None:
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return None
    return float(some.rpartition("total=")[2])


def _cpu_ticks(kind: str) -> float | None:
    try:
        values = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = values
    return steal if kind == "steal" else user + nice + system + irq + softirq


def _all_cores() -> int:
    return os.cpu_count() or 1


def _cgroup_quota_cores() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
