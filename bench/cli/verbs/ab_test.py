"""`bench sweep --against` and `--variant`: measured in turns, then judged.

reports/<name>/<variant>/  a run folder each
reports/<name>/report.html, compare.html  all of them laid over each other; the verdicts
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.analysis.comparison import Comparison, compare, exit_code
from bench.analysis.results import RunResults
from bench.cli.flags import sweep_spec
from bench.cli.progress import ConsoleProgress
from bench.cli.verbs.sweep import (
    check_embedded,
    check_remote,
    new_folder,
    refuse_name,
    slo_of,
)
from bench.cluster.session import refuse_cluster
from bench.core.cell import Engine
from bench.core.errors import EXIT_INTERRUPTED, EXIT_OK, RunFolderError, WrongUse, worst
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunFolder, refuse_unwritable
from bench.core.spec import SweepSpec, describe
from bench.experiments.ab_test.participants import (
    Asked,
    Participant,
    measure_interleaved,
    participants_of,
)
from bench.experiments.ab_test.variants import (
    BASE,
    Variant,
    applied,
    check_settings,
    gates_of,
    inherited,
    refuse_foreign,
    variants_of,
)
from bench.experiments.sweep import Sweep
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.engine import Engines, Setup
from bench.loadgen.perf_analyzer.install import PerfAnalyzer, find
from bench.report import page
from bench.report.comparison import render
from bench.report.publish import REPORTS, TALK, list_in_index, write_files
from bench.server.session import opened, remote_target

# Not of what takes turns: who makes the load, and the bare model.
_NOT_IN_TURNS = ("workers", "locust_master", "in_cluster", "load_image", "load_account", "ceiling")


def run(typed: Mapping[str, Any], command: Sequence[str], explicit: Collection[str]) -> int:
    """All mistakes are raised before anything starts."""
    flags = Mistakes()
    base = None if typed["against"] is None else _run_at(typed["against"])
    given = inherited(typed, explicit, base.record) if base else dict(typed)
    variants = variants_of(given, flags)
    gates, slo, remote = gates_of(given, flags), slo_of(given, flags), remote_target(given, flags)
    refuse_cluster(given, "--against and --variant", flags)
    for name in _NOT_IN_TURNS:
        if given.get(name):
            said = "" if given[name] is True else str(given[name])
            flags.wrong(f"--{name.replace('_', '-')}", said, "goes without --against and --variant")
    specs = {variant: _spec(given, variant, flags, is_remote=remote is not None) for variant in variants}
    flags.mistakes = list(dict.fromkeys(flags.mistakes))
    flags.check()
    asked = Asked(given, command, slo, gates, base, remote)
    if given["dry_run"]:
        return _dry_run(specs)
    path = _parent(given, specs)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress = stack.enter_context(ConsoleProgress())
        first = {**given, "model": next(iter(specs.values())).model}
        target = stack.enter_context(opened(first, remote, progress.say, path / "tritonserver.log"))
        participants = stack.enter_context(participants_of(asked, specs, target, check_remote, _say))
        folders = [_folder(path, asked, participant, participants) for participant in participants]
        tool = find(given.get("perf_analyzer")) if _needs_perf_analyzer(participants) else None
        was_interrupted = _measure(participants, folders, path, scratch, progress, stack, tool)
        progress.__exit__()
        results = [RunResults.of(folder) for folder in folders]
        for run in results:
            write_files(run)
        if was_interrupted:
            list_in_index(path)
        return EXIT_INTERRUPTED if was_interrupted else _judge(asked, path, results)


def _say(text: str) -> None:
    TALK.print(text, soft_wrap=True, markup=False)


def _run_at(path: Path) -> RunFolder:
    inside = sorted(found.parent.name for found in path.glob("*/run.json"))
    if inside and not (path / "run.json").exists():
        raise RunFolderError(f"--against {path} holds several runs: name one of {', '.join(inside)} in it.")
    return RunFolder.open(path)


def _spec(given: Mapping[str, Any], variant: Variant, flags: Mistakes, *, is_remote: bool) -> SweepSpec:
    wanted = applied(given, variant)
    spec = sweep_spec(wanted, flags)
    if not is_remote:
        check_embedded(wanted, spec, flags)
        check_settings(wanted, variant, flags)
    return spec


def _dry_run(specs: Mapping[Variant, SweepSpec]) -> int:
    for variant, spec in specs.items():
        for cell in spec.cells():
            print(f"{variant.name}: {describe(cell)}")
    trials = sum(len(spec.trials()) for spec in specs.values())
    minutes = sum(len(spec.trials()) * spec.trial_s() for spec in specs.values()) / 60
    print(f"{trials} trials, about {minutes:.1f} min, and a model load a turn")
    return EXIT_OK


def _parent(given: Mapping[str, Any], specs: Mapping[Variant, SweepSpec]) -> Path:
    """The folder of all, refused before anything starts when it holds something else."""
    name = given["name"] or f"{next(iter(specs.values())).model}-{time.strftime('%Y%m%d-%H%M%S')}"
    refuse_name(name)
    if given["force"] and given["resume"]:
        raise WrongUse(["--force --resume: replace the runs, or go on with them; not both"])
    path: Path = given["out"] or Path(REPORTS) / name
    refuse_unwritable(path)
    foreign = refuse_foreign(path, [BASE, *(variant.name for variant in specs)])
    if foreign:
        raise RunFolderError(f"--out {path} holds something else ({', '.join(foreign)}): choose another.")
    held = [v.name for v in specs if (path / v.name / "run.json").exists()]
    if held and not (given["force"] or given["resume"]):
        raise RunFolderError(
            f"--out {path} already holds {', '.join(held)}: choose another --name or --out, --resume to go "
            "on with them, or --force to replace them."
        )
    if given["resume"] and not held:
        raise RunFolderError(
            f"--resume: {path} holds no runs of these variants to go on with; --name or --out says which."
        )
    return path


def _folder(
    path: Path, asked: Asked, participant: Participant, participants: Sequence[Participant]
) -> RunFolder:
    also = {
        "variant": {
            "name": participant.variant.name,
            "settings": [list(s) for s in participant.variant.settings],
        }
    }
    turns = {"turns": path.name} if len(participants) > 1 else {}
    place = path / participant.variant.name
    given = {**asked.given, "resume": asked.given["resume"] and (place / "run.json").exists()}
    return new_folder(
        place, given, participant.spec, asked.command, participant.target, asked.slo,
        planned=participant.spec.cells(), also={**also, **turns},
    )  # fmt: skip


def _needs_perf_analyzer(participants: Sequence[Participant]) -> bool:
    return any(Engine.PERF_ANALYZER in participant.spec.engines for participant in participants)


def _measure(
    participants: Sequence[Participant],
    folders: Sequence[RunFolder],
    path: Path,
    scratch: Path,
    progress: ConsoleProgress,
    stack: ExitStack,
    tool: PerfAnalyzer | None,
) -> bool:
    """Whether somebody pressed Ctrl-C."""
    names = [name for participant in participants for name in participant.spec.engines]
    engine = stack.enter_context(Engines(names, Setup(scratch=scratch, log=path / "locust.log", tool=tool)))
    sweeps = [
        Sweep(
            TrialRunner.on(
                participant.target,
                participant.spec,
                folder,
                engine,
                progress,
                scratch / participant.variant.name,  # answers of other weights have the same name
            )
        )
        for participant, folder in zip(participants, folders, strict=True)
    ]
    was_interrupted = True
    try:
        measure_interleaved(sweeps)
        was_interrupted = False
    except KeyboardInterrupt:
        progress.__exit__()
        TALK.print("Interrupted: what was measured is saved; --resume goes on from here.")
    return was_interrupted


def _judge(asked: Asked, path: Path, results: Sequence[RunResults]) -> int:
    """Each against the base, or the first; the worst verdict is the command's."""
    was_served_again = results[0].folder.path.name == BASE
    base = RunResults.of(asked.base) if asked.base and not was_served_again else results[0]
    others = [run for run in results if run.folder.path != base.folder.path]
    found = [compare(base, new, asked.gates, force=True, variants=True) for new in others]
    form = "json" if asked.given["as_json"] else "table"
    print("\n\n".join(render(comparison, form) for comparison in found))
    _write(path, [base, *others], found)
    list_in_index(path)
    return worst([exit_code(comparison) for comparison in found])


def _write(path: Path, runs: Sequence[RunResults], found: Sequence[Comparison]) -> None:
    (path / "report.html").write_text(page.render(runs), encoding="utf-8")
    for comparison in found:
        name = "compare.html" if len(found) == 1 else f"compare-{comparison.new.name}.html"
        (path / name).write_text(render(comparison, "html"), encoding="utf-8")
        TALK.print(f"comparison: {path / name}", soft_wrap=True)
    TALK.print(f"report: {path / 'report.html'}", soft_wrap=True)
