"""The run folder: everything a sweep measured, written after every trial, readable on its own.

    run.json                           what was asked, of what, by what machine (`RunRecord`)
    trials/<cell>/<repeat>.json, .npz  one trial each; the .npz holds its samples
    confirmation/                      the same of fresh trials of the best cell, made after it was picked
    cells.csv, report.html             made from the above, at any time, by anyone

Each file is written to a neighbour and moved into place, so a killed sweep loses the trial in
flight and nothing else. Readers refuse a schema they do not know.
"""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cattrs
from cattrs.preconf.json import make_converter

from bench.core.cell import Cell
from bench.core.errors import RunFolderError
from bench.core.files import write_json
from bench.core.samples import Samples
from bench.core.trial import Trial

SCHEMA_VERSION = 1
# Fresh trials of the best cell are kept here, so that they are not pooled with those it was picked by.
CONFIRMATION = "confirmation"
# The answers of `bench search`, and the answer of `bench tune`.
SEARCH_FILE, TUNE_FILE = "search.json", "tune.json"
# Files that `bench tune` writes beside its answer, and the key under which the answer has their text.
TUNE_DEPLOY_FILES = {
    "config.pbtxt": "config_pbtxt",
    "configmap.yaml": "config_map",
    "mlservice-patch.yaml": "mlservice_patch",
}
# File systems take names of 255 bytes, and temporary names add to ours.
_LONGEST_NAME = 180

_converter = make_converter()
# Samples live in the .npz beside the trial's JSON, not in it.
_converter.register_unstructure_hook(Samples, lambda samples: len(samples))
_converter.register_structure_hook(Samples, lambda _length, _type: Samples.of([]))


@dataclass(frozen=True, slots=True)
class Crash:
    """An embedded server died, and was started again."""

    key: str  # of the cell that was measured, or of the server configuration that was loaded
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a reader of the numbers must know about where they come from."""

    name: str
    created_at: str  # ISO 8601, UTC
    command: tuple[str, ...]
    seed: int
    spec: Mapping[str, Any]  # the axes and durations as asked
    machine: Mapping[str, str]  # of the load generator: cpu, cores, memory_bytes, kernel, gpu...
    versions: Mapping[str, str]  # python, locust, tritonclient, tritonserver...
    target: str  # embedded | the URL | mlservice <name>; and where the client ran
    weights: str = ""  # one sentence: which weights the model really had
    # server configuration key -> the model configuration as the server reported it after loading
    served: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    slo: str = ""
    # cells that could not be measured: cell key -> the reason in the server's words
    failed: Mapping[str, str] = field(default_factory=dict)
    # cells asked for, in the order of the axes, so that "not run" can be told from "not asked"
    planned: tuple[Cell, ...] = ()
    crashes: tuple[Crash, ...] = ()
    finished_at: str = ""  # "": interrupted, or still running
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder on disk; `record` is read back each time, so that two views never differ."""

    path: Path
    part: str = "trials"  # which trials; the record is the same for both parts

    @property
    def confirmation(self) -> RunFolder:
        """The same run with its fresh trials of the best cell instead of those that it was picked by."""
        return replace(self, part=CONFIRMATION)

    @classmethod
    def create(cls, path: Path, record: RunRecord) -> RunFolder:
        """A new folder with its record.

        Raises RunFolderError when the folder holds another run, or cannot be written.
        """
        if (path / "run.json").exists():
            raise RunFolderError(
                f"--out {path} already holds a run: choose another --name or --out, "
                "--resume to go on with it, or --force to replace it."
            )
        refuse_foreign(path)
        folder = cls(path)
        try:
            (path / "trials").mkdir(parents=True, exist_ok=True)
            folder.write_record(record)
        except OSError as error:
            raise RunFolderError(
                f"--out {path} cannot be written ({error.strerror}): choose another."
            ) from error
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises RunFolderError when there is none, or of another schema."""
        folder = cls(path)
        _ = folder.record
        return folder

    @property
    def record(self) -> RunRecord:
        data = _read_json(self.path / "run.json")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunFolderError(
                f"{self.path} has schema {version}, this bench reads {SCHEMA_VERSION}: "
                "use the version of bench that wrote it."
            )
        record: RunRecord = _structure(data, RunRecord, self.path)
        return record

    def write_record(self, record: RunRecord) -> None:
        write_json(self.path / "run.json", _converter.unstructure(record))

    def add_served(self, server_key: str, config: Mapping[str, Any]) -> None:
        """Note the model configuration that the server reported after loading `server_key`."""
        self._change(lambda record: {"served": {**record.served, server_key: dict(config)}})

    def add_planned(self, cell: Cell) -> None:
        """Note a cell that is asked for only now; the report shows cells in the order they were added."""
        if cell not in self.record.planned:
            self._change(lambda record: {"planned": (*record.planned, cell)})

    def add_failed(self, cells: Sequence[Cell], reason: str) -> None:
        """Note cells that could not be measured, or only in part; a later reason replaces an earlier one."""
        failed = {cell.key: reason for cell in cells}
        self._change(lambda record: {"failed": {**record.failed, **failed}})

    def add_crash(self, crash: Crash) -> None:
        self._change(lambda record: {"crashes": (*record.crashes, crash)})

    def finish(self) -> None:
        """Note that everything that was asked for has been tried."""
        self._change(lambda _: {"finished_at": utc_now()})

    def _change(self, changes: Callable[[RunRecord], Mapping[str, Any]]) -> None:
        record = self.record
        self.write_record(replace(record, **changes(record)))

    def write_trial(self, trial: Trial) -> None:
        """Samples first: a trial exists once its JSON does."""
        stem = self._stem(trial.cell.key, trial.plan.repeat)
        stem.parent.mkdir(parents=True, exist_ok=True)
        trial.samples.save(stem.with_suffix(".npz"))
        write_json(stem.with_suffix(".json"), _converter.unstructure(trial))

    def has_trial(self, cell_key: str, repeat: int) -> bool:
        return self._stem(cell_key, repeat).with_suffix(".json").exists()

    def trials(self) -> Iterator[Trial]:
        """Every trial, by cell and repeat; one at a time, since their samples may be large."""
        for path in sorted((self.path / self.part).glob("*/*.json")):
            trial = _structure(_read_json(path), Trial, path)
            yield replace(trial, samples=_samples(path))

    def trial_counts(self) -> list[int]:
        """How many trials each measured cell has, told without reading them."""
        counts = Counter(path.parent for path in (self.path / self.part).glob("*/*.json"))
        return list(counts.values())

    def read_json(self, name: str) -> Any | None:
        """A further JSON file of the run, such as ceiling.json; None where there is none.

        Raises RunFolderError for a file that is no JSON.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read ({error}): remove it, or measure again.") from error

    def write_json(self, name: str, data: Any) -> Path:
        """Write a further JSON file of the run, atomically, and say where it is."""
        path = self.path / name
        write_json(path, data)
        return path

    def _stem(self, cell_key: str, repeat: int) -> Path:
        return self.path / self.part / _safe(cell_key) / f"{repeat}"


def utc_now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def refuse_foreign(path: Path) -> None:
    """Raises RunFolderError when there is something at `path` that is neither a run nor a server's log, or
    where nothing can be written."""
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"--out {path} is a file: choose an empty or new folder.")
    refuse_unwritable(path)
    is_run = (path / "run.json").exists()
    if path.exists() and not is_run and any(entry.suffix != ".log" for entry in path.iterdir()):
        raise RunFolderError(f"--out {path} is not empty and holds no run: choose an empty or new folder.")


def refuse_unwritable(path: Path) -> None:
    """Raises RunFolderError where a folder at `path` can be neither made nor written into."""
    whole = path.absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if not there.is_dir():
        raise RunFolderError(f"--out {path}: {there} is a file: choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunFolderError(f"--out {path} cannot be written, {there} is read-only: choose another folder.")


def without_secrets(command: Sequence[str]) -> list[str]:
    """The command line with the values of headers hidden."""
    hidden = []
    previous = ""
    for word in command:
        is_value = previous == "--header"
        inline = word.startswith("--header=")
        hidden.append("***" if is_value else ("--header=***" if inline else word))
        previous = word
    return hidden


def _safe(key: str) -> str:
    """A cell's key as one path component: model names are a server's word, not ours."""
    name = "".join(c if c.isalnum() or c in "-_.=" else f"%{ord(c):x}" for c in key).lstrip(".")
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    start = name.encode()[: _LONGEST_NAME - 20].decode(errors="ignore")
    return f"{start}-{sha256(key.encode()).hexdigest()[:16]}"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(f"{path.parent} holds no run: {path.name} is missing.") from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}): restore it, or measure again.") from error
    if not isinstance(data, dict):
        raise RunFolderError(f"{path} is not a run's file: it holds no JSON object.")
    return data


def _samples(path: Path) -> Samples:
    """Of the trial whose JSON is at `path`."""
    samples = path.with_suffix(".npz")
    try:
        return Samples.load(samples)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else "is no archive of samples"
        raise RunFolderError(
            f"{samples} {why}: restore it, or remove it and {path.name}, and --resume measures it again."
        ) from error


def _structure(data: dict[str, Any], kind: type[Any], path: Path) -> Any:
    try:
        return _converter.structure(data, kind)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is not what this bench writes: {error}.") from error
