"""`bench search`: the highest Poisson rate that holds an SLO, for each configuration asked for."""

from __future__ import annotations

import json
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
from bench.cli.worker_flags import crew_of
from bench.cluster.session import opened_at, place_of
from bench.core.errors import (
    EXIT_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_OK,
    worst,
)
from bench.core.mistakes import Mistakes
from bench.core.slo import Slo, parse_slo
from bench.core.units import parse_duration_s, plural, significant
from bench.experiments.search.algorithm import Capacity, table
from bench.experiments.search.runner import LEAST_PROBE_S, SearchRunner
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import TALK, publish


def run(given: Mapping[str, Any], command: Sequence[str]) -> int:
    """All mistakes are raised before anything starts."""
    flags = Mistakes()
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
        runner = TrialRunner.on(target, spec, folder, engine, progress, scratch)
        searches = SearchRunner(runner, slo, longest_s, progress.say)
        code = EXIT_INTERRUPTED
        try:
            searches.run()
            code = exit_code([capacity for _, capacity in searches.answers])
        except KeyboardInterrupt:
            progress.__exit__()
            TALK.print("Interrupted: reporting what was measured; a search begins anew (--force).")
        finally:  # a server that is gone ends the search, and takes no answer with it
            progress.__exit__()
            _show(searches, as_json=given["as_json"])
        return code


def _seconds(text: str) -> float:
    seconds = parse_duration_s(text)
    if seconds < LEAST_PROBE_S:
        raise ValueError(f"must be at least {LEAST_PROBE_S:g}s")
    return seconds


def _show(searches: SearchRunner, *, as_json: bool) -> None:
    publish(searches.runner.folder, as_json=as_json)
    if as_json:
        print(json.dumps(table(searches.answers), indent=1))
    out = TALK if as_json else Console(highlight=False)
    for name, capacity in searches.answers:
        out.print(f"{name}: {sentence(capacity, searches.slo)}", soft_wrap=True, markup=False)


def exit_code(capacities: Sequence[Capacity]) -> int:
    """4 when nothing could be measured, otherwise the worst of the answers."""
    if capacities and all(capacity.failure for capacity in capacities):
        return EXIT_FAILED
    return worst(map(_exit_code, capacities))


def _exit_code(capacity: Capacity) -> int:
    """3 when the search failed, the probes ran out, or they do not show the server's capacity."""
    if capacity.doubts or not (capacity.is_confirmed or capacity.is_missed):
        return EXIT_INCONCLUSIVE
    return EXIT_OK if capacity.is_confirmed else EXIT_MISSED


def sentence(capacity: Capacity, slo: Slo) -> str:
    """The answer as a person wants it."""
    tried = [probe.rate_per_s for probe in capacity.probes]
    if capacity.failure:
        return f"FAILED after {plural(len(tried), 'probe')}: {capacity.failure}"
    if capacity.doubts:
        codes = ", ".join(capacity.doubts)
        return (
            f"INVALID: this is not the server's capacity. Most of the probes that decide have {codes}. "
            "The report says for each what to do."
        )
    if capacity.is_missed:
        return f"INVALID: {slo} is missed even at {significant(min(tried, default=0.0))} requests/s."
    if capacity.rate_per_s is None:
        return (
            f"INVALID: {len(tried)} probes, up to {significant(max(tried))} requests/s, found no rate "
            f"that is sure to meet {slo}. Use a longer --longest-probe, or search when the machine is quiet."
        )
    limit = (capacity.estimate_per_s, capacity.low, capacity.high)
    estimate, low, high = (significant(rate or 0.0) for rate in limit)
    return (
        f"VALID: {significant(capacity.rate_per_s)} requests/s meet {slo}. "
        f"The limit is about {estimate} requests/s (95 % CI {low} to {high}, {len(tried)} probes)."
    )
