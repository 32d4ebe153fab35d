"""What a capacity search found, with every probe, for the report; nothing for other runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from bench.core.run_folder import SEARCH_FILE, RunFolder
from bench.core.units import significant

_TAGS = {"holds": "VALID", "misses": "INVALID"}


def search_html(folder: RunFolder) -> str:
    """One section; empty where the folder holds no search."""
    try:
        found = json.loads((folder.path / SEARCH_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # no search, or one cut short before its first answer
    slo = escape(folder.record.slo)
    return (
        f'<section id="capacity"><h2>Capacity</h2><p class="lead">A Poisson rate that holds {slo} at 95 %, '
        "and the rate at which it is just met, with its 95 % interval.</p>"
        + "".join(_answer(entry) for entry in found)
        + "</section>"
    )


def _answer(entry: Mapping[str, Any]) -> str:
    rate = entry.get("rate_per_s")
    value = f"{significant(rate)} req/s" if rate else "none of the rates tried"
    probes = entry.get("probes", ())
    table = f'<table style="width:auto"><tbody>{"".join(map(_probe, probes))}</tbody></table>'
    return (
        f'<div class="card"><p class="headline">{escape(str(entry.get("what", "")))}: '
        f'<span class="value">{escape(value)}</span>{_bounds(entry)}{_doubts(entry)}</p></div>'
        f'<details><summary>{len(probes)} probes</summary><div class="scroll">{table}</div></details>'
    )


def _bounds(entry: Mapping[str, Any]) -> str:
    low, high = entry.get("edge_per_s_low"), entry.get("edge_per_s_high")
    edge = entry.get("edge_per_s")
    if not low or not high or not edge:
        return ""
    bounds = f"{significant(low)}–{significant(high)}"
    return f' <span class="range">(just met at {significant(edge)}: {bounds})</span>'


def _doubts(entry: Mapping[str, Any]) -> str:
    codes = ", ".join(entry.get("doubts", ()))
    return f' <span class="tag INVALID">INVALID: {escape(codes)}</span>' if codes else ""


def _probe(probe: Mapping[str, Any]) -> str:
    outcome = str(probe.get("outcome", ""))
    return (
        f"<tr><td>{significant(float(probe.get('rate_per_s') or 0))} req/s</td>"
        f'<td class="left"><span class="tag {_TAGS.get(outcome, "WARNING")}">{escape(outcome)}</span></td>'
        f'<td class="left">{escape(str(probe.get("why", "")))}</td></tr>'
    )
