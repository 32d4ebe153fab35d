"""Search the capacity of every configuration, batch and protocol; each probe is a trial in the run folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from bench.analysis.checks import findings_of
from bench.analysis.slo import Holds, judge
from bench.analysis.summary import in_order_ns, measured_requests, throughput_req_per_s, with_latency
from bench.core.cell import Cell
from bench.core.files import write_json
from bench.core.findings import Severity
from bench.core.run_folder import SEARCH_FILE
from bench.core.slo import Slo
from bench.core.spec import PlannedTrial, settings
from bench.core.trial import Trial
from bench.experiments.progress import Say
from bench.experiments.search.algorithm import (
    OUTCOMES,
    Capacity,
    Length,
    Probe,
    find_capacity,
    round_rate,
    table,
)
from bench.experiments.trial_runner import NotMeasured, TrialRunner

# The search starts at this share of what a closed loop serves with one request per instance in flight.
_START = 0.3
# A probe takes at least this long, however high its rate is.
LEAST_PROBE_S = 2.0


@dataclass(slots=True)
class SearchRunner:
    """`longest_s`: of a probe. `answers`: a name and the capacity found, in the order of the searches.

    search.json is written after each answer, so that nothing that ends the run loses one.
    """

    runner: TrialRunner
    slo: Slo
    longest_s: float
    say: Say
    answers: list[tuple[str, Capacity]] = field(default_factory=list)
    _probes: list[Probe] = field(default_factory=list)  # of the search under way

    def run(self) -> None:
        """Search one cell after the other; what cannot be measured is an answer that names the failure.

        An interrupt, or a target that is gone (Unreachable, ServerStartFailed), is written down as the
        failure of the search under way, and raised.
        """
        for cell in self._cells():
            self._probes = []
            try:
                capacity = self._capacity(cell)
            except NotMeasured as error:
                capacity = self._failed(str(error))
            except BaseException as error:
                self._keep(cell, self._failed(str(error) or "The search was interrupted."))
                raise
            self._keep(cell, capacity)
        self.runner.folder.finish()

    def _cells(self) -> Iterator[Cell]:
        """One closed-loop cell per search; its probes change the load."""
        for server in self.runner.spec.configurations():
            in_flight = (server.instances or 1) * (server.replicas or 1)
            for load in self.runner.spec.loads():
                yield Cell(server=server, load=replace(load, concurrency=in_flight))

    def _keep(self, cell: Cell, capacity: Capacity) -> None:
        self.answers.append((name_of(cell), capacity))
        write_json(self.runner.folder.path / SEARCH_FILE, table(self.answers))

    def _failed(self, reason: str) -> Capacity:
        return Capacity(None, tuple(self._probes), failure=reason)

    def _capacity(self, cell: Cell) -> Capacity:
        trial = self._measure(cell, self.runner.spec.duration_s)
        start = round_rate(max(_START * throughput_req_per_s(trial), 0.1))
        return find_capacity(
            lambda rate, length: self._probe(cell, rate, length), start, self.slo, self.longest_s
        )

    def _probe(self, cell: Cell, rate: float, length: Length) -> Probe:
        load = replace(cell.load, concurrency=None, rate_per_s=rate)
        seconds = max(length.requests / rate, LEAST_PROBE_S)
        warmup_s = max(length.warmup / rate, self.runner.spec.warmup_s)
        trial = self._measure(replace(cell, load=load), seconds, warmup_s)
        due = measured_requests(trial)
        in_order = in_order_ns(with_latency(due))
        outcome, why, seen = judge(in_order, len(due.failed()), len(due), self.slo, rate)
        findings = findings_of(trial)
        outcome, why = steady(outcome, why, {one.code for one in findings})
        self.say(f"  {rate:g}/s {OUTCOMES[outcome]}: {why}")
        codes = (finding.code for finding in findings if finding.severity is Severity.INVALID)
        probe = Probe(rate, outcome, why, seen, tuple(codes))
        self._probes.append(probe)
        return probe

    def _measure(self, cell: Cell, duration_s: float, warmup_s: float | None = None) -> Trial:
        """One trial more of a cell; repeated on the new server when the server died during it."""
        repeat = next(i for i in range(1000) if not self.runner.folder.has_trial(cell.key, i))
        while True:
            try:
                return self.runner.measure(PlannedTrial(cell, repeat), duration_s, warmup_s)
            except NotMeasured as error:
                if not error.may_repeat:
                    self.runner.fail((cell,), str(error))
                    raise
                self.say(f"  {error}")


def steady(outcome: Holds, why: str, codes: Collection[str]) -> tuple[Holds, str]:
    """The outcome of a probe whose window was not steady: what holds now need not hold later.

    A queue that grew through the window is a miss; a window that was unsteady proves nothing.
    """
    if outcome is not Holds.NO and "saturated" in codes:
        return Holds.NO, f"{why}, and the queue kept growing"
    if outcome is Holds.YES and "unsteady" in codes:
        return Holds.LIKELY, f"{why}, but it was not steady"
    return outcome, why


def name_of(cell: Cell) -> str:
    """What a search is about, in words, without its rate; different for different cells."""
    count = cell.server.instances
    instances = "" if count is None else f", {count} instance{'s' * (count != 1)}"
    pods = "" if cell.server.replicas is None else f", {cell.server.replicas} pods"
    via = "" if cell.load.via is None else f" via {cell.load.via}"
    name = f"{cell.server.model}, batch {cell.load.batch}{pods}{instances}, {cell.load.protocol}{via}"
    return ", ".join([name, *settings(cell)])
