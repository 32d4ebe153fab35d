"""What was measured, on what, and how to measure it again: the report's ground."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from bench.core.run_folder import RunRecord
from bench.core.units import bytes_text

_SAID_ELSEWHERE = ("seed",)
DEFINITIONS = (
    (
        "img/s, req/s",
        "Answers that were right and ended inside the window, over its length; geometric mean over repeats. "
        "An image is one item of a batch: img/s = req/s x batch.",
    ),
    ("(low-high)", "95 % interval over repeats: Student's t on logarithms. None below three repeats."),
    (
        "p50 ... p99.9",
        "Response time of the pooled requests of all repeats, nearest rank, exact. n/a with fewer samples "
        "than MLPerf's early stopping asks for at 99 % confidence.",
    ),
    (
        "response time",
        "Done minus intended. In an open loop a request is intended when its arrival is due, whether or not "
        "it could be sent; in a closed loop when it is sent.",
    ),
    ("service time", "Done minus sent."),
    ("send lateness", "Sent minus intended: the load generator's own delay."),
    (
        "queue, compute",
        "Means a request from Triton's counters over the window. Every request of a batch is charged the "
        "batch's time.",
    ),
    ("client and network", "Mean response time less send lateness and what the server accounts for."),
    ("goodput", "Images a second that were answered right and within the SLO."),
    (
        "holds a limit",
        "Proved: enough samples under the bound for 99 % confidence that the percentile is within it "
        "(MLPerf's early stopping). Likely: the figure is within, the samples do not prove it.",
    ),
    ("knee", "Of the cells with 95 % of the most throughput, the one with the least mean latency."),
    ("INVALID", "The number does not mean what it says; drawn hollow and never recommended."),
)


def measured_html(record: RunRecord) -> str:
    """One run's section, with every word of data escaped."""
    machine = {**record.machine}
    if machine.get("memory_bytes", "").isdigit():
        machine["memory"] = bytes_text(int(machine.pop("memory_bytes")))
    about = [
        ("run", record.name),
        ("started", record.created_at),
        ("finished", record.finished_at or "no: interrupted, or still running"),
        ("target", record.target),
        ("weights", record.weights),
        ("seed", str(record.seed)),
        ("SLO", record.slo or "none given"),
    ]
    return (
        f"<h3>Command</h3><pre>{escape(shlex.join(record.command))}</pre>"
        '<div class="columns">'
        f"<div><h3>Run</h3>{_pairs(about)}</div>"
        f"<div><h3>Machine of the load generator</h3>{_pairs(machine.items())}</div>"
        f"<div><h3>Versions</h3>{_pairs(record.versions.items())}</div>"
        f"<div><h3>Asked</h3>{_pairs(_asked(record.spec))}</div>"
        "</div>" + _served(record) + f"<h3>What the figures mean</h3>{_pairs(DEFINITIONS)}"
    )


def _served(record: RunRecord) -> str:
    if not record.served:
        return ""
    parts = "".join(
        f"<details><summary>{escape(key)}</summary>"
        f"<pre>{escape(json.dumps(config, indent=1, ensure_ascii=False))}</pre></details>"
        for key, config in record.served.items()
    )
    return f"<h3>Model configuration as served</h3>{parts}"


def _pairs(entries: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in entries if v)
    return f'<dl class="pairs">{rows}</dl>'


def _asked(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was left as it is says nothing."""
    told = {name: value for name, value in spec.items() if value not in (None, False, 0, "", [], [None])}
    return [(name, _short(value)) for name, value in told.items() if name not in _SAID_ELSEWHERE]


def _short(value: Any) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, list) and not any(isinstance(one, list) for one in value):
        return ", ".join("as served" if one is None else str(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
