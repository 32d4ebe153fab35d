"""`bench sweep`: from flags to a run folder and the exit code it deserves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from bench.analysis.cell_row import CellRow
from bench.cli.power_plan import about, power_plan
from bench.cli.progress import ConsoleProgress
from bench.cli.spec import sweep_spec
from bench.cli.targets import check_workers, in_cluster_of, provider_of
from bench.cli.values import Values
from bench.cli.verbs import ab_test
from bench.cluster.jobs import remote_sweep
from bench.core.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_OK,
    BenchError,
    DeadlineReached,
)
from bench.core.run_folder import RunFolder
from bench.core.spec import SweepSpec, describe
from bench.core.units import plural
from bench.experiments.preconditions import check_before, check_ceiling
from bench.experiments.run_setup import Output, claimed, output_of, refuse_occupied
from bench.experiments.sweep import Sweep
from bench.experiments.sweep_request import SweepRequest, prepared
from bench.report.exports import cells_as_json
from bench.report.publish import TALK, publish
from bench.server.provider import Provider

_LOAD_S = 3.0  # A model load takes about so long; for estimates.


def run(values: Values) -> int:
    """`bench sweep`. Raises WrongUse with all mistakes before anything starts."""
    if any(values.has(name) for name in ("against", "variant", "fail_if", "anyway")):
        return ab_test.run(values)
    spec, provider = checked(values)
    if values["dry_run"]:
        return _dry_run(values, spec, provider)
    output = output_for(values, spec.model)
    inside = in_cluster_of(values, spec, provider)
    if inside is not None:
        say = partial(TALK.print, markup=False)
        with claimed(output, say):
            folder = remote_sweep.measured(inside, values.command, output.path, say)
            return conclude(folder, as_json=values["as_json"])
    request = request_of(values, spec, output)
    with ConsoleProgress() as progress, prepared(request, provider, progress, progress.say) as experiment:
        return measure(experiment, progress, as_json=values["as_json"])


def checked(values: Values) -> tuple[SweepSpec, Provider]:
    """What is to be measured, and where. Raises WrongUse with every mistake; nothing is started."""
    spec = sweep_spec(values)
    provider = provider_of(values, spec)
    check_workers(values, spec)
    check_before(provider, spec, values.mistakes)
    if values["ceiling"]:
        check_ceiling(provider, spec, values.mistakes)
    if values["confirm"] and not spec.confirms(True):
        few = len(spec.cells()) < 2
        values.wrong("confirm", "there is one cell, so nothing is picked" if few else "needs --repeats 3")
    values.mistakes.check()
    return spec, provider


def request_of(values: Values, spec: SweepSpec, output: Output) -> SweepRequest:
    """The sweep that was asked for, without its target."""
    return SweepRequest(
        spec=spec,
        output=output,
        slo=values.text("slo"),
        ceiling=values["ceiling"],
        confirm=values.texts.get("confirm"),
        deadline_s=values["deadline"],
        perf_analyzer=values["perf_analyzer"],
        locust_master=values["locust_master"],
        command=values.command,
    )


def measure(experiment: Sweep, progress: ConsoleProgress, *, as_json: bool) -> int:
    """Runs it, reports what was measured however it ends, and gives the exit code."""
    folder = experiment.runner.folder
    try:
        experiment.run()
    except KeyboardInterrupt:
        progress.__exit__()
        TALK.print("Interrupted: reporting what was measured; --resume goes on from here.")
        conclude(folder, as_json=as_json)
        return EXIT_INTERRUPTED
    except DeadlineReached as error:
        progress.__exit__()
        TALK.print(f"{error} This is a report of what was measured.")
        conclude(folder, as_json=as_json)
        return error.exit_code
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
        print(json.dumps(cells_as_json(rows, folder.record), indent=1, default=str))
    return exit_code(rows, folder.record.slo)


def exit_code(rows: Sequence[CellRow], slo: str = "") -> int:
    """3 for anything INVALID, missing, undecided, or with too many errors; 1 when every cell is proved to
    miss the SLO."""
    if not rows or any(row.verdict != "VALID" for row in rows):
        return EXIT_INCONCLUSIVE
    met = {row.slo_met for row in rows}
    if slo and met == {False}:
        return EXIT_MISSED
    if any(row.fails_too_often for row in rows):
        return EXIT_INCONCLUSIVE
    return EXIT_OK if not slo or True in met else EXIT_INCONCLUSIVE


def output_for(values: Values, base: str) -> Output:
    """The run's folder, refused before anything starts when it holds something else."""
    can_resume = "resume" in values.options
    output = output_of(
        values["name"], values["out"], base, force=values["force"], resume=can_resume and values["resume"]
    )
    refuse_occupied(output, can_resume=can_resume)
    return output


def _dry_run(values: Values, spec: SweepSpec, provider: Provider) -> int:
    cells, loads, trials = spec.cells(), spec.model_loads(), len(spec.trials())
    confirm = spec.confirms(values.texts.get("confirm"))
    fresh_s = spec.repeats * spec.trial_s() + _LOAD_S if confirm else 0.0
    minutes = (spec.estimate_s(_LOAD_S) + fresh_s) / 60
    plans = power_plan(spec, assumed=values["assume_spread"], detect=values["detect"])
    if values["as_json"]:
        said = {"cells": [describe(cell) for cell in cells], "model_loads": loads, "trials": trials}
        print(json.dumps({**said, "minutes": minutes, "power": [plan.record for plan in plans]}, indent=1))
        return EXIT_OK
    for cell in cells:
        print(describe(cell))
    counts = (plural(len(cells), "cell"), plural(loads, "model load"), plural(trials, "trial"))
    print(f"{', '.join(counts)}, about {minutes:.1f} min; {spec.windows()}; {spec.errors_rule()}")
    if confirm:
        print(
            f"Includes {plural(spec.repeats, 'fresh trial')} of the best cell; --no-confirm leaves them out."
        )
    if values["deadline"] < spec.estimate_s(_LOAD_S):
        print("The --deadline comes before that: what is not measured by then is left to --resume.")
    if provider.cost:
        print(provider.cost)
    print(about(spec), *plans, sep="\n")
    return EXIT_OK
