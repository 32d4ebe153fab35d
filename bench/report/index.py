"""reports/index.html: every run of a folder, its verdicts, and how the best throughput went over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
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
from bench.report.static_page import static_page

_PLACES = ("*/run.json", "*/*/run.json")  # the second: runs that took turns
_VERDICTS = ("VALID", "INVALID", "FAILED", "NOT RUN")
_COLUMNS = ["cell", "verdict", "throughput_img_per_s"]
_HEADINGS = ("run", "started (UTC)", "cells", "best img/s", "best cell", "SLO", "target")
_STYLES = """
.family td { padding-top: 14px; } .nested td:first-child { padding-left: 18px; }
.trend { max-width: 640px; width: 100%; color: var(--accent); } td.cell { white-space: normal; }"""


@dataclass(frozen=True, slots=True)
class Line:
    """One run, as the index shows it. `report`: relative to the index; empty without one."""

    record: RunRecord
    folder: str
    family: str  # the folder it shares with those it was measured in turns with; "" on its own
    report: str
    counts: dict[str, int]
    best_img_per_s: float | None
    best_cell: str

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
    """The runs in a folder of such as were measured in turns, oldest first; none in any other folder."""
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
    valid = [row for row in known if row["verdict"] == "VALID" and pd.notna(row["throughput_img_per_s"])]
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
    tracks = dict.fromkeys(line.track for line in found)
    body = "".join(
        _section(track, [line for line in found if line.track == track], links or {}) for track in tracks
    )
    return static_page(
        kind="Triton benchmark",
        heading="Runs",
        facts=f"{plural(len(found), 'run')}. Best: most img/s of a VALID cell; "
        "runs of other cells do not compare.",
        body=body or "<p>No runs here yet.</p>",
        style=_STYLES,
    )


def _section(
    track: tuple[str, str], found: Sequence[Line], links: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    head = "".join(f'<th class="left" scope="col">{name}</th>' for name in _HEADINGS)
    groups = dict.fromkeys((line.family or line.folder, bool(line.family)) for line in found)
    body = "".join(
        _group(
            name, [line for line in found if (line.family or line.folder) == name], links, is_family=is_family
        )
        for name, is_family in groups
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return (
        f"<section><h2>{escape(track[0])}</h2><p class=lead>{escape(track[1])}</p>{_trend(found)}"
        f'<div class="scroll">{table}</div></section>'
    )


def _group(
    name: str,
    found: Sequence[Line],
    links: Mapping[str, Sequence[tuple[str, str]]],
    *,
    is_family: bool,
) -> str:
    """A run on its own; or runs that took turns, oldest first, below a line with what is said of all."""
    if not is_family:
        return "".join(_row(line, "") for line in found)
    pages = " · ".join(f'<a href="{escape(where)}">{escape(what)}</a>' for what, where in links.get(name, ()))
    head = f"<b>{escape(name)}</b> · {plural(len(found), 'run')} in turns{' · ' * bool(pages)}{pages}"
    nested = "".join(_row(line, "nested") for line in sorted(found, key=lambda line: line.record.created_at))
    return f'<tr class="family"><td class="left" colspan="{len(_HEADINGS)}">{head}</td></tr>{nested}'


def _row(line: Line, kind: str) -> str:
    name = escape(line.record.name)
    named = f'<a href="{escape(line.report)}">{name}</a>' if line.report else name
    counts = ", ".join(f"{n} {word}" for word, n in line.counts.items() if n)
    unfinished = "" if line.record.finished_at else " (unfinished)"
    best = significant(line.best_img_per_s) if line.best_img_per_s is not None else ""
    started = line.record.created_at.replace("T", " ")[:16]
    cells = (named, escape(started), escape(counts + unfinished), best, escape(line.best_cell),
             escape(line.record.slo), escape(line.record.target))  # fmt: skip
    return f'<tr class="{kind}">{"".join(f"<td class=left>{cell}</td>" for cell in cells)}</tr>'


def _trend(found: Sequence[Line]) -> str:
    """Best img/s run by run, oldest first, as a small SVG; nothing for fewer than two."""
    known = [line for line in reversed(found) if line.best_img_per_s is not None]
    if len(known) < 2:
        return ""
    top, width, height = max(line.best_img_per_s or 0.0 for line in known), 640, 90
    step = (width - 20) / (len(known) - 1)
    points = [
        (10 + i * step, height - 8 - (height - 24) * (line.best_img_per_s or 0.0) / top)
        for i, line in enumerate(known)
    ]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(_name(line))}: '
        f"{significant(line.best_img_per_s or 0)} img/s</title></circle>"
        for line, (x, y) in zip(known, points, strict=True)
    )
    joined = [
        " ".join(
            f"{x:.1f},{y:.1f}" for line, (x, y) in zip(known, points, strict=True) if line.question == one
        )
        for one in dict.fromkeys(line.question for line in known)
    ]
    paths = "".join(
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        for path in joined
        if " " in path
    )
    first, last = (line.record.created_at[:10] for line in (known[0], known[-1]))
    days = first if first == last else f"{first} to {last}"
    return (
        f'<p class="note">Best img/s, run by run, {days}; the highest is {significant(top)}. '
        "A line joins runs of the same cells.</p>"
        f'<svg class="trend" viewBox="0 0 {width} {height}" '
        'role="img" aria-label="Best img/s over time" fill="currentColor">'
        f'<line x1="0" x2="{width}" y1="{height - 8}" y2="{height - 8}" stroke="var(--line)"/>'
        f"{paths}{dots}</svg>"
    )


def _name(line: Line) -> str:
    return f"{line.family} / {line.record.name}" if line.family else line.record.name
