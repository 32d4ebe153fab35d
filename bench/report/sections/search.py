"""The section of the report that shows what a capacity search found, with every probe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from bench.core.run_folder import SEARCH_FILE, RunFolder
from bench.core.units import plural, significant
from bench.report import templates

NAME = "search"
TITLE = "Capacity"
_TAGS = {"holds": "VALID", "misses": "INVALID"}


def render(folder: RunFolder) -> Markup | None:
    """The answers of one run; None where the folder holds no search."""
    try:
        answers = json.loads((folder.path / SEARCH_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # no search, or one that was cut short before its first answer
    return templates.render(
        "sections/search.html", slo=folder.record.slo, answers=[_answer(answer) for answer in answers]
    )


def _answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "what": answer.get("what", ""),
        "value": _value(answer),
        "bounds": _bounds(answer),
        "invalid": _invalid(answer),
        "count": plural(len(answer.get("probes", ())), "probe"),
        "probes": [_probe(probe) for probe in answer.get("probes", ())],
    }


def _value(answer: Mapping[str, Any]) -> str:
    if answer.get("rate_per_s"):
        return f"{significant(answer['rate_per_s'])} req/s"
    return "not settled" if answer.get("edge_per_s") else "none of the rates tried"


def _invalid(answer: Mapping[str, Any]) -> str:
    """Why the answer cannot be used, if it cannot."""
    if answer.get("failed"):
        return f"FAILED: {answer['failed']}"
    if answer.get("change") is not None:
        return f"INVALID: the limit moved by {answer['change']:+.0%} over the search"
    doubts = ", ".join(answer.get("doubts", ()))
    return f"INVALID: {doubts}" if doubts else ""


def _bounds(answer: Mapping[str, Any]) -> str:
    """The estimated capacity with its interval: 42: 40–43."""
    low, high = answer.get("edge_per_s_low"), answer.get("edge_per_s_high")
    estimate = answer.get("edge_per_s")
    if not low or not high or not estimate:
        return ""
    return f"{significant(estimate)}: {significant(low)}–{significant(high)}"


def _probe(probe: Mapping[str, Any]) -> dict[str, str]:
    outcome = str(probe.get("outcome", ""))
    return {
        "rate": significant(float(probe.get("rate_per_s") or 0)),
        "outcome": outcome,
        "tag": _TAGS.get(outcome, "WARNING"),
        "why": str(probe.get("why", "")),
    }
