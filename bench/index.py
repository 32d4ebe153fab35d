"""reports/index.html: every run of a folder, its verdicts, and how the best throughput went over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from bench.cells import frame, rows
from bench.errors import RunFolderError
from bench.run import RunFolder, RunRecord
from bench.static_page import static_page
from bench.units import significant

_VERDICTS = ("VALID", "INVALID", "FAILED", "NOT RUN")


@dataclass(frozen=True, slots=True)
class Line:
    """One run, as the index shows it. `report`: relative to the index; empty without one."""

    record: RunRecord
    folder: str
    report: str
    counts: dict[str, int]
    best_img_per_s: float | None
    best_cell: str

    @property
    def track(self) -> tuple[str, str]:
        """Runs that a trend may join: the same model on the same machine."""
        models = sorted({cell.server.model for cell in self.record.planned})
        machine = self.record.machine
        return ", ".join(models), machine.get("gpu0", machine.get("cpu", ""))


def write(reports: Path) -> Path:
    """reports/index.html, atomically. Folders that hold no readable run are left out."""
    path = reports / "index.html"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(render(lines(reports)), encoding="utf-8")
    part.replace(path)
    return path


def lines(reports: Path) -> list[Line]:
    """The newest first."""
    found = []
    for path in sorted(entry.parent for entry in reports.glob("*/run.json")):
        try:
            found.append(_line(RunFolder.open(path)))
        except RunFolderError:
            continue  # another schema, or half copied: the others are still worth a list
    return sorted(found, key=lambda line: line.record.created_at, reverse=True)


def _line(folder: RunFolder) -> Line:
    """From cells.csv where there is one: samples of every run would be read for a list otherwise."""
    csv = folder.path / "cells.csv"
    table = pd.read_csv(csv) if csv.exists() else frame(rows(folder))
    known = table[["cell", "verdict", "throughput_img_per_s"]].astype(object).to_dict("records")
    counts = {word: sum(row["verdict"] == word for row in known) for word in _VERDICTS}
    valid = [row for row in known if row["verdict"] == "VALID" and pd.notna(row["throughput_img_per_s"])]
    best = max(valid, key=lambda row: float(row["throughput_img_per_s"]), default=None)
    report = folder.path / "report.html"
    return Line(
        record=folder.record,
        folder=folder.path.name,
        report=f"{quote(folder.path.name)}/report.html" if report.exists() else "",
        counts=counts,
        best_img_per_s=float(best["throughput_img_per_s"]) if best is not None else None,
        best_cell=str(best["cell"]) if best is not None else "",
    )


def render(found: Sequence[Line]) -> str:
    tracks = dict.fromkeys(line.track for line in found)
    body = "".join(_section(track, [line for line in found if line.track == track]) for track in tracks)
    return static_page(
        kind="Triton benchmark",
        heading="Runs",
        facts=f"{len(found)} runs. Best: most img/s of a VALID cell; different loads do not compare.",
        body=body or "<p>No runs here yet.</p>",
    )


def _section(track: tuple[str, str], found: Sequence[Line]) -> str:
    headings = ("run", "started", "cells", "best img/s", "of", "SLO", "target")
    head = "".join(f'<th class="left" scope="col">{name}</th>' for name in headings)
    return (
        f"<section><h2>{escape(track[0])}</h2><p class=lead>{escape(track[1])}</p>{_trend(found)}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
        + "".join(_row(line) for line in found)
        + "</tbody></table></div></section>"
    )


def _row(line: Line) -> str:
    name = escape(line.record.name)
    named = f'<a href="{escape(line.report)}">{name}</a>' if line.report else name
    counts = ", ".join(f"{n} {word}" for word, n in line.counts.items() if n)
    unfinished = "" if line.record.finished_at else " (unfinished)"
    best = significant(line.best_img_per_s) if line.best_img_per_s is not None else ""
    started = line.record.created_at.replace("T", " ")[:16]
    cells = (named, escape(started), escape(counts + unfinished), best, escape(line.best_cell),
             escape(line.record.slo), escape(line.record.target))  # fmt: skip
    return f"<tr>{''.join(f'<td class=left>{cell}</td>' for cell in cells)}</tr>"


def _trend(found: Sequence[Line]) -> str:
    """Best img/s run by run, oldest first, as a small SVG; nothing for fewer than two."""
    known = [line for line in reversed(found) if line.best_img_per_s is not None]
    if len(known) < 2:
        return ""
    values = [line.best_img_per_s or 0.0 for line in known]
    top, width, height = max(values), 640, 90
    step = (width - 20) / (len(values) - 1)
    points = [(10 + i * step, height - 8 - (height - 24) * value / top) for i, value in enumerate(values)]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(line.record.name)}: '
        f"{significant(line.best_img_per_s or 0)} img/s</title></circle>"
        for line, (x, y) in zip(known, points, strict=True)
    )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px;width:100%;color:var(--accent)" '
        'role="img" aria-label="Best img/s over time" fill="currentColor">'
        f'<line x1="0" x2="{width}" y1="{height - 8}" y2="{height - 8}" stroke="var(--line)"/>'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/>{dots}</svg>'
    )
