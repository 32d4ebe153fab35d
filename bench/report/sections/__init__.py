"""Sections of the report that are text and tables. Each says what it shows of one run.

To add one, write a module with a `Section` and its template, and add it to `ABOVE` or `BELOW`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

from bench.core.run_folder import RunFolder
from bench.report import templates
from bench.report.sections import method, search, tuning


class Section(Protocol):
    """`NAME` is the section's id in the page, `TITLE` its heading."""

    NAME: str
    TITLE: str

    def render(self, folder: RunFolder) -> Markup | None:
        """What it shows of one run, without the heading; None where the run has nothing for it."""
        ...


ABOVE: list[Section] = [search, tuning]  # before the answer
BELOW: list[Section] = [method]  # at the end of the page


def render(sections: Sequence[Section], folders: Sequence[RunFolder]) -> Markup:
    """Those sections that have something to show of any of the runs, one run after the other."""
    shown = Markup("")
    for section in sections:
        parts = [section.render(folder) for folder in folders]
        content = Markup("").join(part for part in parts if part is not None)
        if content:
            shown += templates.render("section.html", section=section, content=content)
    return shown
