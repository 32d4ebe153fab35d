"""`bench search`: the highest Poisson rate that holds an SLO, for each configuration asked for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.analysis.checks import judge as findings
from bench.analysis.slo import judge, seen
from bench.analysis.summary import judged
from bench.cli.flags import Flags, sweep_spec
from bench.cli.progress import ConsoleProgress
from bench.cli.verbs.sweep import (
    check_embedded,
    check_remote,
    new_folder,
    out_folder,
)
from bench.cli.worker_flags import crew_of
from bench.cluster.session import opened_at, place_of
from bench.core.cell import Cell, Engine, ServerConfiguration
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_MISSED, EXIT_OK, worst
from bench.core.findings import Severity
from bench.core.run_folder import RunFolder, write_json
from bench.core.samples import Outcome
from bench.core.spec import SweepSpec, Turn, settings
from bench.core.trial import Served, Trial
from bench.core.units import Slo, parse_slo, significant
from bench.experiments.search import algorithm as search
from bench.experiments.search.algorithm import Capacity, Effort, Probe
from bench.experiments.sensors import sensors
from bench.experiments.sweep import Sweep, utc_now
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import TALK, publish
from bench.report.sections import search as searched
from bench.server.reference_answers import refer
from bench.server.session import Opened

# The search starts at this share of what a closed loop serves with one request per instance in flight.
_START = 0.3
_LEAST_PROBE_S = 2.0


def run(given: Mapping[str, Any], command: Sequence[str]) -> int:
    """All mistakes are raised before anything starts."""
    flags = Flags()
    spec = sweep_spec({**given, "concurrency": "1", "repeats": 1, "quick": False}, flags)
    slo = flags.read("--slo", given["slo"], parse_slo, Slo())
    longest_s = flags.read("--longest-probe", given["longest_probe"], _seconds, 60.0)
    crew = crew_of(given, spec, flags)
    remote = place_of(given, spec, flags)
    if given.get("in_cluster"):
        flags.wrong(
            "--in-cluster", "", "is of `bench sweep`; run `bench search` itself in a pod of the cluster"
        )
    if remote is None:
        check_embedded(given, spec, flags)
    flags.check()
    path = out_folder(given, f"{spec.model}-search")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress = stack.enter_context(ConsoleProgress())
        target = stack.enter_context(opened_at(given, remote, progress.say, path / "tritonserver.log"))
        if remote is not None:
            check_remote(target, spec, flags)
        folder = new_folder(path, given, spec, command, target, given["slo"], planned=())
        engine = stack.enter_context(LocustEngine(path / "locust.log", crew))
        hunt = Hunt(spec, slo, target, folder, engine, progress, scratch, longest_s)
        interrupted = False
        try:
            hunt.all()
        except KeyboardInterrupt:
            interrupted = True
        progress.__exit__()
        if interrupted:
            TALK.print("Interrupted: reporting what was measured; a search begins anew (--force).")
        return _end(hunt, as_json=given["as_json"], interrupted=interrupted)


def _seconds(text: str) -> float:
    from bench.core.units import parse_duration_s

    seconds = parse_duration_s(text)
    if seconds < _LEAST_PROBE_S:
        raise ValueError(f"must be at least {_LEAST_PROBE_S:g}s")
    return seconds


def _end(hunt: Hunt, *, as_json: bool, interrupted: bool) -> int:
    found = [(name, capacity) for name, capacity in hunt.found]
    write_json(hunt.folder.path / searched.FILE, search.table(found))
    if not interrupted:
        hunt.folder.write_record(replace(hunt.folder.record, finished_at=utc_now()))
    publish(hunt.folder, as_json=as_json)
    if as_json:
        print(json.dumps(search.table(found), indent=1))
    out = TALK if as_json else Console(highlight=False)
    for name, capacity in found:
        out.print(f"{name}: {sentence(capacity, hunt.slo)}", soft_wrap=True, markup=False)
    if interrupted:
        return EXIT_INTERRUPTED
    return worst([exit_code(capacity) for _, capacity in found])


def exit_code(capacity: Capacity) -> int:
    """Inconclusive: the probes ran out, or are not of the server."""
    if capacity.doubts or not (capacity.is_confirmed or capacity.is_missed):
        return EXIT_INCONCLUSIVE
    return EXIT_OK if capacity.is_confirmed else EXIT_MISSED


def sentence(capacity: Capacity, slo: Slo) -> str:
    """The answer as a person wants it."""
    tried = [probe.rate_per_s for probe in capacity.probes]
    if capacity.doubts:
        codes = ", ".join(capacity.doubts)
        return (
            f"INVALID: not the server's capacity, most of the probes that decide are {codes}. "
            "The report says of each what to do."
        )
    if capacity.is_missed:
        return f"INVALID: {slo} does not hold, not even at {significant(min(tried, default=0.0))}/s."
    if capacity.rate_per_s is None:
        return (
            f"INVALID: {len(tried)} probes, up to {significant(max(tried))}/s, did not settle where {slo} "
            "holds. Lengthen --longest-probe, or search when the machine is quiet."
        )
    edge, low, high = (significant(at or 0.0) for at in (capacity.edge_per_s, capacity.low, capacity.high))
    return (
        f"VALID: {significant(capacity.rate_per_s)} requests/s hold {slo}. "
        f"It is just met at {edge}/s (95 %: {low} to {high}; {len(capacity.probes)} probes)."
    )


@dataclass(slots=True)
class Hunt:
    """Every configuration, batch and protocol in turn; each probe is a trial in the run folder."""

    spec: SweepSpec
    slo: Slo
    target: Opened
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
            replace(cell, load=load), served, min(max(wanted_s, _LEAST_PROBE_S), self.longest_s)
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
