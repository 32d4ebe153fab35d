"""`bench search`: the highest Poisson rate that holds an SLO, for each configuration asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from rich.console import Console

from bench.cli.progress import ConsoleProgress
from bench.cli.spec import sweep_spec
from bench.cli.targets import check_workers, provider_of
from bench.cli.values import Values
from bench.cli.verbs.sweep import output_for
from bench.core.errors import (
    EXIT_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_MISSED,
    EXIT_OK,
    worst,
)
from bench.core.scratch import folder as temporary_folder
from bench.core.slo import Slo
from bench.core.units import plural, significant
from bench.experiments.engines import worker_pool
from bench.experiments.preconditions import check_before, check_open
from bench.experiments.run_setup import claimed, new_folder
from bench.experiments.search.algorithm import Capacity, table
from bench.experiments.search.runner import LEAST_PROBE_S, SearchRunner
from bench.experiments.trial_runner import TrialRunner
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import TALK, publish


def run(values: Values) -> int:
    """Raises WrongUse with all mistakes before anything starts."""
    asked = sweep_spec(values)
    # The closed loop before a search has one user; a probe decides by itself how long it is.
    spec = replace(asked, concurrencies=(1,), rates_per_s=(), repeats=1, duration_s=LEAST_PROBE_S)
    spec = replace(spec, max_error_fraction=1.0)  # the SLO judges the errors of a probe
    slo, longest_s = values["slo"] or Slo(), values["longest_probe"] or 60.0
    if longest_s < LEAST_PROBE_S:
        values.wrong("longest_probe", f"must be at least {LEAST_PROBE_S:g}s")
    provider = provider_of(values, spec)
    check_workers(values, spec)
    if values["in_cluster"]:
        values.wrong(
            "in_cluster", "belongs to `bench sweep`; run `bench search` itself in a pod of the cluster"
        )
    check_before(provider, spec, values.mistakes)
    values.mistakes.check()
    output = output_for(values, f"{spec.model}-search")
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder())
        progress = stack.enter_context(ConsoleProgress())
        stack.enter_context(claimed(output, progress.say))
        log = output.path / "tritonserver.log"
        session = stack.enter_context(provider.open(spec.model, progress.say, log))
        check_open(session, spec)
        folder = new_folder(output, spec, session, command=values.command, slo=values.text("slo"))
        pool = worker_pool(spec.workers, values["locust_master"])
        engine = stack.enter_context(LocustEngine(output.path / "locust.log", pool))
        runner = TrialRunner.on(session, spec, folder, engine, progress, scratch)
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
            _show(searches, as_json=values["as_json"])
        return code


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


def _advice(capacity: Capacity) -> str:
    if capacity.longer is None:
        return "The server probably changed meanwhile: search again when the machine is quiet."
    return f"A --longest-probe {math.ceil(capacity.longer)} times as long should settle it."


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
    limit = (capacity.estimate_per_s, capacity.low, capacity.high)
    estimate, low, high = (significant(rate or 0.0) for rate in limit)
    probes = plural(len(tried), "probe")
    if capacity.change is not None:
        return (
            f"INVALID: the search is not settled, because the server changed: its limit moved by about "
            f"{capacity.change:+.0%} over {probes}. It lay between {low} and {high} requests/s. "
            "Look for other load or a falling clock rate, and search again."
        )
    if capacity.rate_per_s is None and capacity.estimate_per_s is not None:
        return (
            f"INVALID: the search is not settled. The limit under {slo} lies between {low} and {high} "
            f"requests/s (95 % CI, {probes}). {_advice(capacity)}"
        )
    if capacity.rate_per_s is None:
        return (
            f"INVALID: {probes}, up to {significant(max(tried))} requests/s, found no rate "
            f"that is sure to meet {slo}. Use a longer --longest-probe, or search when the machine is quiet."
        )
    return (
        f"VALID: {significant(capacity.rate_per_s)} requests/s meet {slo}. "
        f"The limit is about {estimate} requests/s (95 % CI {low} to {high}, {probes})."
    )
