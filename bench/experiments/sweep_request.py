"""A sweep as a frozen request, and the function that runs it. Nothing is printed, and there is no exit code.

request = SweepRequest(spec=SweepSpec(model="delay", batches=(1, 8), concurrencies=(4,)),
                       output=Output(Path("reports/mine")))
folder = run(request, EmbeddedProvider())
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.ceiling import write_ceiling
from bench.core import open_files
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunFolder
from bench.core.scratch import folder as temporary_folder
from bench.core.spec import SweepSpec
from bench.experiments.ceiling.measure import before_sweep
from bench.experiments.engines import tool_for, worker_pool
from bench.experiments.preconditions import check_before, check_open
from bench.experiments.progress import Progress, Silent
from bench.experiments.run_setup import Output, claimed, new_folder, refuse_occupied
from bench.experiments.sweep import Sweep
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.engine import Engines, Setup
from bench.server.provider import Provider
from bench.server.session import Say


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """Everything that a sweep is asked but where its target is."""

    spec: SweepSpec
    output: Output
    slo: str = ""  # as `bench.core.slo.parse_slo` reads it
    ceiling: bool = False  # measure the bare model first
    confirm: bool | None = None  # fresh trials of the best cell; None: where `SweepSpec.confirms` says so
    deadline_s: float = math.inf  # from its start on: the longest that it may take
    perf_analyzer: Path | None = None  # None: the one found here, where an engine needs it
    locust_master: tuple[str, int] | None = None  # where workers on other machines find us
    command: tuple[str, ...] = ()  # kept in the record, without secrets


def run(
    request: SweepRequest, provider: Provider, progress: Progress | None = None, say: Say = lambda _: None
) -> RunFolder:
    """Measures everything that is not in the folder yet.

    Raises WrongUse with every mistake and RunFolderError before anything starts, TargetError or ToolError
    when nothing more can be measured; KeyboardInterrupt passes through. What was measured stays.
    """
    mistakes = Mistakes()
    check_before(provider, request.spec, mistakes)
    mistakes.check()
    refuse_occupied(request.output)
    with prepared(request, provider, progress or Silent(), say) as sweep:
        sweep.run()
        return sweep.runner.folder


@contextmanager
def prepared(request: SweepRequest, provider: Provider, progress: Progress, say: Say) -> Iterator[Sweep]:
    """The sweep with its target open and its folder made; `run()` measures. All of it ends with the block."""
    began_s = time.monotonic()
    open_files.raise_limit()
    spec, path = request.spec, request.output.path
    tool = tool_for([spec], request.perf_analyzer)
    with temporary_folder() as scratch, ExitStack() as stack:
        stack.enter_context(claimed(request.output, say))
        repository = provider.repository
        bare = before_sweep(spec, repository, say) if request.ceiling and repository else None
        session = stack.enter_context(provider.open(spec.model, say, path / "tritonserver.log"))
        check_open(session, spec)
        run_folder = new_folder(
            request.output, spec, session, command=request.command, slo=request.slo, planned=spec.cells()
        )
        if bare is not None:
            write_ceiling(bare, run_folder)
        setup = Setup(
            scratch=scratch,
            log=run_folder.path / "locust.log",
            worker_pool=worker_pool(spec.workers, request.locust_master),
            tool=tool,
        )
        engine = stack.enter_context(Engines(spec.engines, setup))
        runner = TrialRunner.on(session, spec, run_folder, engine, progress, scratch)
        runner.ends_at_s = began_s + request.deadline_s
        yield Sweep(runner, confirm=spec.confirms(request.confirm))
