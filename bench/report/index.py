"""reports/index.html: every run of a folder, its verdicts, and how the best throughput went over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from bench.analysis.cell_table import frame
from bench.analysis.results import RunResults
from bench.core.errors import RunFolderError
from bench.core.files import write_text
from bench.core.run_folder import RunFolder, RunRecord
from bench.core.units import plural, significant
from bench.report import templates

_PLACES = ("*/run.json", "*/*/run.json")  # The second pattern finds runs that were interleaved.
_VERDICTS = ("VALID", "INVALID", "FAILED", "NOT RUN")
_COLUMNS = ["cell", "verdict", "findings", "throughput_img_per_s"]
_HEADINGS = ("run", "started (UTC)", "cells", "best img/s", "best cell", "SLO", "target")
# The drawing of a trend, in pixels.
_WIDTH, _HEIGHT, _FLOOR, _SIDE = 640, 90, 82, 10


@dataclass(frozen=True, slots=True)
class Line:
    """One run, as the index shows it. `report`: relative to the index; empty without one."""

    record: RunRecord
    folder: str
    family: str  # the folder of all runs that were interleaved with it; "" for a run by itself
    report: str
    counts: dict[str, int]
    best_img_per_s: float | None
    best_cell: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns after the run's name."""
        counts = ", ".join(f"{n} {word}" for word, n in self.counts.items() if n)
        return (
            self.record.created_at.replace("T", " ")[:16],
            counts + ("" if self.record.finished_at else " (unfinished)"),
            significant(self.best_img_per_s) if self.best_img_per_s is not None else "",
            self.best_cell,
            self.record.slo,
            self.record.target,
        )

    @property
    def name(self) -> str:
        return f"{self.family} / {self.record.name}" if self.family else self.record.name

    @property
    def track(self) -> tuple[str, str]:
        """What can be compared at all: the same model on the same machine."""
        models = {cell.server.model for cell in self.record.planned} or {self.record.spec.get("model", "")}
        machine = self.record.machine
        return ", ".join(sorted(models)), machine.get("gpu0", machine.get("cpu", ""))

    @property
    def question(self) -> frozenset[str]:
        """Only runs of the same cells are joined by a trend."""
        return frozenset(cell.key for cell in self.record.planned)


def write(reports: Path) -> Path:
    """Write reports/index.html. Folders that hold no readable run are left out."""
    path = reports / "index.html"
    found = lines(reports)
    links = {line.family: _pages(reports / line.family) for line in found if line.family}
    write_text(path, render(found, links))
    return path


def holds_runs(reports: Path) -> bool:
    return any(next(reports.glob(pattern), None) for pattern in _PLACES)


def family(path: Path) -> list[RunFolder]:
    """The runs of a folder of interleaved runs, oldest first; none in any other folder."""
    if (path / "run.json").exists():
        return []
    members, unreadable = [], []
    for entry in sorted(path.glob("*/run.json")):
        try:
            record = RunFolder(entry.parent).record
        except RunFolderError as error:
            unreadable.append(error)
            continue
        if record.spec.get("variant"):
            members.append((record.created_at, RunFolder(entry.parent)))
    if members and unreadable:
        raise unreadable[0]
    return [folder for _, folder in sorted(members, key=lambda member: member[0])]


def lines(reports: Path) -> list[Line]:
    """The newest first."""
    found = []
    for path in sorted(entry.parent for pattern in _PLACES for entry in reports.glob(pattern)):
        try:
            found.append(_line(RunFolder.open(path), reports))
        except RunFolderError:
            continue  # another schema, or half copied: the others are still worth a list
    return sorted(found, key=lambda line: line.record.created_at, reverse=True)


def _pages(family: Path) -> list[tuple[str, str]]:
    """What is said of all of a family at once: (what, where)."""
    found = [("all of them", family / "report.html")]
    found += [(path.stem.replace("-", " ", 1), path) for path in sorted(family.glob("compare*.html"))]
    return [(name, f"{quote(family.name)}/{quote(path.name)}") for name, path in found if path.exists()]


def _line(folder: RunFolder, reports: Path) -> Line:
    """From cells.csv where there is one: samples of every run would be read for a list otherwise."""
    known = _cells(folder)
    counts = {word: sum(row["verdict"] == word for row in known) for word in _VERDICTS}
    valid = [row for row in known if _is_candidate(row)]
    best = max(valid, key=lambda row: float(row["throughput_img_per_s"]), default=None)
    place = folder.path.relative_to(reports)
    report = folder.path / "report.html"
    return Line(
        record=folder.record,
        folder=str(place),
        family="" if len(place.parts) == 1 else place.parts[0],
        report=quote(str(place / "report.html")) if report.exists() else "",
        counts=counts,
        best_img_per_s=float(best["throughput_img_per_s"]) if best is not None else None,
        best_cell=str(best["cell"]) if best is not None else "",
    )


def _is_candidate(row: Mapping[Any, Any]) -> bool:
    """As `CellRow.is_candidate`."""
    is_valid = row["verdict"] == "VALID" and pd.notna(row["throughput_img_per_s"])
    return bool(is_valid) and "too-many-errors" not in str(row["findings"]).split()


def _cells(folder: RunFolder) -> list[dict[Any, Any]]:
    """From its trials where cells.csv is not there, or is not what is written now."""
    try:
        table = pd.read_csv(folder.path / "cells.csv", dtype={"cell": str, "verdict": str})[_COLUMNS]
        table = table.astype({"throughput_img_per_s": float})
    except (OSError, ValueError, KeyError):
        table = frame(RunResults.of(folder).rows)[_COLUMNS]
    return table.astype(object).to_dict("records")


def render(found: Sequence[Line], links: Mapping[str, Sequence[tuple[str, str]]] | None = None) -> str:
    """`links`: of each family, pages over all of it as (what, where)."""
    tracks: dict[tuple[str, str], list[Line]] = {}
    for line in found:
        tracks.setdefault(line.track, []).append(line)
    return templates.render(
        "index.html",
        kind="Triton benchmark",
        heading="Runs",
        facts=f"{plural(len(found), 'run')}. Best: the most img/s of a VALID cell. "
        "Compare only runs of the same cells.",
        headings=_HEADINGS,
        tracks=[
            {
                "model": model,
                "machine": machine,
                "trend": _trend(members),
                "groups": _groups(members, links or {}),
            }
            for (model, machine), members in tracks.items()
        ],
    )


def _groups(found: Sequence[Line], links: Mapping[str, Sequence[tuple[str, str]]]) -> list[dict[str, Any]]:
    """A run on its own; or the interleaved runs of a family, oldest first, below a line about all of them."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in found:
        groups.setdefault((line.family, "" if line.family else line.folder), []).append(line)
    return [
        {
            "family": family,
            "count": f"{plural(len(members), 'run')}, interleaved",
            "pages": links.get(family, ()),
            "lines": sorted(members, key=lambda line: line.record.created_at),
        }
        for (family, _), members in groups.items()
    ]


def _trend(found: Sequence[Line]) -> dict[str, Any] | None:
    """Best img/s run by run, oldest first, as places in a drawing; None for fewer than two."""
    known = [(line, line.best_img_per_s) for line in reversed(found) if line.best_img_per_s is not None]
    if len(known) < 2:
        return None
    highest = max(value for _, value in known)
    step = (_WIDTH - 2 * _SIDE) / (len(known) - 1)
    rise = (_FLOOR - 16) / highest
    points = [
        {
            "x": f"{_SIDE + i * step:.1f}",
            "y": f"{_FLOOR - value * rise:.1f}",
            "text": f"{line.name}: {significant(value)} img/s",
        }
        for i, (line, value) in enumerate(known)
    ]
    first, last = (line.record.created_at[:10] for line, _ in (known[0], known[-1]))
    return {
        "days": first if first == last else f"{first} to {last}",
        "highest": significant(highest),
        "width": _WIDTH,
        "height": _HEIGHT,
        "floor": _FLOOR,
        "lines": _joined([line.question for line, _ in known], points),
        "points": points,
    }


def _joined(questions: Sequence[frozenset[str]], points: Sequence[Mapping[str, str]]) -> list[str]:
    """A polyline through the points of each set of cells that has at least two runs."""
    lines: dict[frozenset[str], list[str]] = {}
    for question, point in zip(questions, points, strict=True):
        lines.setdefault(question, []).append(f"{point['x']},{point['y']}")
    return [" ".join(line) for line in lines.values() if len(line) > 1]
