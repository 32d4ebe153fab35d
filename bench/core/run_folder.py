"""The run folder: everything a sweep measured, written after every trial, readable on its own.

    run.json                           what was asked, of what, by what machine (`RunRecord`)
    trials/<cell>/<repeat>.json, .npz  one trial each; the .npz holds its samples
    confirmation/                      the same of fresh trials of the best cell, made after it was picked
    cells.csv, report.html             made from the above, at any time, by anyone

Each file is written to a neighbour and moved into place, so a killed sweep loses the trial in
flight and nothing else. Readers refuse a schema they do not know. A trial that cannot be read is an
`Unreadable` beside the others. Nothing that a file holds makes a reader raise anything but RunFolderError.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import cattrs
import numpy as np
from cattrs.preconf.json import make_converter

from bench.core import run_lock
from bench.core.cell import Cell
from bench.core.errors import RunFolderError
from bench.core.files import remove_parts, write_json
from bench.core.samples import Outcome, Samples
from bench.core.slo import parse_slo
from bench.core.trial import Trial

SCHEMA_VERSION = 1
# Fresh trials of the best cell are kept here, so that they are not pooled with those it was picked by.
CONFIRMATION = "confirmation"
_PARTS = ("trials", CONFIRMATION)
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
# No JSON file of a run comes near this size; reading a larger one would only fill the memory.
_MOST_JSON_BYTES = 256 << 20
# Times are int64 nanoseconds; differences of those up to this one stay within 64 bits.
_LATEST_NS = 1 << 61
# What follows the names of the two files of a trial that could not be read and was measured again.
_SET_ASIDE = ".unreadable"

_converter = make_converter()
# Samples live in the .npz beside the trial's JSON, not in it.
_converter.register_unstructure_hook(Samples, lambda samples: len(samples))
_converter.register_structure_hook(Samples, lambda _length, _type: Samples.of([]))


@dataclass(frozen=True, slots=True)
class Crash:
    """An embedded server died, and was started again."""

    key: str  # of the cell that was measured, or of the server configuration that was loaded
    reason: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """A trial that was measured and not kept, since it was measured again."""

    key: str  # of its cell
    repeat: int
    reason: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A trial whose files are damaged. `cell` is its cell's key, as far as the run tells."""

    cell: str
    repeat: str
    reason: str  # a sentence that names the file


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
    discarded: tuple[Discarded, ...] = ()
    # cells whose other repeats were not measured, as too many requests failed: cell key -> a sentence
    left_out: Mapping[str, str] = field(default_factory=dict)
    finished_at: str = ""  # "": interrupted, or still running
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class _TensorShape:
    name: str = ""
    data_type: str = ""
    dims: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class _GroupShape:
    count: int = 1


@dataclass(frozen=True, slots=True)
class _ServedShape:
    """What readers take from a served configuration, which is otherwise kept as the server told it."""

    input: tuple[_TensorShape, ...] | None = None
    output: tuple[_TensorShape, ...] | None = None
    instance_group: tuple[_GroupShape, ...] | None = None
    parameters: Mapping[str, Mapping[str, Any]] | None = None
    max_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class _SpecShape:
    """What readers take from the axes and durations as asked."""

    model: str = ""
    repeats: int = 1
    image_height: int = 224
    image_width: int = 224
    parameters: tuple[tuple[str, tuple[str, ...]], ...] = ()


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
        record: RunRecord = _structure(data, RunRecord, self.path / "run.json")
        _check(record, self.path / "run.json")
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

    def add_discarded(self, discarded: Discarded) -> None:
        self._change(lambda record: {"discarded": (*record.discarded, discarded)})

    def add_left_out(self, cell_key: str, reason: str) -> None:
        """Note that the other repeats of a cell are not measured."""
        self._change(lambda record: {"left_out": {**record.left_out, cell_key: reason}})

    def finish(self) -> None:
        """Note that everything that was asked for has been tried."""
        self._change(lambda _: {"finished_at": utc_now()})

    def _change(self, changes: Callable[[RunRecord], Mapping[str, Any]]) -> None:
        record = self.record
        self.write_record(replace(record, **changes(record)))

    def write_trial(self, trial: Trial) -> None:
        """Samples first: a trial exists once its JSON does.

        Raises RunFolderError where it cannot be written; the trials before it stay as they are.
        """
        stem = self._stem(trial.cell.key, trial.plan.repeat)
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            trial.samples.save(stem.with_suffix(".npz"))
            write_json(stem.with_suffix(".json"), _converter.unstructure(trial))
        except RunFolderError as error:
            raise RunFolderError(
                f"{error} The trials before it are kept: --resume goes on from there."
            ) from error
        except OSError as error:
            raise RunFolderError(
                f"{stem.parent} cannot be made ({error.strerror}): check the permissions and the free space; "
                "--resume goes on from there."
            ) from error

    def has_trial(self, cell_key: str, repeat: int) -> bool:
        return self._stem(cell_key, repeat).with_suffix(".json").exists()

    def trials(self, cell_key: str = "") -> Iterator[Trial]:
        """Every trial that can be read, or those of one cell, in the order of `read_trials`."""
        return (one for one in self.read_trials(cell_key) if isinstance(one, Trial))

    def read_trials(self, cell_key: str = "") -> Iterator[Trial | Unreadable]:
        """Every trial, or those of one cell, by cell and repeat; one at a time, as samples may be large."""
        folder = _safe(cell_key) if cell_key else "*"
        for path in sorted((self.path / self.part).glob(f"{folder}/*.json")):
            try:
                yield _trial(path)
            except RunFolderError as error:
                yield Unreadable(self._cell_of(path), path.stem, str(error))

    def mend(self) -> list[Unreadable]:
        """Make the folder ready for further trials, and tell which trials could not be read.

        Their files are kept under other names, so that the trials are measured again. What a killed process
        left half written is removed. Only whoever holds the folder's lock may call it.
        """
        folders = [folder for part in _PARTS for folder in sorted((self.path / part).glob("*/"))]
        for folder in (self.path, *folders):
            remove_parts(folder)
        unreadable = []
        for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
            try:
                _trial(path)
            except RunFolderError as error:
                unreadable.append(Unreadable(self._cell_of(path), path.stem, str(error)))
                for file in (path.with_suffix(".npz"), path):
                    if file.exists():
                        file.replace(file.with_name(f"{file.name}{_SET_ASIDE}"))
        return unreadable

    def _cell_of(self, path: Path) -> str:
        """The key of the cell that the trial in this file is of; its folder may have a shorter name."""
        names = {_safe(cell.key): cell.key for cell in self.record.planned}
        return names.get(path.parent.name, path.parent.name)

    def trial_counts(self) -> list[int]:
        """How many trials each measured cell has, told without reading them."""
        counts = Counter(path.parent for path in (self.path / self.part).glob("*/*.json"))
        return list(counts.values())

    def read_json(self, name: str) -> Any | None:
        """A further JSON file of the run, such as ceiling.json; None where there is none.

        Raises RunFolderError for a file that is no JSON.
        """
        path = self.path / name
        return _json(path) if path.exists() else None

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
    if path.exists() and not is_run and any(not _is_harmless(entry) for entry in path.iterdir()):
        raise RunFolderError(f"--out {path} is not empty and holds no run: choose an empty or new folder.")


def _is_harmless(path: Path) -> bool:
    """Whether it may lie in a folder that becomes a run's: a server's log, or a lock."""
    return path.suffix == ".log" or path.name == run_lock.NAME


def refuse_unwritable(path: Path) -> None:
    """Raises RunFolderError where a folder at `path` can be neither made nor written into."""
    whole = path.absolute()
    there = next(place for place in (whole, *whole.parents) if place.exists())
    if not there.is_dir():
        raise RunFolderError(f"--out {path}: {there} is a file: choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunFolderError(f"--out {path} cannot be written, {there} is read-only: choose another folder.")


def _safe(key: str) -> str:
    """A cell's key as one path component: model names are a server's word, not ours."""
    name = "".join(c if c.isalnum() or c in "-_.=" else f"%{ord(c):x}" for c in key).lstrip(".")
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    start = name.encode()[: _LONGEST_NAME - 20].decode(errors="ignore")
    return f"{start}-{sha256(key.encode()).hexdigest()[:16]}"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise RunFolderError(f"{path.parent} holds no run: {path.name} is missing.")
    data = _json(path)
    if not isinstance(data, dict):
        raise RunFolderError(f"{path} is not a run's file: it holds no JSON object.")
    return data


def _json(path: Path) -> Any:
    """Raises RunFolderError for what is no JSON, is too large, or is nested too deeply."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise ValueError(f"it is larger than {_MOST_JSON_BYTES >> 20} MiB")
        return _whole(json.loads(path.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise RunFolderError(
            f"{path} cannot be read (it is nested too deeply): restore it, or measure again."
        ) from error
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}): restore it, or measure again.") from error


def _whole(data: Any) -> Any:
    """Halves of surrogate pairs, which JSON can spell and no file or terminal takes, as question marks."""
    if isinstance(data, str):
        return data.encode(errors="replace").decode()
    if isinstance(data, list):
        return [_whole(one) for one in data]
    if isinstance(data, dict):
        return {_whole(name): _whole(value) for name, value in data.items()}
    return data


def _check(record: RunRecord, path: Path) -> None:
    """Raises RunFolderError where the parts of a record that have no type of their own are none of ours."""
    _structure(dict(record.spec), _SpecShape, path)
    for config in record.served.values():
        _structure(config, _ServedShape, path)
    try:
        parse_slo(record.slo) if record.slo else None
    except ValueError as error:
        raise RunFolderError(f"{path} is not what this bench writes: slo {record.slo!r}.") from error


def _trial(path: Path) -> Trial:
    """The trial whose JSON is at `path`, with its samples. Raises RunFolderError."""
    described: Trial = _structure(_read_json(path), Trial, path)
    trial = replace(described, samples=_samples(path))
    if wrong := _nonsense(trial):
        raise RunFolderError(
            f"{path} and its .npz hold no trial ({wrong}): restore them, or let --resume measure it again."
        )
    return trial


def _nonsense(trial: Trial) -> str:
    """What no measurement can have recorded; "" for a sound trial."""
    window, plan, load = trial.window, trial.plan, trial.cell.load
    if not -_LATEST_NS < window.start_ns < window.end_ns < _LATEST_NS:
        return "its window has no length"
    level = load.rate_per_s if load.rate_per_s is not None else load.concurrency
    batches = trial.counters.batches if trial.counters else {}
    numbers = (load.batch, level, plan.repeat + 1, plan.timeout_s)
    if not all(number is not None and math.isfinite(number) and number > 0 for number in numbers):
        return "its plan cannot be measured"
    if any(size < 1 or count < 0 for size, (count, _) in batches.items()):
        return "its batches cannot have been executed"
    samples = trial.samples
    times = np.concatenate([samples.intended_ns, samples.sent_ns, samples.done_ns])
    if len(times) and not -_LATEST_NS < times.min() <= times.max() < _LATEST_NS:
        return "a time is beyond what a clock shows"
    if len(times) and not 0 <= samples.outcome.min() <= samples.outcome.max() <= max(Outcome):
        return "an outcome is unknown"
    return ""


def _samples(path: Path) -> Samples:
    """Of the trial whose JSON is at `path`."""
    samples = path.with_suffix(".npz")
    try:
        return Samples.load(samples)
    except (OSError, ValueError) as error:
        why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise RunFolderError(f"{samples} {why}: restore it, or let --resume measure it again.") from error


def _structure(data: Any, kind: type[Any], path: Path) -> Any:
    try:
        return _converter.structure(data, kind)
    except cattrs.BaseValidationError as error:
        places = cattrs.transform_error(error)
        more = f" and {len(places) - 2} more" if len(places) > 2 else ""
        raise RunFolderError(
            f"{path} is not what this bench writes: {'; '.join(places[:2])}{more}."
        ) from error
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise RunFolderError(f"{path} is not what this bench writes: {error}.") from error
