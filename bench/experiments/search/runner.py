"""Measures the probes of a capacity search, one trial each, in the run folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench.analysis.checks import judge as findings
from bench.analysis.slo import judge, seen
from bench.analysis.summary import judged
from bench.cli.progress import ConsoleProgress
from bench.core.cell import Cell, Engine, ServerConfiguration
from bench.core.findings import Severity
from bench.core.run_folder import RunFolder
from bench.core.samples import Outcome
from bench.core.slo import Slo
from bench.core.spec import SweepSpec, Turn, settings
from bench.core.trial import Served, Trial
from bench.experiments.search import algorithm as search
from bench.experiments.search.algorithm import Capacity, Effort, Probe
from bench.experiments.sensors import sensors
from bench.experiments.sweep import Sweep
from bench.loadgen.locust.engine import LocustEngine
from bench.server.reference_answers import refer
from bench.server.session import Session

# The search starts at this share of what a closed loop serves with one request per instance in flight.
_START = 0.3
LEAST_PROBE_S = 2.0


@dataclass(slots=True)
class Hunt:
    """Every configuration, batch and protocol in turn; each probe is a trial in the run folder."""

    spec: SweepSpec
    slo: Slo
    target: Session
    folder: RunFolder
    engine: LocustEngine
    progress: ConsoleProgress
    scratch: Path
    longest_s: float
    found: list[tuple[str, Capacity]] = field(default_factory=list)

    def all(self) -> None:
        for server in self.spec.configurations():
            served = self._served(server)
            for load in self.spec.loads():
                cell = Cell(server=server, load=load)
                self.found.append((_name(cell), self._capacity(cell, served)))

    def _served(self, server: ServerConfiguration) -> Served:
        self.progress.configuring(server)
        served = self.target.serving.configure(server)
        record = self.folder.record
        configs = {**record.served, server.key: dict(served.config)}
        self.folder.write_record(replace(record, served=configs))
        return refer(served, self.spec.image_height, self.spec.image_width, self.scratch)

    def _capacity(self, cell: Cell, served: Served) -> Capacity:
        instances = (cell.server.instances or 1) * (cell.server.replicas or 1)
        closed = replace(cell, load=replace(cell.load, concurrency=instances))
        trial = self._trial(closed, served, self.spec.duration_s)
        per_s = len(trial.samples.done_in(trial.window).good()) / trial.window.seconds
        start = search.round_rate(max(_START * per_s, 0.1))
        return search.find_capacity(lambda rate, effort: self._probe(cell, served, rate, effort), start)

    def _probe(self, cell: Cell, served: Served, rate: float, effort: Effort) -> Probe:
        load = replace(cell.load, concurrency=None, rate_per_s=rate)
        wanted_s = search.samples_wanted(self.slo, effort) / rate
        trial = self._trial(
            replace(cell, load=load), served, min(max(wanted_s, LEAST_PROBE_S), self.longest_s)
        )
        due = judged(trial)
        answered = due.where((due.outcome == Outcome.OK) | (due.outcome == Outcome.UNFINISHED))
        evidence = (np.sort(answered.response_ns), len(due.failed()), len(due), self.slo)
        outcome, why = judge(*evidence)
        self.progress.say(f"  {rate:g}/s {outcome}: {why}")
        codes = (finding.code for finding in findings(trial) if finding.severity is Severity.INVALID)
        return Probe(rate, outcome, why, seen(*evidence, rate), tuple(codes))

    def _trial(self, cell: Cell, served: Served, duration_s: float) -> Trial:
        repeat = next(i for i in range(1000) if not self.folder.has_trial(cell.key, i))
        turn = Turn(cell, repeat)
        plan = replace(self._sweep().plan(turn), duration_s=duration_s)
        trial = self._sweep().trial(turn, plan, served)
        self.folder.write_trial(trial)
        return trial

    def _sweep(self) -> Sweep:
        """Plans are made the way a sweep makes them."""
        return Sweep(
            spec=self.spec,
            serving=self.target.serving,
            target=self.target.target,
            folder=self.folder,
            engines={Engine.LOCUST: self.engine.measure},
            sensors=lambda: sensors(self.target, self.engine),
            refer=lambda served: served,
            progress=self.progress,
        )


def _name(cell: Cell) -> str:
    count = cell.server.instances
    instances = "" if count is None else f", {count} instance{'s' * (count != 1)}"
    pods = "" if cell.server.replicas is None else f", {cell.server.replicas} pods"
    via = "" if cell.load.via is None else f" via {cell.load.via}"
    name = f"{cell.server.model}, batch {cell.load.batch}{pods}{instances}, {cell.load.protocol}{via}"
    return ", ".join([name, *settings(cell)])
