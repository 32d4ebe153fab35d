"""What the smaller verbs do: serve, infer, report, compare, setup."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.analysis import cell_table as cells_table
from bench.analysis.cell_row import CellRow
from bench.analysis.results import RunResults
from bench.cli.progress import ConsoleProgress
from bench.cli.verbs.sweep import exit_code
from bench.core.cell import Protocol, ServerConfiguration
from bench.core.errors import EXIT_OK, ServerStartFailed, WrongUse, worst
from bench.core.files import write_text
from bench.core.mistakes import Mistakes
from bench.core.parsing import choices, positive_duration
from bench.core.run_folder import RunFolder, RunRecord
from bench.report import index, page, terminal
from bench.report.publish import TALK
from bench.server.session import models_of, opened, remote_target, repository_of


def serve(given: Mapping[str, Any]) -> int:
    """`bench serve`: in the foreground until Ctrl-C."""
    flags = Mistakes()
    _check_model(given, flags)
    flags.check()
    log = given.get("log") or Path(tempfile.mkdtemp(prefix="bench-serve-")) / "tritonserver.log"
    with ConsoleProgress() as progress, opened(given, None, progress.say, log) as target:
        asked = ServerConfiguration(model=given["model"], instances=given["instances"])
        progress.configuring(asked)
        target.serving.configure(asked)
        progress.__exit__()
        addresses = target.target
        print(f"HTTP     {addresses.http_url}\ngRPC     {addresses.grpc_address}")
        print(f"metrics  {addresses.metrics_url}")
        print(
            f"\nbench sweep --url {addresses.http_url} --grpc-url {addresses.grpc_address} "
            f"--metrics-url {addresses.metrics_url} --model {given['model']} --batch 1,8,32",
            flush=True,
        )
        TALK.print(f"log: {log}; Ctrl-C ends it.", soft_wrap=True)
        while target.triton.live():
            time.sleep(1.0)  # nothing to do but notice its end
    raise ServerStartFailed(f"tritonserver ended by itself: read its log, {log}.")


def infer(given: Mapping[str, Any]) -> int:
    """`bench infer`: one request, its tensors and the time."""
    from bench.cli.verbs.infer import infer_once, picture

    flags = Mistakes()
    protocol = flags.one("--protocol", given["protocol"], choices(Protocol), Protocol.HTTP)
    timeout_s = flags.read("--timeout", given["timeout"], positive_duration, 60.0)
    image = flags.read("--image", given["image"] or "224x224", picture, picture("224x224"))
    remote = remote_target(given, flags)
    if remote is None:
        _check_model(given, flags)
    flags.check()
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        progress = stack.enter_context(ConsoleProgress())
        target = stack.enter_context(opened(given, remote, progress.say, Path(scratch) / "tritonserver.log"))
        served = target.serving.configure(ServerConfiguration(model=given["model"]))
        progress.__exit__()
        return infer_once(target.target, served, protocol, image, timeout_s, as_json=given["as_json"])


def report(runs: Sequence[Path], out: Path | None, form: str) -> int:
    """`bench report`: from folders alone; a folder of runs gets an index of them, or where they were measured
    in turns, a report over all."""
    members = index.family(runs[0]) if len(runs) == 1 else []
    if members:
        runs, out = [member.path for member in members], out or runs[0] / "report.html"
    elif len(runs) == 1 and not (runs[0] / "run.json").exists() and index.holds_runs(runs[0]):
        if form != "html" or out:
            raise WrongUse([f"{runs[0]} holds several runs and gets an index.html: name those you mean."])
        TALK.print(f"index: {index.write(runs[0])}", soft_wrap=True)
        return EXIT_OK
    results = [RunResults.of(RunFolder.open(path)) for path in runs]
    found = [(run.record, run.rows) for run in results]
    if form == "html":
        _write_page(results, out)
    elif out:
        write_text(out, _report_text(found, form))
    elif form == "table" and len(found) == 1:
        terminal.show(found[0][1], found[0][0], Console(highlight=False))  # in colour, where there is any
    else:
        print(_report_text(found, form), end="")
    return worst([exit_code(rows, record.slo) for record, rows in found])


def _write_page(runs: Sequence[RunResults], out: Path | None) -> None:
    """One run's page is in its folder; one over several is beside theirs, which stay as they are."""
    first = runs[0].folder.path
    path = out or (first / "report.html" if len(runs) == 1 else first.parent / "overlay.html")
    write_text(path, page.render(runs))
    if out is None:
        for run in runs:
            cells_table.write_csv(run.rows, run.folder.path / "cells.csv")
    TALK.print(f"report: {path}", soft_wrap=True)


def _report_text(found: Sequence[tuple[RunRecord, list[CellRow]]], form: str) -> str:
    """Run by run; a run's name where there are several."""
    several = len(found) > 1
    if form == "json":
        named = [({"run": record.name} if several else {}, row) for record, rows in found for row in rows]
        return json.dumps([{**name, **asdict(row)} for name, row in named], indent=1, default=str) + "\n"
    parts = []
    for record, rows in found:
        name = terminal.plain(record.name) if form == "md" else record.name
        heading = (f"### {name}\n\n" if form == "md" else f"{name}\n") if several else ""
        parts.append(heading + (terminal.markdown(rows, record) if form == "md" else _table(rows, record)))
    return "\n".join(parts)


def _table(rows: list[CellRow], record: RunRecord) -> str:
    console = Console(file=io.StringIO(), highlight=False)
    terminal.show(rows, record, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above
    return text


def compare(given: Mapping[str, Any]) -> int:
    """`bench compare`."""
    from bench.analysis import comparison as comparing
    from bench.report.comparison import render

    flags = Mistakes()
    gates = [flags.read("--fail-if", text, comparing.parse_gate, None) for text in given["fail_if"]]
    flags.check()
    base, new = (RunResults.of(RunFolder.open(given[name])) for name in ("base", "new"))
    comparison = comparing.compare(base, new, [gate for gate in gates if gate], force=given["anyway"])
    text = render(comparison, given["form"])
    if given["out"]:
        write_text(given["out"], text)
    else:
        print(text)
    return comparing.exit_code(comparison)


def setup_perf_analyzer(*, quiet: bool) -> int:
    """`bench setup perf-analyzer`."""
    from bench.loadgen.perf_analyzer.install import setup

    tool = setup((lambda _: None) if quiet else TALK.print)
    if not quiet:
        print(f"{tool.binary} ({tool.version}; {tool.origin})")
    return EXIT_OK


def _check_model(given: Mapping[str, Any], flags: Mistakes) -> None:
    known = models_of(repository_of(given))
    if given["model"] not in known:
        flags.wrong("--model", given["model"], f"not in {repository_of(given)}; it has {', '.join(known)}")
