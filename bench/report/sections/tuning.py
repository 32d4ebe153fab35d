"""The section of the report that shows what a tuning found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bench.analysis.slo import Holds
from bench.core.run_folder import TUNE_FILE, RunFolder
from bench.core.units import significant

_TAGS = {Holds.YES: "VALID", Holds.LIKELY: "VALID", Holds.NO: "INVALID"}
_STAGES = {
    "start": "from the middle",
    "axes": "along the axes",
    "together": "several changes at once",
    "last": "long ones, of rates",
    "prove": "to prove the limit",
    "confirm": "winner and runner-up in turn",
}


def tuned_html(folder: RunFolder) -> str:
    """One section; empty where the folder holds no tuning."""
    try:
        found = json.loads((folder.path / TUNE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # no tuning, or one cut short before its answer
    answer = [str(line) for line in found.get("answer", ())]
    lead = "".join(f"<p>{escape(line)}</p>" for line in answer[1:])
    return (
        '<section id="tuned"><h2>Recommended settings</h2>'
        f'<div class="card"><p class="headline">{escape("".join(answer[:1]))}</p>{lead}</div>'
        f"{_steps(found.get('steps', ()))}{_files(found)}</section>"
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> str:
    stages = Counter(str(step.get("stage", "")) for step in steps)
    summary = ", ".join(f"{count} {_STAGES.get(stage, stage)}" for stage, count in stages.items())
    head = (
        '<tr><th class="left">measured</th><th>img/s</th><th class="left">within the SLO</th><th></th></tr>'
    )
    rows = "".join(map(_row, steps))
    return (
        f"<details><summary>{len(steps)} measurements: {escape(summary)}</summary>"
        f'<div class="scroll"><table style="width:auto"><thead>{head}</thead><tbody>{rows}</tbody></table>'
        "</div></details>"
    )


def _row(step: Mapping[str, Any]) -> str:
    holds = str(step.get("holds", ""))
    tag = next((tag for kind, tag in _TAGS.items() if kind.value == holds), "WARNING")
    return (
        f'<tr><td class="left">{escape(str(step.get("what", "")))}</td>'
        f"<td>{significant(float(step.get('img_per_s') or 0))}</td>"
        f'<td class="left"><span class="tag {tag}">{escape(holds)}</span></td>'
        f'<td class="left">{escape(str(step.get("why", "")))}</td></tr>'
    )


def _files(found: Mapping[str, Any]) -> str:
    named = [
        ("config.pbtxt", "config_pbtxt"),
        ("ConfigMap", "config_map"),
        ("MLService patch", "mlservice_patch"),
    ]
    return "".join(
        f"<details><summary>{name}</summary><pre>{escape(str(found[key]))}</pre></details>"
        for name, key in named
        if found.get(key)
    )
