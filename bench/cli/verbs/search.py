"""`bench search`: the highest Poisson rate that holds an SLO, for each configuration asked for."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench.cli.progress import ConsoleProgress
from bench.cli.spec import sweep_spec
from bench.cli.targets import check_workers, provider_of
from bench.cli.values import Values
from bench.cli.verbs.sweep import output_for
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_MISSED, EXIT_OK, worst
from bench.core.run_folder import SEARCH_FILE, write_json
from bench.core.slo import Slo
from bench.core.units import significant
from bench.experiments.engines import worker_pool
from bench.experiments.preconditions import check_before, check_open
from bench.experiments.run_setup import new_folder
from bench.experiments.search import algorithm as search
from bench.experiments.search.algorithm import Capacity
from bench.experiments.search.runner import LEAST_PROBE_S, Hunt
from bench.experiments.sweep import utc_now
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import TALK, publish


def run(values: Values) -> int:
    """Raises WrongUse with all mistakes before anything starts."""
    asked = sweep_spec(values)
    # The closed loop before a search has one user; a probe decides by itself how long it is.
    spec = replace(asked, concurrencies=(1,), rates_per_s=(), repeats=1, duration_s=LEAST_PROBE_S)
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
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress = stack.enter_context(ConsoleProgress())
        log = output.path / "tritonserver.log"
        session = stack.enter_context(provider.open(spec.model, progress.say, log))
        check_open(session, spec)
        folder = new_folder(output, spec, session, command=values.command, slo=values.text("slo"))
        pool = worker_pool(spec.workers, values["locust_master"])
        engine = stack.enter_context(LocustEngine(output.path / "locust.log", pool))
        hunt = Hunt(spec, slo, session, folder, engine, progress, scratch, longest_s)
        interrupted = False
        try:
            hunt.all()
        except KeyboardInterrupt:
            interrupted = True
        progress.__exit__()
        if interrupted:
            TALK.print("Interrupted: reporting what was measured; a search begins anew (--force).")
        return _end(hunt, as_json=values["as_json"], interrupted=interrupted)


def _end(hunt: Hunt, *, as_json: bool, interrupted: bool) -> int:
    found = [(name, capacity) for name, capacity in hunt.found]
    write_json(hunt.folder.path / SEARCH_FILE, search.table(found))
    if not interrupted:
        hunt.folder.write_record(replace(hunt.folder.record, finished_at=utc_now()))
    publish(hunt.folder, as_json=as_json)
    if as_json:
        print(json.dumps(search.table(found), indent=1))
    out = TALK if as_json else Console(highlight=False)
    for name, capacity in found:
        out.print(f"{name}: {sentence(capacity, hunt.slo)}", soft_wrap=True, markup=False)
    if interrupted:
        return EXIT_INTERRUPTED
    return worst([exit_code(capacity) for _, capacity in found])


def exit_code(capacity: Capacity) -> int:
    """Inconclusive: the probes ran out, or are not of the server."""
    if capacity.doubts or not (capacity.is_confirmed or capacity.is_missed):
        return EXIT_INCONCLUSIVE
    return EXIT_OK if capacity.is_confirmed else EXIT_MISSED


def sentence(capacity: Capacity, slo: Slo) -> str:
    """The answer as a person wants it."""
    tried = [probe.rate_per_s for probe in capacity.probes]
    if capacity.doubts:
        codes = ", ".join(capacity.doubts)
        return (
            f"INVALID: not the server's capacity, most of the probes that decide are {codes}. "
            "The report says of each what to do."
        )
    if capacity.is_missed:
        return f"INVALID: {slo} does not hold, not even at {significant(min(tried, default=0.0))}/s."
    if capacity.rate_per_s is None:
        return (
            f"INVALID: {len(tried)} probes, up to {significant(max(tried))}/s, did not settle where {slo} "
            "holds. Lengthen --longest-probe, or search when the machine is quiet."
        )
    edge, low, high = (significant(at or 0.0) for at in (capacity.edge_per_s, capacity.low, capacity.high))
    return (
        f"VALID: {significant(capacity.rate_per_s)} requests/s hold {slo}. "
        f"It is just met at {edge}/s (95 %: {low} to {high}; {len(capacity.probes)} probes)."
    )
