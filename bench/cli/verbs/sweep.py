"""`bench sweep`: from flags to a run folder and the exit code it deserves."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.analysis.ceiling import CEILING_FILE
from bench.analysis.cell_row import CellRow
from bench.cli.flags import sweep_spec
from bench.cli.progress import ConsoleProgress
from bench.cli.verbs import ceiling as ceiling_verb
from bench.cli.worker_flags import crew_of
from bench.cluster.jobs import remote_sweep
from bench.cluster.session import Place, cost, opened_at, place_of
from bench.core.cell import Cell, Engine
from bench.core.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_OK,
    BenchError,
    RunFolderError,
    WrongUse,
)
from bench.core.mistakes import Mistakes
from bench.core.run_folder import (
    SEARCH_FILE,
    TUNE_DEPLOY_FILES,
    TUNE_FILE,
    RunFolder,
    RunRecord,
    refuse_foreign,
    utc_now,
    without_secrets,
)
from bench.core.slo import parse_slo
from bench.core.spec import SweepSpec, describe
from bench.core.target import Target
from bench.core.units import plural
from bench.experiments.preconditions import Host, check_against, check_parameters, refuse_variants
from bench.experiments.sweep import Sweep
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.engine import Engines, Setup
from bench.loadgen.perf_analyzer.install import find
from bench.protocols.routes import missing_route
from bench.report.publish import REPORTS, TALK, publish
from bench.sensors import environment
from bench.server import model_config
from bench.server.session import SHIPPED, Opened, models_of, repository_of

_LOAD_S = 3.0  # of a model, for estimates
# Of a run, whatever verb measured it; the record last, so that what is left of it stays a run.
_MADE = (
    *("trials", "cells.csv", "report.html"),
    *(CEILING_FILE, SEARCH_FILE, TUNE_FILE, *TUNE_DEPLOY_FILES),
    "run.json",
)
_LONGEST_NAME = 200  # file systems take 255 bytes


def sweep(given: Mapping[str, Any], command: Sequence[str]) -> int:
    """`bench sweep`. All mistakes are raised before anything starts."""
    flags = Mistakes()
    spec = sweep_spec(given, flags)
    slo, crew = slo_of(given, flags), crew_of(given, spec, flags)
    remote = place_of(given, spec, flags)
    if remote is None:
        check_embedded(given, spec, flags)
    ceiling_verb.check(given, remote, flags)
    flags.check()
    if given["dry_run"]:
        return _dry_run(spec, remote)
    path = out_folder(given, spec.model)
    if given.get("in_cluster"):
        folder = remote_sweep.measured(given, remote, spec, command, path, partial(TALK.print, markup=False))
        return conclude(folder, as_json=given["as_json"])
    tool = find(given.get("perf_analyzer")) if Engine.PERF_ANALYZER in spec.engines else None
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, ExitStack() as stack:
        progress = stack.enter_context(ConsoleProgress())
        bare = ceiling_verb.before_sweep(given, spec, progress.say)
        target = stack.enter_context(opened_at(given, remote, progress.say, path / "tritonserver.log"))
        if remote is not None:
            check_remote(target, spec, flags)
        folder = new_folder(path, given, spec, command, target, slo, planned=spec.cells())
        ceiling_verb.keep(bare, folder)
        setup = Setup(scratch=Path(scratch), log=folder.path / "locust.log", worker_pool=crew, tool=tool)
        engine = stack.enter_context(Engines(spec.engines, setup))
        return _run(spec, target, folder, Path(scratch), progress, engine, as_json=given["as_json"])


def _run(
    spec: SweepSpec,
    target: Opened,
    folder: RunFolder,
    scratch: Path,
    progress: ConsoleProgress,
    engine: Engines,
    *,
    as_json: bool,
) -> int:
    runner = TrialRunner.on(target, spec, folder, engine, progress, scratch)
    try:
        Sweep(runner).run()
    except KeyboardInterrupt:
        progress.__exit__()
        TALK.print("Interrupted: reporting what was measured; --resume goes on from here.")
        conclude(folder, as_json=as_json)
        return EXIT_INTERRUPTED
    except BenchError:
        progress.__exit__()
        TALK.print(f"What was measured is in {folder.path}: `bench report` shows it, --resume goes on.")
        raise
    progress.__exit__()
    return conclude(folder, as_json=as_json)


def conclude(folder: RunFolder, *, as_json: bool) -> int:
    """Everything a run ends with, and the exit code its cells deserve."""
    rows = publish(folder, as_json=as_json).rows
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1, default=str))
    return exit_code(rows, folder.record.slo)


def exit_code(rows: Sequence[CellRow], slo: str = "") -> int:
    """3 for anything INVALID, missing, or undecided; 1 when every cell is proved to miss the SLO."""
    if not rows or any(row.verdict != "VALID" for row in rows):
        return EXIT_INCONCLUSIVE
    met = {row.slo_met for row in rows}
    if not slo or True in met:
        return EXIT_OK
    return EXIT_INCONCLUSIVE if None in met else EXIT_MISSED


def slo_of(given: Mapping[str, Any], flags: Mistakes) -> str:
    text: str = given.get("slo") or ""
    if text:
        flags.read("--slo", text, parse_slo, None)
    return text


def check_embedded(given: Mapping[str, Any], spec: SweepSpec, flags: Mistakes) -> None:
    """Without starting anything: the repository on disk tells."""
    known = models_of(repository_of(given))
    limit = None
    if spec.model in known:
        config = model_config.read(repository_of(given) / spec.model / "config.pbtxt")
        limit = int(config.get("max_batch_size", 0))
        is_theirs = repository_of(given) != SHIPPED
        check_parameters(spec, model_config.served(config).parameters, flags, may_read_others=is_theirs)
        refuse_variants(spec, config, flags, Host.here())
    check_against(spec, known or (f"no model ({repository_of(given)} has none)",), limit, flags)


def check_remote(target: Opened, spec: SweepSpec, flags: Mistakes) -> None:
    check_against(spec, target.triton.models(), None, flags)
    flags.check()
    served = model_config.served(target.serving.base())
    check_against(spec, (), served.max_batch, flags)
    check_parameters(spec, served.parameters, flags, may_read_others=True)
    refuse_variants(spec, target.serving.base(), flags, None)
    for protocol in spec.protocols:
        if missing := missing_route(target.target, protocol, spec.vias):
            flags.wrong("--protocol", protocol, missing)
    flags.check()


def _dry_run(spec: SweepSpec, place: Target | Place | None) -> int:
    cells = spec.cells()
    for cell in cells:
        print(describe(cell))
    loads, trials = len(spec.configurations()), len(spec.trials())
    minutes = spec.estimate_s(_LOAD_S) / 60
    counts = (plural(len(cells), "cell"), plural(loads, "model load"), plural(trials, "trial"))
    print(f"{', '.join(counts)}, about {minutes:.1f} min")
    if isinstance(place, Place) and place.specs:
        print(cost(place))
    return EXIT_OK


def out_folder(given: Mapping[str, Any], base: str) -> Path:
    """The run's folder, refused before anything starts when it holds something else."""
    name = given.get("name") or f"{base}-{time.strftime('%Y%m%d-%H%M%S')}"
    refuse_name(name)
    path: Path = given.get("out") or Path(REPORTS) / name
    if given["force"] and given["resume"]:
        raise WrongUse(["--force --resume: replace the run, or go on with it; not both"])
    if (path / "run.json").exists() and not (given["force"] or given["resume"]):
        go_on = "" if given["resume"] is None else "--resume to go on with it, "  # a search cannot
        raise RunFolderError(
            f"--out {path} already holds a run: choose another --name or --out, {go_on}"
            "or --force to replace it."
        )
    if given["resume"] and not (path / "run.json").exists():
        raise RunFolderError(f"--resume: {path} holds no run to go on with; --name or --out says which.")
    refuse_foreign(path)
    return path


def refuse_name(name: str) -> None:
    if Path(name).name != name or name == "..":
        raise WrongUse([f"--name {name}: give a name, not a path; --out takes a path"])
    if len(name.encode()) > _LONGEST_NAME:
        raise WrongUse([f"--name {name}: too long; allowed: {_LONGEST_NAME} bytes"])


def new_folder(
    path: Path,
    given: Mapping[str, Any],
    spec: SweepSpec,
    command: Sequence[str],
    target: Opened,
    slo: str,
    *,
    planned: tuple[Cell, ...],
    also: Mapping[str, Any] | None = None,
) -> RunFolder:
    record = RunRecord(
        name=path.name,
        created_at=utc_now(),
        command=tuple(without_secrets(command)),
        seed=spec.seed,
        spec={**json.loads(json.dumps(asdict(spec))), **(also or {})},
        machine=environment.machine(),
        versions={
            **environment.versions(),
            "tritonserver": str(target.triton.server().get("version", "unknown")),
        },
        target=target.description,
        weights=target.weights,
        slo=slo,
        planned=planned,
    )
    if given["resume"]:
        return _resumed(RunFolder.open(path), record)
    if given["force"] and (path / "run.json").exists():
        for old in _MADE:
            _remove(path / old)
    return RunFolder.create(path, record)


def _resumed(folder: RunFolder, record: RunRecord) -> RunFolder:
    """The same question asked of the same machine; anything else is another run."""
    before = folder.record
    differing = [
        name
        for name in ("spec", "machine", "weights", "target", "slo")
        if getattr(before, name) != getattr(record, name)
    ]
    if differing:
        raise RunFolderError(
            f"--resume {folder.path}: differs from the run there in {', '.join(differing)}; "
            "give the flags it was started with, or another --name."
        )
    folder.write_record(replace(before, failed={}, finished_at=""))
    return folder


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
