"""`bench tune`: from flags to the settings to deploy. Every measurement is a trial in the run folder."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cli.flags import sweep_spec
from bench.cli.progress import ConsoleProgress
from bench.cli.verbs.sweep import (
    check_embedded,
    check_remote,
    new_folder,
    out_folder,
)
from bench.cluster.session import opened_at, place_of
from bench.core.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_OK,
)
from bench.core.files import write_json
from bench.core.mistakes import Mistakes
from bench.core.run_folder import TUNE_DEPLOY_FILES, TUNE_FILE
from bench.core.slo import Slo, parse_slo
from bench.core.spec import SweepSpec
from bench.core.units import duration, parse_duration_s
from bench.experiments.trial_runner import TrialRunner
from bench.experiments.tune import answer
from bench.experiments.tune.algorithm import MOST_REPEATS, default_budget, tune
from bench.experiments.tune.history import QUEUE_DELAY, Tuned, Value
from bench.experiments.tune.runner import TuneRunner
from bench.experiments.tune.space import ELSEWHERE, USERS, check, instances_for, space_of, with_defaults
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import publish
from bench.sensors import nvml
from bench.server import model_config
from bench.server.session import models_of, repository_of

_LOAD_S = 3.0  # of a model, for estimates


def run(given: Mapping[str, Any], command: Sequence[str]) -> int:
    """All mistakes are raised before anything starts."""
    flags = Mistakes()
    users = "" if given["rate"] else USERS
    spec = sweep_spec(
        {**given, "concurrency": given["concurrency"] or users, "repeats": MOST_REPEATS, "quick": False},
        flags,
    )
    slo = flags.read("--slo", given["slo"], parse_slo, Slo(((99.0, 10**9),)))
    longest_s = flags.read("--longest-trial", given["longest_trial"], parse_duration_s, 20.0)
    budget = given["budget"] or ""
    trial_s = spec.trial_s() + _LOAD_S
    most = flags.read("--budget", budget, lambda text: _budget(text, trial_s), None) if budget else None
    remote = place_of(given, spec, flags)
    if remote is None:
        cores = len(os.sched_getaffinity(0))
        spec = with_defaults(spec, given, _config_on_disk(given), instances_for(cores, nvml.count()))
        check_embedded(given, spec, flags)
    check(spec, flags)
    flags.check()
    if given["dry_run"]:
        return _dry_run(spec, most)
    path = out_folder(given, f"{spec.model}-tune")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress = stack.enter_context(ConsoleProgress())
        target = stack.enter_context(opened_at(given, remote, progress.say, path / "tritonserver.log"))
        if remote is not None:
            spec = with_defaults(spec, given, target.serving.base(), ELSEWHERE)
            check_remote(target, spec, flags)
        folder = new_folder(path, given, spec, command, target, given["slo"], planned=())
        engine = stack.enter_context(LocustEngine(log=path / "locust.log"))
        space = space_of(spec)
        runner = TrialRunner.on(target, spec, folder, engine, progress, scratch)
        tuning = TuneRunner(runner, space, slo, longest_s, progress.say)
        tuning.recall()
        result = tune(space, tuning.measure, bound_s=slo.latencies[-1][1] / 1e9, budget=most)
        progress.__exit__()
        return _end(tuning, result, as_json=given["as_json"])


def _config_on_disk(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """{} for a model that is not there, which is a mistake reported elsewhere."""
    model, repository = given["model"], repository_of(given)
    return model_config.read(repository / model / "config.pbtxt") if model in models_of(repository) else {}


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
