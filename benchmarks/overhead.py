"""What a sweep costs beyond warm-up and measuring: each trial, and the whole command."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.core.cell import Cell, Protocol, ServerConfiguration
from bench.core.run_folder import RunFolder, RunRecord, utc_now
from bench.core.samples import Window
from bench.core.spec import PlannedTrial, SweepSpec
from bench.core.target import Target
from bench.core.trial import Live, Plan, Served, Trial
from bench.experiments.sweep import Sweep
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.locust.engine import LocustEngine
from bench.sensors import environment, nvml
from bench.sensors import host as machine
from bench.server.serving import Serving
from benchmarks.findings import ROOT, Findings, Goal, Table, versions
from benchmarks.rig import Rig, rig

WARMUP_S = 0.5
GOAL_TRIAL_S = 1.0
GOAL_CPU_PERCENT = 5.0
GOAL_SAMPLER_PERCENT = 1.0
SAMPLER_S = 10.0
GOAL_HELP_S = 0.2
STARTS = 20
_COMMAND_TIMEOUT_S = 900.0

ABOUT = (
    "This page shows how much time and CPU a sweep needs beyond warm-up and measuring, for everyone who "
    "plans a run. The sweep measures `null_small` on an embedded Triton: batch 1 and 8, HTTP and gRPC, "
    "4 users, with as many repeats as rounds. Two costs of each trial are measured: its wall time minus "
    "warm-up and window, and the CPU of the sweep's own process while the engine measures (with the "
    "sensor thread, without the load-generating process). The same sweep as a command adds the start of "
    "Python, of Triton and of Locust, the loading of the model, and the report. The cost of the sensor "
    "thread alone is the CPU of a process that does nothing else, beside an idle server and a "
    "load-generating process. `bench --help` and a Python that does nothing are started alternately."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """Seconds beyond warm-up and window: in the engine, and around it; and the parent's CPU meanwhile."""

    cell: str
    repeat: int
    in_engine_s: float
    around_s: float
    cpu_percent: float

    @property
    def total_s(self) -> float:
        return self.in_engine_s + self.around_s


@dataclass(slots=True)
class Meter:
    """An engine and a watcher of the sweep at once: times what each trial takes, in and around the engine."""

    engine: LocustEngine
    costs: list[TrialCost] = field(default_factory=list)
    _began: float = 0.0
    _in_engine_s: float = 0.0
    _cpu_percent: float = 0.0

    def measure(self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None]) -> Trial:
        began, cpu_s = time.monotonic(), time.process_time()
        trial = self.engine.measure(plan, target, served, on_live)
        self._in_engine_s = time.monotonic() - began
        self._cpu_percent = (time.process_time() - cpu_s) / self._in_engine_s * 100
        return trial

    @property
    def pids(self) -> tuple[int, ...]:
        return self.engine.pids

    def close(self) -> None:
        self.engine.close()

    def configuring(self, server: ServerConfiguration) -> None:
        pass  # a model's load is the server's time

    def measuring(self, planned: PlannedTrial, done: int, total: int, seconds_left: float) -> None:  # noqa: ARG002  # a sweep's names
        self._began = time.monotonic()

    def live(self, planned: PlannedTrial, live: Live) -> None:
        pass

    def measured(self, trial: Trial) -> None:
        whole_s = time.monotonic() - self._began
        wanted_s = trial.plan.warmup_s + trial.window.seconds
        cost = TrialCost(
            cell=trial.cell.key,
            repeat=trial.plan.repeat,
            in_engine_s=self._in_engine_s - wanted_s,
            around_s=whole_s - self._in_engine_s,
            cpu_percent=self._cpu_percent,
        )
        self.costs.append(cost)

    def remark(self, cell: Cell, text: str) -> None:
        pass

    def failed(self, cells: tuple[Cell, ...], reason: str) -> None:
        raise AssertionError(f"null_small always answers, yet {cells[0].key}: {reason}")


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> Findings:
    with rig(("null_small",)) as server:
        say("a sweep, trial by trial")
        costs = _sweep(server, seconds, rounds)
        say("the sensors alone")
        sampler = _sampler_percent(server)
        triton = server.triton_version()
    say("the same sweep as a command")
    command = _command(seconds, rounds)
    say("starts of the command")
    starts = _starts()
    return Findings(
        name="overhead",
        title="Overhead: the cost of a sweep beyond warm-up and measuring",
        about=ABOUT,
        settings={"seconds": seconds, "warm-up": WARMUP_S, "repeats": rounds, "trials": len(costs)},
        versions=versions(Triton=triton),
        tables=(_trials_table(costs, sampler), _command_table(command), _starts_table(starts)),
        goals=(*_goals(costs, sampler), _help_goal(starts)),
        figures={
            "trials": [asdict(cost) for cost in costs],
            "sampler_percent": sampler,
            "command": command,
            "starts_s": starts,
        },
    )


def _spec(seconds: float, rounds: int) -> SweepSpec:
    return SweepSpec(
        model="null_small",
        batches=(1, 8),
        concurrencies=(4,),
        protocols=tuple(Protocol),
        warmup_s=WARMUP_S,
        duration_s=seconds,
        repeats=rounds,
        processes=1,
    )


def _sweep(server: Rig, seconds: float, rounds: int) -> list[TrialCost]:
    spec = _spec(seconds, rounds)
    with LocustEngine() as engine:
        meter = Meter(engine)
        runner = TrialRunner(
            spec=spec,
            serving=Serving(server.triton, spec.model),
            folder=RunFolder.create(server.scratch / "run", _record(spec)),
            engine=meter,
            sensors=lambda: _sensors(server, engine),
            refer=lambda _: server.served[spec.model],
            progress=meter,
        )
        Sweep(runner).run()
    return meter.costs


def _record(spec: SweepSpec) -> RunRecord:
    return RunRecord(
        name="overhead",
        created_at=utc_now(),
        command=(),
        seed=spec.seed,
        spec=json.loads(json.dumps(asdict(spec))),
        machine=environment.machine(),
        versions=versions(),
        target="embedded",
        weights="",
        planned=spec.cells(),
    )


def _sensors(server: Rig, engine: LocustEngine) -> list[machine.Sensor]:
    """Those of a sweep here, with NVML's where there is a GPU."""
    pid = server.target.pid
    return [
        *machine.host_sensors(),
        *nvml.sensors(),
        machine.process_sensor("server_cpu_cores", lambda: [pid] if pid else []),
        machine.process_sensor("client_cpu_cores", lambda: engine.pids),
    ]


def _sampler_percent(server: Rig) -> float:
    """CPU of the sensors' thread, in percent of a core: this process does nothing else meanwhile."""
    with LocustEngine() as engine, machine.Sampler(_sensors(server, engine)):
        began, cpu_s = time.monotonic(), time.process_time()
        time.sleep(SAMPLER_S)
        return (time.process_time() - cpu_s) / (time.monotonic() - began) * 100


def _command(seconds: float, rounds: int) -> dict[str, float]:
    """Wall time of `bench sweep`, of which so much is warm-up and window."""
    words = f"--model null_small --batch 1,8 --protocol http,grpc --concurrency 4 --repeats {rounds}".split()
    words += [f"--duration={seconds:g}s", f"--warmup={WARMUP_S:g}s", "--processes=1"]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        out = Path(scratch) / "run"
        began = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "bench", "sweep", *words, "--out", str(out)],
            cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S,
        )  # fmt: skip
        wall_s = time.monotonic() - began
        if not (out / "report.html").exists():
            raise RuntimeError(f"bench sweep ended with {ended.returncode}:\n{ended.stderr}")
        windows = [trial.window for trial in RunFolder.open(out).trials()]
    return _spans(began, wall_s, windows)


def _starts() -> dict[str, float]:
    """Median seconds that a start of each takes, one after the other: both see the same machine."""
    commands = {"help": [sys.executable, "-m", "bench", "--help"], "pass": [sys.executable, "-c", "pass"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            began = time.monotonic()
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
            seconds[name].append(time.monotonic() - began)
    return {name: float(np.median(taken)) for name, taken in seconds.items()}


def _spans(began: float, wall_s: float, windows: Sequence[Window]) -> dict[str, float]:
    """A command's wall time in parts; `began` and the windows are on one clock."""
    before_s = min(window.start_ns for window in windows) / 1e9 - WARMUP_S - began
    after_s = began + wall_s - max(window.end_ns for window in windows) / 1e9
    wanted_s = sum(window.seconds + WARMUP_S for window in windows)
    return {
        "trials": len(windows),
        "wall_s": wall_s,
        "before_s": before_s,
        "wanted_s": wanted_s,
        "between_s": wall_s - before_s - wanted_s - after_s,
        "after_s": after_s,
    }


def _trials_table(costs: Sequence[TrialCost], sampler: float) -> Table:
    columns = {
        "in the engine, s": [cost.in_engine_s for cost in costs],
        "outside the engine, s": [cost.around_s for cost in costs],
        "together, s": [cost.total_s for cost in costs],
        "sweep process, % of a core": [cost.cpu_percent for cost in costs],
    }
    return Table(
        "One trial, beyond warm-up and window",
        ("figure", "median", "largest"),
        (
            *((name, f"{np.median(v):.2f}", f"{max(v):.2f}") for name, v in columns.items()),
            ("sensor thread alone, % of a core", f"{sampler:.2f}", ""),
        ),
        "In the engine: preparing requests, starting all users together, drain, collecting the samples. "
        "Outside the engine: writing the trial, ending the sensor thread.",
    )


def _command_table(command: dict[str, float]) -> Table:
    rows = (
        ("trials", f"{command['trials']:.0f}"),
        ("wall time, s", f"{command['wall_s']:.1f}"),
        ("warm-ups and windows, s", f"{command['wanted_s']:.1f}"),
        (
            "before the first trial (start of Python, Triton and Locust, loading the model), s",
            f"{command['before_s']:.1f}",
        ),
        ("between trials, in total, s", f"{command['between_s']:.1f}"),
        ("after the last trial (drain, table, report, stopping Triton), s", f"{command['after_s']:.1f}"),
    )
    return Table("`bench sweep` as a command", ("figure", "value"), rows)


def _starts_table(starts: dict[str, float]) -> Table:
    rows = (
        ("`bench --help`, s", f"{starts['help']:.3f}"),
        ("`python -c pass`, s", f"{starts['pass']:.3f}"),
        ("ratio", f"{starts['help'] / starts['pass']:.1f}"),
    )
    return Table("A start of the command", ("median of starts", "value"), rows)


def _help_goal(starts: dict[str, float]) -> Goal:
    return Goal(
        f"`bench --help`: under {GOAL_HELP_S:g} s",
        f"median {starts['help']:.2f} s, {starts['help'] / starts['pass']:.1f} times an idle Python",
        "yes" if starts["help"] < GOAL_HELP_S else "no",
    )


def _goals(costs: Sequence[TrialCost], sampler: float) -> tuple[Goal, ...]:
    seconds = float(np.median([cost.total_s for cost in costs]))
    percent = float(np.median([cost.cpu_percent for cost in costs]))
    return (
        Goal(
            f"one trial: under {GOAL_TRIAL_S:g} s beyond warm-up and window",
            f"median {seconds:.2f} s",
            "yes" if seconds < GOAL_TRIAL_S else "no",
        ),
        Goal(
            f"CPU of the sweep process while measuring: under {GOAL_CPU_PERCENT:g} % of a core",
            f"median {percent:.1f} %",
            "yes" if percent < GOAL_CPU_PERCENT else "no",
        ),
        Goal(
            f"sensor thread: under {GOAL_SAMPLER_PERCENT:g} % of a core",
            f"{sampler:.2f} %",
            "yes" if sampler < GOAL_SAMPLER_PERCENT else "no",
        ),
    )
