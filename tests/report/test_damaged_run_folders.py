"""A run folder with any of its files damaged: `bench report` ends with a report or with one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli.verbs.report import report_of
from bench.core.errors import BenchError
from bench.core.run_folder import RunFolder
from bench.report import index

EXAMPLE = Path(__file__).parents[2] / "reports" / "example"
# What a JSON file may hold instead of what was written. Numbers that no page can show are `test_page`'s.
INSTEAD = st.sampled_from(
    [None, -1, 0, 2**63, -(10**25), "", "x", "\ud800", "<b>", [], {}, [[]], {"a": 1}, True, [1, 2], 0.5]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two measured cells of a real run, and a third that was only planned."""
    path = tmp_path_factory.mktemp("whole") / "run"
    record = json.loads((EXAMPLE / "run.json").read_text())
    cells = [cell.key for cell in RunFolder.open(EXAMPLE).record.planned[:2]]
    for key in cells:
        shutil.copytree(EXAMPLE / "trials" / key, path / "trials" / key)
    (path / "run.json").write_text(json.dumps({**record, "planned": record["planned"][:3]}))
    shutil.copy(EXAMPLE / "cells.csv", path)
    return path


@st.composite
def damage(draw: st.DrawFn, content: bytes, *, is_json: bool) -> bytes:
    """The content of a file after something happened to it."""
    if is_json and draw(st.booleans()):
        data = json.loads(content)
        _replace(draw, data)
        return json.dumps(data).encode()
    place = draw(st.integers(0, len(content) - 1))
    if draw(st.booleans()):
        return content[:place]
    return content[:place] + draw(st.binary(min_size=1, max_size=8)) + content[place + 1 :]


def _replace(draw: st.DrawFn, data: Any) -> None:
    """Something else, or nothing, at a random place in it."""
    here = data
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(min(4, len(here))))
        key = draw(st.sampled_from(keys))
        below = here[key]
        if not (isinstance(below, dict | list) and below) or draw(st.integers(0, 9)) == 0:
            break
        here = below
    if draw(st.booleans()):
        here[key] = draw(INSTEAD)
    else:
        del here[key]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_a_report_or_in_a_sentence(
    run: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "run"
    shutil.copytree(run, broken)
    names = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    path = broken / data.draw(st.sampled_from(names))
    path.write_bytes(data.draw(damage(path.read_bytes(), is_json=path.suffix == ".json")))
    said = "</html>"
    try:
        report_of([broken], None, "html")
        said = (broken / "report.html").read_text()[-7:]
    except BenchError as error:
        said = str(error)
    assert said == "</html>" or (0 < len(said) < 1000 and "\n" not in said)
    index.write(broken.parent)
