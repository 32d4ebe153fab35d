"""`bench search`: the highest Poisson rate that holds an SLO, for each configuration asked for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
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
from bench.core.errors import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_MISSED, EXIT_OK, worst
from bench.core.files import write_json
from bench.core.mistakes import Mistakes
from bench.core.slo import Slo, parse_slo
from bench.core.units import significant
from bench.experiments.search import algorithm as search
from bench.experiments.search.algorithm import Capacity
from bench.experiments.search.runner import LEAST_PROBE_S, Hunt
from bench.experiments.sweep import utc_now
from bench.loadgen.locust.engine import LocustEngine
from bench.report.publish import TALK, publish
from bench.report.sections import search as searched


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
        hunt = Hunt(spec, slo, target, folder, engine, progress, scratch, longest_s)
        interrupted = False
        try:
            hunt.all()
        except KeyboardInterrupt:
            interrupted = True
        progress.__exit__()
        if interrupted:
            TALK.print("Interrupted: reporting what was measured; a search begins anew (--force).")
        return _end(hunt, as_json=given["as_json"], interrupted=interrupted)


def _seconds(text: str) -> float:
    from bench.core.units import parse_duration_s

    seconds = parse_duration_s(text)
    if seconds < LEAST_PROBE_S:
        raise ValueError(f"must be at least {LEAST_PROBE_S:g}s")
    return seconds


def _end(hunt: Hunt, *, as_json: bool, interrupted: bool) -> int:
    found = [(name, capacity) for name, capacity in hunt.found]
    write_json(hunt.folder.path / searched.FILE, search.table(found))
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
