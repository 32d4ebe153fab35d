"""`bench tune`: from flags to the settings to deploy. Every measurement is a trial in the run folder."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cli.progress import ConsoleProgress
from bench.cli.spec import sweep_spec
from bench.cli.targets import provider_of
from bench.cli.values import Values
from bench.cli.verbs.sweep import output_for
from bench.core.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_OK,
)
from bench.core.files import write_json
from bench.core.run_folder import TUNE_DEPLOY_FILES, TUNE_FILE
from bench.core.scratch import folder as temporary_folder
from bench.core.slo import Slo
from bench.core.spec import SweepSpec
from bench.core.units import duration, parse_duration_s
from bench.experiments.preconditions import check_before, check_open
from bench.experiments.run_setup import claimed, new_folder
from bench.experiments.trial_runner import TrialRunner
from bench.experiments.tune import answer
from bench.experiments.tune.algorithm import MOST_REPEATS, default_budget, tune
from bench.experiments.tune.history import QUEUE_DELAY, Tuned, Value
from bench.experiments.tune.runner import TuneRunner
from bench.experiments.tune.space import ELSEWHERE, USERS, check, instances_for, space_of, with_defaults
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import publish
from bench.sensors import nvml

# Estimates of time count so much for a model load.
_LOAD_S = 3.0


def run(values: Values) -> int:
    """Raises WrongUse with all mistakes before anything starts."""
    # The SLO judges the errors of a point.
    spec = replace(sweep_spec(values), repeats=MOST_REPEATS, max_error_fraction=1.0)
    if not (values.has("concurrency") or values.has("rate")):
        spec = replace(spec, concurrencies=USERS)
    slo = values["slo"] or Slo(((99.0, 10**9),))
    longest_s = values["longest_trial"] or 20.0
    trial_s = spec.trial_s() + _LOAD_S
    most = None
    if values.has("budget"):
        most = values.mistakes.read("--budget", values["budget"], lambda text: _budget(text, trial_s), None)
    asked = {name for name in ("instances", "max_batch", "max_queue_delay") if values.has(name)}
    provider = provider_of(values, spec)
    repository = provider.repository
    if repository is not None:
        cores = len(os.sched_getaffinity(0))
        config = repository.config(spec.model)
        spec = with_defaults(spec, asked, config, instances_for(cores, nvml.count()))
        check_before(provider, spec, values.mistakes)
    check(spec, values.mistakes)
    values.mistakes.check()
    if values["dry_run"]:
        return _dry_run(spec, most)
    output = output_for(values, f"{spec.model}-tune")
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder())
        progress = stack.enter_context(ConsoleProgress())
        stack.enter_context(claimed(output, progress.say))
        log = output.path / "tritonserver.log"
        session = stack.enter_context(provider.open(spec.model, progress.say, log))
        if repository is None:
            spec = with_defaults(spec, asked, session.serving.base(), ELSEWHERE)
            check_open(session, spec)
        folder = new_folder(output, spec, session, command=values.command, slo=values.text("slo"))
        engine = stack.enter_context(LocustEngine(log=output.path / "locust.log"))
        space = space_of(spec)
        runner = TrialRunner.on(session, spec, folder, engine, progress, scratch)
        tuning = TuneRunner(runner, space, slo, longest_s, progress.say)
        tuning.recall()
        result = tune(space, tuning.measure, bound_s=slo.latencies[-1][1] / 1e9, budget=most)
        progress.__exit__()
        return _end(tuning, result, as_json=values["as_json"])


def _budget(text: str, trial_s: float) -> int:
    """Measurements: so many, or as many as fit into a time."""
    if re.fullmatch("[0-9]{1,6}", text):
        count = int(text)
    else:
        try:
            count = math.floor(parse_duration_s(text) / trial_s)
        except ValueError:
            raise ValueError("give a number of measurements, or a time such as 10m") from None
    if count < 3:
        raise ValueError(f"is room for {count} measurements (about {trial_s:.0f} s each); give at least 3")
    return count


def _dry_run(spec: SweepSpec, most: int | None) -> int:
    space = space_of(spec)
    for name, values in space.axes:
        print(f"{name}: {', '.join(_value(name, value) for value in values)}")
    print(f"{'requests/s' if space.is_open_loop else 'users'}: {', '.join(f'{n:g}' for n in space.levels)}")
    count = default_budget(space) if most is None else most
    minutes = count * (spec.trial_s() + _LOAD_S) / 60
    print(f"{space.cells} cells in the grid; at most {count} measurements, about {minutes:.1f} min")
    print(spec.windows())
    return EXIT_OK


def _value(name: str, value: Value) -> str:
    if value is None:
        return "as served"
    if name != QUEUE_DELAY:
        return str(value)
    return "off" if value == -1 else duration(int(value) * 1e3) if value else "0"


def _end(tuning: TuneRunner, result: Tuned, *, as_json: bool) -> int:
    folder = tuning.runner.folder
    files = tuning.files(result.best) if result.best else {}
    table = answer.table(tuning.space, result, folder.record.slo, **files)
    write_json(folder.path / TUNE_FILE, table)
    for name, key in TUNE_DEPLOY_FILES.items():
        if key in files:
            (folder.path / name).write_text(files[key])
    if not tuning.is_interrupted:
        folder.finish()
    publish(folder, as_json=as_json)
    if as_json:
        print(json.dumps(table, indent=1))
    else:
        _say(folder.path, table)
    if tuning.is_interrupted:
        return EXIT_INTERRUPTED
    if result.best is None:
        return EXIT_MISSED
    return EXIT_OK if result.proved else EXIT_INCONCLUSIVE


def _say(path: Path, result: Mapping[str, Any]) -> None:
    out = Console(highlight=False)
    for line in result["answer"]:
        out.print(line, soft_wrap=True, markup=False)
    if not result["best"]:
        return
    out.print(f"\n# {path / 'config.pbtxt'}", soft_wrap=True, markup=False)
    out.print(result["config_pbtxt"], soft_wrap=True, markup=False)
    out.print(f"# kubectl apply -f {path / 'configmap.yaml'} && kubectl patch mlservice NAME --type json "
              f"--patch-file {path / 'mlservice-patch.yaml'}", soft_wrap=True, markup=False)  # fmt: skip
    out.print(result["mlservice_patch"], soft_wrap=True, markup=False)
