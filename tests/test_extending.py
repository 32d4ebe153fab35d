"""docs/extending.md: its examples are those that tests run, short, and do what the page says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.analysis.results import RunResults
from bench.core.cell import ServerConfiguration
from bench.core.run_folder import RunFolder
from bench.core.samples import Samples
from bench.report import charts, exports, sections
from bench.server.embedded import EmbeddedTriton
from tests.support import synthetic
from tests.support.calibration import serve
from tests.support.synthetic import Study, grid

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"\n## ([^\n]+)\n.*?```python\n(.*?)```", PAGE, re.DOTALL))
# The tests that run the examples of these headings hold their text.
ELSEWHERE = {
    "A protocol": "protocols/test_registry.py",
    "An engine": "loadgen/test_engine.py",
    "A platform": "cluster/test_platforms.py",
}


def example(heading: str) -> dict[str, Any]:
    """The names that an example defines."""
    module = sys.modules["example"] = ModuleType("example")  # dataclasses look their module up
    exec(EXAMPLES[heading], module.__dict__)
    return module.__dict__


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    study = Study(cells=tuple(grid(batches=(1, 8), levels=(1,))), repeats=1)
    return synthetic.write(tmp_path_factory.mktemp("extending") / "run", study)


@pytest.mark.parametrize(("heading", "path"), ELSEWHERE.items())
def test_an_example_is_what_its_test_runs(heading: str, path: str) -> None:
    assert EXAMPLES[heading].strip() in (ROOT / "tests" / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_is_short(heading: str) -> None:
    lines = [line for line in EXAMPLES[heading].splitlines() if line and "import " not in line]
    assert len(lines) < 30


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:bench|docs)/[\w./]+)`", PAGE))))
def test_a_file_that_the_page_names_is_there(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.e2e
def test_a_provider_opens_the_server_it_finds(triton: EmbeddedTriton, tmp_path: Path) -> None:
    serve(triton, ServerConfiguration(model="null_small"))
    (tmp_path / "address").write_text(triton.target.http_url + "\n")
    provider, said = example("A provider of targets")["FileProvider"](tmp_path / "address"), []
    with provider.open("null_small", said.append, tmp_path / "log") as session:
        assert session.triton.model_ready("null_small")
    assert triton.target.http_url in said[0]


@pytest.mark.parametrize(("first_ms", "codes"), [(10, []), (1500, ["slow-start"])])
def test_a_finding_is_yielded_where_it_is_seen(first_ms: int, codes: list[str]) -> None:
    done = np.array([first_ms * 10**6], dtype=np.int64)
    trial = SimpleNamespace(samples=Samples(done * 0, done * 0, done, done * 0))
    assert [finding.code for finding in example("A finding")["slow_start"](trial, None)] == codes


def test_a_chart_is_drawn(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(charts.CHARTS, "errors", example("A chart")["chart"])
    drawn = charts.figure("errors", RunResults.of(folder).rows)
    assert drawn.layout.title.text == "Errors against batch"


def test_a_section_is_shown_and_its_text_stays_text(folder: RunFolder) -> None:
    shown = sections.render([SimpleNamespace(**example("A section of the report"))], [folder])
    assert "<h2>Versions</h2>" in shown
    assert "<li>" in shown


def test_an_exporter_puts_out_every_cell(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exports.EXPORTERS, "plain", example("An exporter")["plain"])
    results = RunResults.of(folder)
    assert exports.EXPORTERS["plain"]([results]).count(" img/s\n") == len(results.rows)
