"""The section of the report that shows what was measured, on what machine, and with which settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from bench.core.run_folder import RunFolder, RunRecord
from bench.core.units import bytes_text
from bench.report import templates

NAME = "method"
TITLE = "What was measured"

# Settings that have a line of their own among the facts of the run.
_SHOWN_ELSEWHERE = ("seed",)
DEFINITIONS = (
    ("cell", "One configuration of the server under one load from one engine; one row of cells.csv."),
    ("repeat", "One measurement of a cell. The repeats of all cells are interleaved in random order."),
    (
        "img/s, req/s",
        "Correct answers in the window, divided by its length; mean over repeats. In a closed loop a request "
        "counts with the share of its time in flight that lies in the window. "
        "An image is one item of a batch: img/s = req/s x batch.",
    ),
    ("(low-high)", "95 % interval over repeats: Student's t. None below three repeats."),
    (
        "p50 ... p99.9",
        "Response time of the requests of all repeats together, nearest rank, exact. n/a with fewer samples "
        "than MLPerf's early stopping asks for at 99 % confidence.",
    ),
    (
        "response time",
        "Time from when a request was intended until it was done. In an open loop a request is intended when "
        "its arrival is due, whether or not it could be sent; in a closed loop when it is sent.",
    ),
    ("service time", "Time from when a request was sent until it was done."),
    ("send lateness", "Time from when a request was intended until it was sent: the load generator's delay."),
    (
        "queue, compute",
        "Means per request from Triton's counters over the window. Every request of a batch is charged the "
        "time of the whole batch.",
    ),
    ("client and network", "Mean response time less send lateness and the time the server accounts for."),
    ("goodput", "Images per second that were answered correctly and within the SLO."),
    (
        "holds a limit",
        "Proved: enough samples are under the bound for 99 % confidence that the percentile is within it "
        "(MLPerf's early stopping). Likely: the figure is within it, but the samples do not prove it.",
    ),
    ("knee", "Of the cells with at least 95 % of peak throughput, the one with the lowest mean latency."),
    ("INVALID", "A finding makes the number unreliable. It is drawn hollow and never recommended."),
)


def render(folder: RunFolder) -> Markup:
    """How one run was measured, and what its figures mean."""
    record = folder.record
    machine = {**record.machine}
    if machine.get("memory_bytes", "").isdigit():
        machine["memory"] = bytes_text(int(machine.pop("memory_bytes")))
    return templates.render(
        "sections/method.html",
        command=shlex.join(record.command),
        run=_run(record),
        machine=machine.items(),
        versions=record.versions.items(),
        asked=_asked(record.spec),
        served=[(name, _indented(config)) for name, config in record.served.items()],
        definitions=DEFINITIONS,
    )


def _run(record: RunRecord) -> list[tuple[str, str]]:
    return [
        ("run", record.name),
        ("started", record.created_at),
        ("finished", record.finished_at or "no: interrupted, or still running"),
        ("target", record.target),
        ("weights", record.weights),
        ("seed", str(record.seed)),
        ("SLO", record.slo or "none given"),
    ]


def _indented(config: Any) -> str:
    return json.dumps(config, indent=1, ensure_ascii=False)


def _asked(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that were given; those left at their defaults are not listed."""
    given = {name: value for name, value in spec.items() if value not in (None, False, 0, "", [], [None])}
    return [(name, _text(value)) for name, value in given.items() if name not in _SHOWN_ELSEWHERE]


def _text(value: Any) -> str:
    if isinstance(value, list) and not any(isinstance(one, list) for one in value):
        return ", ".join("as served" if one is None else str(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
