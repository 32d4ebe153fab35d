"""`bench sweep --against` and `--variant`: measured interleaved, then judged.

reports/<name>/<variant>/  a run folder each
reports/<name>/report.html, compare.html  all of them laid over each other; the verdicts
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.analysis.comparison import Comparison, compare, exit_code
from bench.analysis.results import RunResults
from bench.cli.power_plan import GatePlan, about, power_plan
from bench.cli.progress import ConsoleProgress
from bench.cli.spec import sweep_spec
from bench.cli.targets import repository_of, server_of
from bench.cli.values import Values
from bench.cli.variants import applied, inherited, variants_of
from bench.core.errors import EXIT_INTERRUPTED, EXIT_OK, DeadlineReached, RunFolderError, worst
from bench.core.run_folder import RunFolder, refuse_unwritable
from bench.core.run_lock import locked
from bench.core.scratch import folder as temporary_folder
from bench.core.spec import Reload, SweepSpec, describe
from bench.core.variant import Variant
from bench.experiments.ab_test.participants import (
    ComparisonRequest,
    Participant,
    measure_interleaved,
    participants_of,
)
from bench.experiments.ab_test.variants import BASE, check_version, refuse_foreign
from bench.experiments.engines import tool_for
from bench.experiments.preconditions import check_before
from bench.experiments.run_setup import Output, claimed, new_folder, output_of
from bench.experiments.sweep import Sweep
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.engine import Engines, Setup
from bench.loadgen.perf_analyzer.install import PerfAnalyzer
from bench.report import page
from bench.report.comparison import render
from bench.report.publish import TALK, list_in_index, write_files
from bench.server.session import Say


def run(typed: Values) -> int:
    """Raises WrongUse with all mistakes before anything starts."""
    base = _run_at(typed["against"]) if typed["against"] else None
    values = inherited(typed, base.record) if base else typed
    variants = variants_of(values)
    specs = {variant: _spec(values, variant) for variant in variants}
    values.mistakes.check()
    plans = _power(values, specs, base)
    if values["dry_run"]:
        return _dry_run(specs, plans, as_json=values["as_json"])
    output = _output(values, specs)
    request = ComparisonRequest(
        specs=specs,
        output=output,
        slo=values.text("slo"),
        gates=values["fail_if"],
        base=base,
        anyway=values["anyway"],
        command=values.command,
    )
    path, provider, began_s = output.path, server_of(values), time.monotonic()
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder())
        progress = stack.enter_context(ConsoleProgress())
        _claim(request, progress.say, stack)
        model, log = next(iter(specs.values())).model, path / "tritonserver.log"
        session = stack.enter_context(provider.open(model, progress.say, log))
        say = partial(TALK.print, soft_wrap=True, markup=False)
        for sentence in (about(next(iter(specs.values())), is_interleaved=True), *plans):
            say(str(sentence))
        participants = stack.enter_context(participants_of(request, session, say))
        folders = [_folder(request, one, participants) for one in participants]
        tool = tool_for([one.spec for one in participants], values["perf_analyzer"])
        ends_at_s = began_s + values["deadline"]
        unfinished = _measure(ends_at_s, participants, folders, path, scratch, progress, stack, tool)
        progress.__exit__()
        results = [RunResults.of(folder) for folder in folders]
        for run_results in results:
            write_files(run_results)
        if unfinished:
            list_in_index(path)
            return unfinished
        return _judge(request, results, as_json=values["as_json"])


def _run_at(path: Path) -> RunFolder:
    inside = sorted(found.parent.name for found in path.glob("*/run.json"))
    if inside and not (path / "run.json").exists():
        raise RunFolderError(f"--against {path} holds several runs: name one of {', '.join(inside)} in it.")
    return RunFolder.open(path)


def _spec(values: Values, variant: Variant) -> SweepSpec:
    changed = applied(values, variant)
    spec = sweep_spec(changed)
    check_before(server_of(changed), spec, values.mistakes)
    if not values.has("url"):
        if not values.has("reload"):  # the server is ours: no cost but time
            spec = replace(spec, reload=Reload.REPEAT)
        check_version(spec.model, variant, repository_of(values), values.mistakes)
    return spec


def _power(values: Values, specs: Mapping[Variant, SweepSpec], base: RunFolder | None) -> list[GatePlan]:
    """What the comparison would see of a variant, from the spread of the base where there is one."""
    return power_plan(
        next(iter(specs.values())),
        values["fail_if"],
        is_interleaved=True,
        base=RunResults.of(base) if base and values["assume_spread"] is None else None,
        assumed=values["assume_spread"],
        detect=values["detect"],
    )


def _dry_run(specs: Mapping[Variant, SweepSpec], plans: Sequence[GatePlan], *, as_json: bool) -> int:
    cells = [f"{variant.name}: {describe(cell)}" for variant, spec in specs.items() for cell in spec.cells()]
    trials = sum(len(spec.trials()) for spec in specs.values())
    minutes = sum(len(spec.trials()) * spec.trial_s() for spec in specs.values()) / 60
    first = next(iter(specs.values()))
    if as_json:
        said = {"cells": cells, "trials": trials, "minutes": minutes, "reload": first.reload}
        print(json.dumps({**said, "power": [plan.record for plan in plans]}, indent=1))
        return EXIT_OK
    loads = {
        Reload.REPEAT: "a model load for each repeat",
        Reload.NEVER: "a model load where another variant had the model",
    }
    print(*cells, sep="\n")
    print(f"{trials} trials, about {minutes:.1f} min, and {loads[first.reload]}")
    print(first.windows())
    print(about(first, is_interleaved=True), *plans, sep="\n")
    return EXIT_OK


def _output(values: Values, specs: Mapping[Variant, SweepSpec]) -> Output:
    """The folder of all, refused before anything starts when it holds something else."""
    output = output_of(
        values["name"], values["out"], next(iter(specs.values())).model,
        force=values["force"], resume=values["resume"],
    )  # fmt: skip
    path = output.path
    refuse_unwritable(path)
    foreign = refuse_foreign(path, [BASE, *(variant.name for variant in specs)])
    if foreign:
        raise RunFolderError(f"--out {path} holds something else ({', '.join(foreign)}): choose another.")
    held = [v.name for v in specs if (path / v.name / "run.json").exists()]
    if held and not (output.force or output.resume):
        raise RunFolderError(
            f"--out {path} already holds {', '.join(held)}: choose another --name or --out, --resume to go "
            "on with them, or --force to replace them."
        )
    if output.resume and not held:
        raise RunFolderError(
            f"--resume: {path} holds no runs of these variants to go on with; --name or --out says which."
        )
    return output


def _claim(request: ComparisonRequest, say: Say, stack: ExitStack) -> None:
    """Lock the folder of all and those of the runs in it, and make runs that are resumed ready."""
    output = request.output
    stack.enter_context(locked(output.path))
    for name in dict.fromkeys([BASE, *(variant.name for variant in request.specs)]):
        path = output.path / name
        if (path / "run.json").exists():
            stack.enter_context(claimed(Output(path, output.force, output.resume), say))


def _folder(request: ComparisonRequest, one: Participant, all_of_them: Sequence[Participant]) -> RunFolder:
    output = request.output
    also = {"variant": {"name": one.variant.name, "settings": [list(s) for s in one.variant.settings]}}
    interleaved = {"turns": output.path.name} if len(all_of_them) > 1 else {}
    path = output.path / one.variant.name
    resume = output.resume and (path / "run.json").exists()
    return new_folder(
        Output(path, output.force, resume), one.spec, one.session, command=request.command, slo=request.slo,
        planned=one.spec.cells(), also={**also, **interleaved},
    )  # fmt: skip


def _measure(
    ends_at_s: float,
    participants: Sequence[Participant],
    folders: Sequence[RunFolder],
    path: Path,
    scratch: Path,
    progress: ConsoleProgress,
    stack: ExitStack,
    tool: PerfAnalyzer | None,
) -> int:
    """The exit code of what ended it before everything was measured; 0: nothing did."""
    names = [name for participant in participants for name in participant.spec.engines]
    engine = stack.enter_context(Engines(names, Setup(scratch=scratch, log=path / "locust.log", tool=tool)))
    sweeps = [
        Sweep(
            TrialRunner.on(
                participant.session,
                participant.spec,
                folder,
                engine,
                progress,
                scratch / participant.variant.name,  # answers of other weights have the same name
            ),
            leaves_out=False,
        )
        for participant, folder in zip(participants, folders, strict=True)
    ]
    for sweep in sweeps:
        sweep.runner.ends_at_s = ends_at_s
    try:
        measure_interleaved(sweeps)
    except KeyboardInterrupt:
        progress.__exit__()
        TALK.print("Interrupted: what was measured is saved; --resume goes on from here.")
        return EXIT_INTERRUPTED
    except DeadlineReached as error:
        progress.__exit__()
        TALK.print(str(error))
        return error.exit_code
    return EXIT_OK


def _judge(request: ComparisonRequest, results: Sequence[RunResults], *, as_json: bool) -> int:
    """Each against the base, or the first; the worst verdict is the command's."""
    was_served_again = results[0].folder.path.name == BASE
    base = RunResults.of(request.base) if request.base and not was_served_again else results[0]
    others = [run for run in results if run.folder.path != base.folder.path]
    found = [compare(base, new, request.gates, force=True, variants=True) for new in others]
    form = "json" if as_json else "table"
    print("\n\n".join(render(comparison, form) for comparison in found))
    _write(request.output.path, [base, *others], found)
    list_in_index(request.output.path)
    return worst([exit_code(comparison) for comparison in found])


def _write(path: Path, runs: Sequence[RunResults], found: Sequence[Comparison]) -> None:
    (path / "report.html").write_text(page.render(runs), encoding="utf-8")
    for comparison in found:
        name = "compare.html" if len(found) == 1 else f"compare-{comparison.new.name}.html"
        (path / name).write_text(render(comparison, "html"), encoding="utf-8")
        TALK.print(f"comparison: {path / name}", soft_wrap=True)
    TALK.print(f"report: {path / 'report.html'}", soft_wrap=True)
