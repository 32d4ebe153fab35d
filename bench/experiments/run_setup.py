"""A run's folder before the first trial: where it goes, what is refused there, and its first record."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.analysis.ceiling import CEILING_FILE
from bench.core.cell import Cell
from bench.core.command_line import spec_of, without_secrets
from bench.core.errors import RunFolderError, WrongUse
from bench.core.paths import REPORTS
from bench.core.run_folder import (
    CONFIRMATION,
    SEARCH_FILE,
    TUNE_DEPLOY_FILES,
    TUNE_FILE,
    RunFolder,
    RunRecord,
    refuse_foreign,
    utc_now,
)
from bench.core.run_lock import locked
from bench.core.spec import SweepSpec
from bench.sensors import environment
from bench.server.session import Say, Session

# Everything that a run makes, whatever verb measured it. The record is last: what is left of a run that is
# removed halfway is still a run.
_MADE = (
    *("trials", CONFIRMATION, "cells.csv", "report.html"),
    *(CEILING_FILE, SEARCH_FILE, TUNE_FILE, *TUNE_DEPLOY_FILES),
    "run.json",
)
_LONGEST_NAME = 200  # File systems take 255 bytes.


@dataclass(frozen=True, slots=True)
class Output:
    """A run's folder. `force` replaces the run that is there, `resume` goes on with it."""

    path: Path
    force: bool = False
    resume: bool = False


def output_of(
    name: str | None, out: Path | None, base: str, *, force: bool = False, resume: bool = False
) -> Output:
    """The folder as --name and --out say it, else REPORTS/`base` and the time."""
    name = name or f"{base}-{time.strftime('%Y%m%d-%H%M%S')}"
    refuse_name(name)
    if force and resume:
        raise WrongUse(["--force --resume: replace the run, or go on with it; not both"])
    return Output(out or Path(REPORTS) / name, force, resume)


def refuse_occupied(output: Output, *, can_resume: bool = True) -> None:
    """Raises RunFolderError where the folder holds something else, or nothing to go on with."""
    path, is_run = output.path, (output.path / "run.json").exists()
    if is_run and not (output.force or output.resume):
        go_on = "--resume to go on with it, " if can_resume else ""
        raise RunFolderError(
            f"--out {path} already holds a run: choose another --name or --out, {go_on}"
            "or --force to replace it."
        )
    if output.resume and not is_run:
        raise RunFolderError(f"--resume: {path} holds no run to go on with; --name or --out says which.")
    refuse_foreign(path)


@contextmanager
def claimed(output: Output, say: Say) -> Iterator[None]:
    """Hold the folder's lock, and make a run that is resumed ready: damaged trials are measured again.

    Raises RunFolderError as `refuse_occupied`, and where another process measures into the folder.
    """
    with locked(output.path):
        refuse_occupied(output)  # once more: whoever held the lock until now may have made a run there
        for one in RunFolder.open(output.path).mend() if output.resume else ():
            say(f"Repeat {one.repeat} of {one.cell} is unreadable, and is measured again: {one.reason}")
        yield


def refuse_name(name: str) -> None:
    """Raises WrongUse for a name that cannot be a folder's."""
    if Path(name).name != name or name == "..":
        raise WrongUse([f"--name {name}: give a name, not a path; --out takes a path"])
    if len(name.encode()) > _LONGEST_NAME:
        raise WrongUse([f"--name {name}: too long; allowed: {_LONGEST_NAME} bytes"])


def new_folder(
    output: Output,
    spec: SweepSpec,
    session: Session,
    *,
    command: Sequence[str] = (),
    slo: str = "",
    planned: tuple[Cell, ...] = (),
    also: Mapping[str, Any] | None = None,
) -> RunFolder:
    """The folder with its record. `also`: what the record's spec has beside the axes."""
    path = output.path
    record = RunRecord(
        name=path.name,
        created_at=utc_now(),
        command=tuple(without_secrets(command)),
        seed=spec.seed,
        spec={**_plain(spec), **(also or {})},
        machine=environment.machine(),
        versions={
            **environment.versions(),
            "tritonserver": str(session.triton.server().get("version", "unknown")),
        },
        target=session.description,
        weights=session.weights,
        slo=slo,
        planned=planned,
    )
    if output.resume:
        return _resumed(RunFolder.open(path), record)
    if output.force and (path / "run.json").exists():
        for old in _MADE:
            _remove(path / old)
    return RunFolder.create(path, record)


def _resumed(folder: RunFolder, record: RunRecord) -> RunFolder:
    """The same question asked of the same machine; anything else is another run."""
    before = folder.record
    # A run of an older version lacks what was not an option then: it was measured with its default.
    known = replace(before, spec={**_plain(spec_of(before)), **before.spec})
    differing = [
        name
        for name in ("spec", "machine", "weights", "target", "slo")
        if getattr(known, name) != getattr(record, name)
    ]
    if differing:
        raise RunFolderError(
            f"--resume {folder.path}: differs from the run there in {', '.join(differing)}; "
            "give the flags it was started with, or another --name."
        )
    folder.write_record(replace(before, failed={}, finished_at=""))
    return folder


def _plain(spec: SweepSpec) -> dict[str, Any]:
    """As it stands in a record."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    return plain


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
