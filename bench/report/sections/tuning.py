"""The section of the report that shows what a tuning found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bench.analysis.slo import Holds
from bench.core.run_folder import TUNE_FILE, RunFolder
from bench.core.units import plural, significant
from bench.report import templates

NAME = "tuning"
TITLE = "Recommended settings"
_TAGS = {Holds.YES: "VALID", Holds.LIKELY: "VALID", Holds.NO: "INVALID"}
_STAGES = {
    "start": "from the middle",
    "axes": "along the axes",
    "together": "several changes at once",
    "last": "long ones, of rates",
    "prove": "to prove the limit",
    "confirm": "winner and runner-up, interleaved",
}
_FILES = (
    ("config.pbtxt", "config_pbtxt"),
    ("ConfigMap", "config_map"),
    ("MLService patch", "mlservice_patch"),
)


def render(folder: RunFolder) -> Markup | None:
    """The answer of one run; None where the folder holds no tuning."""
    try:
        answer = json.loads((folder.path / TUNE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # no tuning, or one that was cut short before its answer
    headline, *more = answer.get("answer") or ("",)
    steps = answer.get("steps", ())
    return templates.render(
        "sections/tuning.html",
        headline=headline,
        more=more,
        count=plural(len(steps), "measurement"),
        stages=_stages(steps),
        steps=[_step(step) for step in steps],
        files=[(name, answer[key]) for name, key in _FILES if answer.get(key)],
    )


def _stages(steps: Sequence[Mapping[str, Any]]) -> str:
    """How many measurements each stage took."""
    counts = Counter(str(step.get("stage", "")) for step in steps)
    return ", ".join(f"{count} {_STAGES.get(stage, stage)}" for stage, count in counts.items())


def _step(step: Mapping[str, Any]) -> dict[str, str]:
    holds = str(step.get("holds", ""))
    return {
        "what": str(step.get("what", "")),
        "img_per_s": significant(float(step.get("img_per_s") or 0)),
        "holds": holds,
        "tag": next((tag for kind, tag in _TAGS.items() if kind.value == holds), "WARNING"),
        "why": str(step.get("why", "")),
    }
