"""Sections of the report that are text and tables. Each says what it shows of one run.

To add one, write a module with a `Section`, its template in web/templates/sections, and a line in `ABOVE` or
`BELOW`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from markupsafe import Markup

from bench.core.run_folder import RunFolder
from bench.report import templates
from bench.report.sections import method, search, tuning


class Section(Protocol):
    """`NAME`: the section's id in the page and the name of its template. `TITLE`: its heading."""

    NAME: str
    TITLE: str

    def values(self, folder: RunFolder) -> dict[str, Any] | None:
        """What the template needs of one run; None where the run has nothing for this section."""
        ...


ABOVE: tuple[Section, ...] = (search, tuning)  # before the answer
BELOW: tuple[Section, ...] = (method,)  # at the end of the page


def render(sections: Sequence[Section], folders: Sequence[RunFolder]) -> Markup:
    """Those sections that have something to show of any of the runs, one run after the other."""
    shown = []
    for section in sections:
        parts = [content(section, folder) for folder in folders]
        known = Markup("").join(part for part in parts if part)
        if known:
            shown.append(templates.render("section.html", section=section, content=known))
    return Markup("").join(shown)


def content(section: Section, folder: RunFolder) -> Markup | None:
    """What a section shows of one run, without its heading."""
    values = section.values(folder)
    return None if values is None else templates.render(f"sections/{section.NAME}.html", **values)
