"""Several sweeps that take turns, round by round, so that drift of the machine hits all of them.

A round measures every cell of a configuration once. Each sweep measures its round, and the next round goes
backwards (A B, B A, A B...): a drift that is linear in time then leaves the mean of the ratios alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from bench.core.cell import ServerConfiguration
from bench.core.errors import ModelLoadFailed, ServerDied
from bench.core.spec import PlannedTrial
from bench.core.trial import Reference, Served
from bench.experiments.sweep import Sweep

Round = tuple[Sweep, ServerConfiguration, tuple[PlannedTrial, ...]]


def plan(sweeps: Sequence[Sweep]) -> list[Round]:
    """Every round of every sweep, in the order they are measured."""
    order: list[Round] = []
    for servers in zip_longest(*(sweep.spec.configurations() for sweep in sweeps)):
        rounds = [
            [(sweep, server, turns) for turns in sweep.spec.rounds(server)] if server else []
            for sweep, server in zip(sweeps, servers, strict=True)
        ]
        for repeat, of_all in enumerate(zip_longest(*rounds)):
            known = [entry for entry in of_all if entry is not None]
            order += known if repeat % 2 == 0 else known[::-1]
    return order


@dataclass(slots=True)
class Turns:
    """Measures what is not in the folders yet. A model stays loaded while nobody else needs it otherwise."""

    sweeps: Sequence[Sweep]
    _loaded: dict[str, tuple[int, str, Served]] = field(default_factory=dict)  # by model
    _references: dict[tuple[int, str], Reference | None] = field(default_factory=dict)
    _failed: set[tuple[int, str]] = field(default_factory=set)

    def run(self) -> None:
        """Raises as `Sweep.run`; what was measured stays."""
        for sweep, server, turns in plan(self.sweeps):
            while (id(sweep), server.key) not in self._failed and not sweep.is_measured(server):
                try:
                    self._measure_round(sweep, server, turns)
                except ServerDied as error:
                    self._loaded.clear()
                    if not sweep.gives_up(server, error):
                        continue
                    self._failed.add((id(sweep), server.key))
                break
        for sweep in self.sweeps:
            sweep.finish()

    def _measure_round(
        self, sweep: Sweep, server: ServerConfiguration, turns: tuple[PlannedTrial, ...]
    ) -> None:
        try:
            served = self._configured(sweep, server)
        except ModelLoadFailed as error:
            self._failed.add((id(sweep), server.key))
            self._loaded.pop(server.model, None)
            sweep.fail_to_load(server, error)
            return
        sweep.measure_round(turns, served)

    def _configured(self, sweep: Sweep, server: ServerConfiguration) -> Served:
        key = (id(sweep), server.key)
        loaded = self._loaded.get(server.model)
        if loaded is not None and loaded[:2] == key:
            return loaded[2]
        if key in self._references:  # the answers it gives are the same every time it is loaded
            served = replace(sweep.load(server), reference=self._references[key])
        else:
            served = sweep.configure(server)
            self._references[key] = served.reference
        self._loaded[server.model] = (*key, served)
        return served
