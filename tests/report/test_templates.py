"""HTML by templates: text of data is never markup, whatever it is and wherever it stands."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from bench.analysis import cell_table
from bench.analysis.comparison import compare
from bench.analysis.results import RunResults
from bench.core.gates import parse_gate
from bench.core.run_folder import RunFolder
from bench.report import comparison, index, page, sections, templates
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell

# It would end a script or an attribute, open an element, or be taken for a place in a template.
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`&{{ 7 * 7 }}{% raw %}<!--"
ELEMENTS = {"img", "iframe", "object", "embed", "base"}


class Elements(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_inert(html: str, scripts: int) -> None:
    found = Elements(html).found
    assert not {tag for tag, _ in found} & ELEMENTS
    assert sum(tag == "script" for tag, _ in found) == scripts
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]


def evil_study(name: str = EVIL, **changes: Any) -> Study:
    """A run in which every text that a user or a server chooses is hostile."""
    bad = cell(model=EVIL, parameters=((EVIL, EVIL),))
    study = Study(
        cells=(bad, cell(model=EVIL, batch=1)), failed={bad.key: EVIL}, name=name, machine={EVIL: EVIL},
        weights=EVIL, world=World(error_share=0.1),
    )  # fmt: skip
    return dataclasses.replace(study, **changes)


def evil_run(path: Path, **changes: Any) -> RunFolder:
    folder = synthetic.write(path, evil_study(**changes))
    record = folder.record
    folder.write_record(
        dataclasses.replace(
            record, command=("bench", EVIL), target=EVIL, versions={EVIL: EVIL}, served={EVIL: {EVIL: EVIL}},
            spec={**record.spec, "names": [EVIL]},
        )
    )  # fmt: skip
    probe = {"rate_per_s": 1.0, "outcome": EVIL, "why": EVIL}
    answer = {"what": EVIL, "rate_per_s": 1.0, "doubts": [EVIL], "probes": [probe]}
    (path / "search.json").write_text(json.dumps([answer]))
    step = {"what": EVIL, "stage": EVIL, "holds": EVIL, "why": EVIL}
    tuned = {"answer": [EVIL, EVIL], "steps": [step], "config_pbtxt": EVIL, "config_map": EVIL}
    (path / "tune.json").write_text(json.dumps(tuned))
    return RunFolder(path)


def test_hostile_text_in_every_field_of_a_run_stays_text(tmp_path: Path) -> None:
    html = page.render([RunResults.of(evil_run(tmp_path / "run"))])
    assert_inert(html.replace(templates.asset(page.PLOTLY), ""), scripts=3)
    shown = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert unescape(shown).count(EVIL) > 15


def test_hostile_text_in_an_index_stays_text(tmp_path: Path) -> None:
    for place in ("one", "two", "family/a", "family/b"):
        folder = evil_run(tmp_path / place, name=EVIL)
        cell_table.write_csv(RunResults.of(folder).rows, folder.path / "cells.csv")
        page.write(RunResults.of(folder))
    html = index.write(tmp_path).read_text()
    assert_inert(html, scripts=0)
    assert EVIL in unescape(html)


def test_hostile_text_in_a_comparison_stays_text(tmp_path: Path) -> None:
    base, new = (RunResults.of(evil_run(tmp_path / name, name=f"{name} {EVIL}")) for name in ("base", "new"))
    html = comparison.as_html(compare(base, new, [parse_gate("p50>+5%")]))
    assert_inert(html, scripts=0)
    assert f"new {EVIL}" in unescape(html)


def test_a_value_that_a_template_needs_and_does_not_get_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="section"):
        templates.render("section.html", content="")


def test_a_section_that_no_run_has_something_for_is_left_out(tmp_path: Path) -> None:
    plain = synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1))
    assert sections.render(sections.ABOVE, [plain]) == ""
    shown = sections.render(sections.BELOW, [plain, plain])
    assert isinstance(shown, Markup)
    assert shown.count("<h2>What was measured</h2>") == 1
    assert shown.count("<h3>Command</h3>") == 2


def test_static_pages_follow_the_system_into_the_dark(tmp_path: Path) -> None:
    html = index.write(tmp_path).read_text()
    assert html.startswith("<!doctype html>")
    assert re.search(r"prefers-color-scheme: dark\) \{ :root \{\s+--bg: #\w+;", html)


class Notes:
    """A section of one's own: the file notes.txt of a run folder."""

    NAME = "notes"
    TITLE = "Notes & remarks"

    def render(self, folder: RunFolder) -> Markup | None:
        path = folder.path / "notes.txt"
        return Markup("<p>{}</p>").format(path.read_text()) if path.exists() else None


def test_a_section_of_ones_own_is_a_class_and_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1))
    monkeypatch.setattr(sections, "BELOW", [*sections.BELOW, Notes()])
    assert 'id="notes"' not in page.render([RunResults.of(folder)])
    (folder.path / "notes.txt").write_text("a < b")
    html = page.render([RunResults.of(folder)])
    assert '<section id="notes">\n<h2>Notes &amp; remarks</h2>\n<p>a &lt; b</p>\n</section>' in html
