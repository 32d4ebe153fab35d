"""Engines behind one interface: a plan goes to the engine its cell names, and all of them end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bench.core import cell
from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.errors import ToolError
from bench.core.samples import Samples, Window
from bench.core.target import Target
from bench.core.trial import Generator, Live, Plan, Served, Trial
from bench.loadgen.engine import ENGINES, Engines, Setup


# The example of docs/extending.md: one request every ten milliseconds that takes one, and no server.
class SteadyEngine:
    pids: tuple[int, ...] = ()

    def __init__(self, setup: Setup) -> None:
        self.scratch = setup.scratch

    def measure(self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None]) -> Trial:  # noqa: ARG002
        end_ns = int((plan.warmup_s + plan.duration_s) * 1e9)
        sent_ns = np.arange(0, end_ns, 10_000_000, dtype=np.int64)
        samples = Samples(sent_ns, sent_ns, sent_ns + 1_000_000, np.zeros_like(sent_ns))
        on_live(Live(seconds=end_ns / 1e9, requests=len(sent_ns), rate_per_s=100.0, p99_ns=1e6))
        return Trial(
            plan=plan,
            window=Window(int(plan.warmup_s * 1e9), end_ns),
            samples=samples,
            errors={},
            generator=Generator(workers=1, cpu_s=(0.0,), max_rss_bytes=0),
            engine={"name": "steady"},
        )

    def close(self) -> None:
        """Nothing was started."""


# End of the example.

STEADY, OTHER = cast(cell.Engine, "steady"), cast(cell.Engine, "other")


def plan_of(engine: cell.Engine) -> Plan:
    load = Load(protocol=Protocol.HTTP, batch=1, concurrency=1)
    measured = Cell(server=ServerConfiguration(model="m"), load=load, engine=engine)
    return Plan(cell=measured, repeat=0, seed=1, warmup_s=1.0, duration_s=2.0)


class Recorded(SteadyEngine):
    """Notes what happens to it."""

    def __init__(self, setup: Setup, name: str, notes: list[str]) -> None:
        super().__init__(setup)
        self.name, self.notes = name, notes
        self.pids = (len(name),)
        notes.append(f"{name} made")

    def measure(self, plan: Plan, target: Target, served: Served, on_live: Callable[[Live], None]) -> Trial:
        self.notes.append(f"{self.name} measured")
        return super().measure(plan, target, served, on_live)

    def close(self) -> None:
        self.notes.append(f"{self.name} closed")


def test_a_hand_made_engine_measures_a_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(ENGINES, STEADY, SteadyEngine)
    seen: list[Live] = []
    with Engines([STEADY], Setup(scratch=tmp_path)) as engines:
        trial = engines.measure(plan_of(STEADY), Target("http://h:1"), Served({}, {}), seen.append)
    assert len(trial.samples.done_in(trial.window)) == 200
    assert seen


def test_a_plan_goes_to_its_engine_and_every_engine_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes: list[str] = []
    for name in (STEADY, OTHER):
        monkeypatch.setitem(ENGINES, name, lambda setup, name=name: Recorded(setup, name, notes))
    with Engines([STEADY, OTHER, STEADY], Setup(scratch=tmp_path)) as engines:
        engines.measure(plan_of(OTHER), Target("http://h:1"), Served({}, {}))
        assert engines.pids == (6, 5)
    assert notes == ["steady made", "other made", "other measured", "other closed", "steady closed"]


def test_an_engine_that_cannot_be_made_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(_: Setup) -> SteadyEngine:
        raise ToolError("no such binary")

    notes: list[str] = []
    monkeypatch.setitem(ENGINES, STEADY, lambda setup: Recorded(setup, "steady", notes))
    monkeypatch.setitem(ENGINES, OTHER, fails)
    with pytest.raises(ToolError):
        Engines([STEADY, OTHER], Setup(scratch=tmp_path))
    assert notes == ["steady made", "steady closed"]


def test_every_engine_of_the_suite_can_be_made() -> None:
    assert set(ENGINES) == set(cell.Engine)
