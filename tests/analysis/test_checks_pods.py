"""How a service shared its requests among its pods."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from bench.analysis.checks.pods import shares
from bench.analysis.summary import TrialSummary
from bench.core.trial import Trial, total


@pytest.mark.parametrize(
    ("says", "counts", "code"),
    [
        ("an even share is a note", {"a": 50, "b": 50}, "pods"),
        ("half of an even share still is", {"a": 75, "b": 25}, "pods"),
        ("a pod that was passed over is a warning", {"a": 90, "b": 10}, "pods-uneven"),
        ("an idle one too", {"a": 9, "b": 9, "c": 0}, "pods-uneven"),
        ("one pod shares with nobody", {"a": 9}, None),
        ("a plain server has no pods", {}, None),
    ],
)
def test_how_the_load_was_shared(says: str, counts: dict[str, int], code: str | None) -> None:
    pods = {name: replace(total([]), inference_count=count) for name, count in counts.items()}
    trial = cast(Trial, SimpleNamespace(counters=replace(total(pods.values()), pods=pods)))
    found = list(shares(trial, cast(TrialSummary, SimpleNamespace(requests=10))))
    assert [finding.code for finding in found] == ([code] if code else []), says
