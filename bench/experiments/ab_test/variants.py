"""What the variants of an A/B measurement are measured as, and what of the base is served again.

A variant is the sweep's own spec with some of the server's settings changed: another model, version,
instance count, parameter. What of the server is one value in each of two variants is what sets them apart,
so cells are matched by all the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.core import run_lock
from bench.core.command_line import spec_of
from bench.core.mistakes import Mistakes
from bench.core.run_folder import RunRecord
from bench.core.spec import SweepSpec
from bench.core.variant import Variant
from bench.server.repository import Repository

BASE, NEW = "base", "new"  # What the two are called when nobody names them.


def check_version(model: str, variant: Variant, repository: Repository, mistakes: Mistakes) -> None:
    """Whether the repository on disk has the version that a variant wants."""
    version = variant.version
    if version is None or model not in repository.models():
        return
    there = repository.versions(model)
    if str(version) not in there:
        has = f"{model} has no version {version}; it has {', '.join(there)}"
        mistakes.wrong("--variant", variant.name, has)


def with_version(config: Mapping[str, Any], version: int | None) -> dict[str, Any]:
    """A model configuration that serves just that version."""
    if version is None:
        return dict(config)
    return {**config, "version_policy": {"specific": {"versions": [version]}}}


def base_spec(base: RunRecord, new: SweepSpec) -> SweepSpec:
    """The base's server under the new one's load; of axes that both vary, only what both have."""
    before = spec_of(base)
    wanted = dict(new.parameters)
    return replace(
        new,
        model=before.model,
        replicas=_shared(before.replicas, new.replicas),
        instances=_shared(before.instances, new.instances),
        max_batches=_shared(before.max_batches, new.max_batches),
        queue_delays_us=_shared(before.queue_delays_us, new.queue_delays_us),
        parameters=tuple(
            (name, _shared(values, wanted.get(name, values))) for name, values in before.parameters
        ),
    )


def _shared(before: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for value in before if value in new) or before


def served_before(base: RunRecord, spec: SweepSpec) -> Mapping[str, Any] | None:
    """The configuration that the base's first cell was served with; None: its record has none."""
    first = base.served.get(spec.configurations()[0].key)
    return first if first is not None else next(iter(base.served.values()), None)


def differ(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two configurations, both read back from a server, set anything differently."""
    return any(before[name] != now[name] for name in before.keys() & now.keys())


def refuse_foreign(path: Path, names: Collection[str]) -> list[str]:
    """What is in a folder beside the runs of these variants."""
    if not path.is_dir():
        return [path.name] if path.exists() else []
    ours = (".log", ".html")
    known = {*names, run_lock.NAME}
    return sorted(e.name for e in path.iterdir() if e.name not in known and e.suffix not in ours)
