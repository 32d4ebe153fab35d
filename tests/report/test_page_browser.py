"""The page in a real browser: nothing from the network, no error, everything drawn, everything works."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from bench.analysis import cell_table
from bench.analysis.cell_row import PERCENTS
from bench.analysis.comparison import compare
from bench.analysis.recommendation import Limit, recommend, stated
from bench.analysis.results import RunResults
from bench.core.gates import parse_gate
from bench.core.run_folder import RunFolder
from bench.core.slo import parse_slo
from bench.core.units import significant
from bench.report import index as run_index
from bench.report import page, templates
from bench.report.bundle import join
from bench.report.comparison import as_html
from benchmarks.browser import BROWSER, DRIVER, MISSING, chromium, look
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell, grid

pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason=MISSING,
)


class Browser:
    """A chromium on one page; every request and console line since it was opened is kept."""

    def __init__(self, profile: Path) -> None:
        logs = {"goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self.driver = chromium(profile, logs)
        self.run = self.driver.execute_script

    def open(self, path: Path, *, width: int = 1600, dark: bool = False) -> None:
        look(self.driver, width=width, dark=dark)
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # reading empties it
        self.driver.get(path.as_uri())
        self.until(lambda: self.run("return document.documentElement.dataset.ready === '1'"))

    def until(self, true: Callable[[], Any], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "the page did not get there"
            time.sleep(0.05)

    def requests(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "blob:", "about:"))]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def text(self, css: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).innerText", css))

    def slide(self, position: int) -> None:
        self.run(
            "const s = document.getElementById('bound'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input'))",
            position,
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = synthetic.every_kind(tmp_path_factory.mktemp("everything") / "run")
    cell_table.write_csv(RunResults.of(folder).rows, folder.path / "cells.csv")
    page.write(RunResults.of(folder))
    return folder


@pytest.mark.parametrize(("width", "dark"), [(380, False), (1600, True)])
def test_it_opens_alone_without_a_complaint_and_fits_its_width(
    browser: Browser, everything: RunFolder, width: int, dark: bool
) -> None:
    report = everything.path / "report.html"
    browser.open(report, width=width, dark=dark)
    assert browser.requests() == [report.as_uri()]
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("attack", ["script", "image", "handler", "style"])
def test_what_gets_into_a_page_does_nothing(browser: Browser, tmp_path: Path, attack: str) -> None:
    """As if a text of a server were not escaped. The page itself still works."""
    folder = synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1))
    html = page.write(RunResults.of(folder)).read_text()
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/x"
        injected = {
            "script": "<script>document.title = 'owned'</script>",
            "image": f"<img src='{address}'>",
            "handler": "<img src='data:,' onerror=\"document.title = 'owned'\">",
            "style": f"<style>@import '{address}';</style>",
        }[attack]
        path = tmp_path / "attacked.html"
        path.write_text(html.replace("<body>", f"<body>{injected}", 1))
        browser.open(path)
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    assert browser.run("return document.title") != "owned"
    assert any("Content Security Policy" in text for text in browser.complaints())


def test_pages_without_scripts_open_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    runs = [synthetic.write(tmp_path / name, Study(cells=grid(), repeats=3, name=name)) for name in "ab"]
    first, second = (RunResults.of(folder) for folder in runs)
    compared = tmp_path / "compare.html"
    compared.write_text(as_html(compare(first, second, (parse_gate("p50>+5%"),), force=True)))
    for path in (run_index.write(tmp_path), compared):
        browser.driver.get("about:blank")
        for kind in ("browser", "performance"):
            browser.driver.get_log(kind)
        browser.driver.get(path.as_uri())
        assert browser.complaints() == []
        assert browser.requests() == [path.as_uri()]
        assert browser.run("return document.styleSheets[0].cssRules.length") > 10


def test_runs_laid_over_each_other_open_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    runs = [synthetic.write(tmp_path / name, Study(cells=grid(), repeats=3, name=name)) for name in "ab"]
    path = tmp_path / "overlay.html"
    path.write_text(page.render([RunResults.of(folder) for folder in runs]))
    browser.open(path)
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]


def test_every_chart_is_drawn(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    drawn = browser.run(
        "const all = [...document.querySelectorAll('[data-figure], #tail-figure')];"
        "return all.map(e => [e.dataset.figure ?? 'tail',"
        "e.querySelectorAll('.trace, .point').length, e.getBoundingClientRect().height])"
    )
    assert len(drawn) == 11
    for name, marks, height in drawn:
        assert marks > 0, name
        assert height > 100, name


def test_nothing_is_shown_that_is_not_text(browser: Browser, everything: RunFolder) -> None:
    """Neither in the page nor in any cell: no element, missing value or NaN written as text."""
    browser.open(everything.path / "report.html")
    odd = re.compile(r"\[object|undefined|NaN|\bnull\b")
    assert not odd.search(browser.text("body"))
    rows = RunResults.of(everything).rows
    # One of each kind: those of a kind are drawn by the same code from the same columns.
    kinds = {(row.verdict, row.engine, row.rate_per_s is None, row.findings): i for i, row in enumerate(rows)}
    assert 4 < len(kinds) < len(rows)
    for index in kinds.values():
        browser.run("location.hash = arguments[0]", f"#cell-{index}")
        shown = f"return document.getElementById('cell').dataset.index === '{index}'"
        browser.until(lambda shown=shown: browser.run(shown))  # type: ignore[misc]  # bound at once
        assert not odd.search(browser.text("#cell")), index
    assert browser.complaints() == []


@pytest.mark.parametrize(
    ("width", "values", "steps"),
    [
        (1600, (10, 40), [1, 1.5, 2, 3, 4, 5, 7]),
        (1600, (10, 5000), [1, 2, 5]),
        (380, (10, 20), [1, 1.5, 2, 3, 4, 5, 7]),
        (380, (10, 900), [1, 2, 5]),
        (380, (10, 1100), [1]),
    ],
)
def test_a_log_axis_has_as_many_ticks_as_there_is_room_for(
    browser: Browser, tmp_path: Path, width: int, values: tuple[int, int], steps: list[float]
) -> None:
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html><title>blank</title>")
    look(browser.driver, width=width)
    browser.driver.get(blank.as_uri())
    modules = {path.stem: path.read_text() for path in (templates.WEB / "js").glob("*.js")}
    code = f"{join(modules, 'ticks')}; return modules.ticks.logTicks(arguments[0]).tickvals"
    ticks = browser.run(code, list(values))
    assert [tick for tick in ticks if 1 <= tick < 10] == steps


def test_the_slider_moves_the_answer_as_python_would(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    rows = RunResults.of(everything).rows
    answers = set()
    for percent in (99.0, 50.0):
        browser.run(
            "const p = document.getElementById('percent'); p.value = String(arguments[0]);"
            "p.dispatchEvent(new Event('change'))",
            PERCENTS[PERCENTS.index(percent)] if percent % 1 else int(percent),
        )
        for position in range(0, 1001, 100):
            browser.slide(position)
            bound = float(browser.run("return document.documentElement.dataset.bound"))
            best = recommend(rows, Limit(percent, bound, 0.001)).best
            shown = browser.run("return document.documentElement.dataset.best ?? ''")
            assert shown == (best.cell if best else ""), (percent, bound)
            answers.add(browser.text("#card .headline"))
    assert len(answers) > 5


def test_every_term_of_an_slo_has_to_hold(browser: Browser, tmp_path: Path) -> None:
    """The larger batch serves more, and its median is over what was asked."""
    study = Study(cells=grid((1, 32), (1,), ("http",), (1,)), slo="p50=20ms,p99=10s")
    folder = synthetic.write(tmp_path / "run", study)
    browser.open(page.write(RunResults.of(folder)))
    best = recommend(RunResults.of(folder).rows, Limit.of(parse_slo(study.slo))).best
    assert best is not None
    assert best.batch == 1
    assert browser.run("return document.documentElement.dataset.best") == best.cell
    assert browser.text("#card .headline").startswith("For p99 ≤ 10 s and p50 ≤ 20 ms run ")
    assert "1 cell of 2 holds the limit, 1 misses it" in browser.text("#card")


def test_the_best_of_equals_is_corrected_until_fresh_trials_confirm_it(
    browser: Browser, tmp_path: Path
) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=grid((8,), (1,), ("http", "grpc"), (4,))))
    for repeat in (None, 6, 7, 8):
        best = recommend(RunResults.of(folder).rows, None).best
        assert best is not None
        of = next(one for one in folder.record.planned if one.key == best.cell)
        if repeat is not None:
            folder.confirmation.write_trial(synthetic.trial(of, repeat, World(slowdown=1.25)))
        if repeat in (None, 8):
            browser.open(page.write(RunResults.of(folder)))
            best = recommend(RunResults.of(folder).rows, None).best
            assert best is not None
            assert f"{significant(stated(best).value)} img/s" in browser.text("#card .headline")
            told = "Corrected for having been the best of 2" if repeat is None else "Confirmed: measured in 3"
            assert told in browser.text("#card")
    assert browser.complaints() == []


@pytest.mark.parametrize("all_fail", [False, True])
def test_a_cell_that_fails_its_requests_is_not_recommended(
    browser: Browser, tmp_path: Path, all_fail: bool
) -> None:
    """The larger batch serves more, and fails a tenth of its requests."""
    cells = grid((1, 32), (1,), ("http",), (1,))
    failing = cells if all_fail else cells[1:]
    worlds = {cell.key: World(error_share=0.1) for cell in failing}
    folder = synthetic.write(tmp_path / "run", Study(cells=cells, worlds=worlds))
    browser.open(page.write(RunResults.of(folder)))
    best = recommend(RunResults.of(folder).rows, None).best
    assert browser.run("return document.documentElement.dataset.best") == (best.cell if best else "")
    assert (best is None) == all_fail
    assert "too many requests failed" in browser.text("#card")
    assert "server error" in browser.text("#card")


@pytest.mark.parametrize(("slo", "columns"), [("p50=20ms", 1), ("", 0)])
def test_the_table_has_goodput_where_an_slo_says_what_is_good(
    browser: Browser, tmp_path: Path, slo: str, columns: int
) -> None:
    folder = synthetic.write(tmp_path / "run", Study(cells=grid((1, 32), (1,), ("http",), (1,)), slo=slo))
    browser.open(page.write(RunResults.of(folder)))
    found = browser.run(
        "const heads = [...document.querySelectorAll('#table th')].map(e => e.innerText);"
        "const at = heads.indexOf('goodput');"
        "const rows = [...document.querySelectorAll('#table tbody tr')];"
        "return at < 0 ? [] : [rows.map(row => row.cells[at].innerText)]"
    )
    assert len(found) == columns
    assert all(float(text) >= 0 for column in found for text in column)


def test_another_width_changes_no_height(browser: Browser, everything: RunFolder) -> None:
    heights = "return [...document.querySelectorAll('.js-plotly-plot')].map(e => e.offsetHeight)"
    browser.open(everything.path / "report.html")
    browser.run("location.hash = '#cell-3'")
    browser.until(lambda: browser.run("return document.querySelectorAll('#cell .js-plotly-plot').length > 4"))
    before = browser.run(heights)
    metrics = {"width": 1300, "height": 1500, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.until(lambda: browser.run("return innerWidth === 1300"))
    time.sleep(0.5)  # Plotly waits 0.1 s before it follows
    assert browser.run(heights) == before


def test_no_limit_shows_throughput_latency_and_knee(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    before = browser.text("#heat-map")
    browser.driver.find_element(By.ID, "no-limit").click()
    decision = recommend(RunResults.of(everything).rows, None)
    assert browser.text("#card .headline").startswith("For the most throughput run")
    assert decision.best is not None
    assert browser.run("return document.documentElement.dataset.best") == decision.best.cell
    assert browser.text("#card .figures").count("img/s") >= 2
    assert browser.text("#heat-map") != before


def test_a_click_on_a_point_opens_its_cell_and_escape_closes_it(
    browser: Browser, everything: RunFolder
) -> None:
    browser.open(everything.path / "report.html")
    x, y, index = browser.run(
        "const gd = document.querySelector('[data-figure=throughput] .js-plotly-plot');"
        "gd.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const t = gd.data.find(t => t.customdata && t.opacity === 1), r = gd.getBoundingClientRect();"
        "const {xaxis: x, yaxis: y} = gd._fullLayout;"
        "return [r.x + x._offset + x.d2p(t.x[0]), r.y + y._offset + y.d2p(t.y[0]), t.customdata[0]]"
    )
    ActionChains(browser.driver).move_by_offset(int(x), int(y)).pause(0.4).click().perform()
    ActionChains(browser.driver).move_by_offset(-int(x), -int(y)).perform()
    browser.until(lambda: browser.run("return document.getElementById('cell').open"))
    opened = int(browser.run("return document.getElementById('cell').dataset.index"))
    rows = RunResults.of(everything).rows
    assert rows[opened].throughput_img_per_s == pytest.approx(rows[index].throughput_img_per_s, rel=0.05)
    assert rows[opened].cell in browser.text("#cell")
    assert "bench sweep --model python_vit" in browser.text("#cell")
    assert browser.run("return document.querySelectorAll('#cell .js-plotly-plot').length") >= 5
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.until(lambda: not browser.run("return document.getElementById('cell').open"))
    assert browser.complaints() == []


def test_the_keyboard_alone_opens_a_cell_and_gets_back(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    link = browser.driver.find_element(By.CSS_SELECTOR, "#table tbody tr:nth-child(3) a")
    link.send_keys(Keys.ENTER)
    browser.until(lambda: browser.run("return document.getElementById('cell').open"))
    assert RunResults.of(everything).rows[2].cell in browser.text("#cell")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.until(lambda: not browser.run("return document.getElementById('cell').open"))
    assert browser.driver.switch_to.active_element == link


def test_a_failed_cell_opens_with_its_reason(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    index = next(i for i, row in enumerate(RunResults.of(everything).rows) if row.verdict == "FAILED")
    browser.run("location.hash = arguments[0]", f"#cell-{index}")
    browser.until(lambda: browser.run("return document.getElementById('cell').open"))
    assert "out of memory: <script>alert(1)</script>" in browser.text("#cell")
    assert browser.complaints() == []


def test_downloads_are_the_same_csv_and_the_same_rows(
    browser: Browser, everything: RunFolder, tmp_path: Path
) -> None:
    browser.open(everything.path / "report.html")
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    for name in ("csv", "json"):
        browser.driver.find_element(By.ID, f"download-{name}").click()
        browser.until(lambda name=name: (tmp_path / f"cells.{name}").exists())  # type: ignore[misc]  # bound at once
    assert (tmp_path / "cells.csv").read_bytes() == (everything.path / "cells.csv").read_bytes()
    rows = json.loads((tmp_path / "cells.json").read_text())
    assert [row["cell"] for row in rows] == [row.cell for row in RunResults.of(everything).rows]


def test_sorting_and_filtering(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    browser.driver.find_element(By.XPATH, "//table[@id='table']//th//button[.='img/s']").click()
    first = browser.text("#table tbody tr")
    best = max(RunResults.of(everything).rows, key=lambda row: row.throughput_img_per_s or 0)
    assert first.startswith(f"b{best.batch} · {best.instances} inst · {best.protocol}")
    browser.run(
        "const s = document.querySelector('[data-facet=protocol]');"
        "s.value = [...s.options].find(o => o.text === 'grpc').value;"
        "s.dispatchEvent(new Event('change'))"
    )
    shown = browser.run("return [...document.querySelectorAll('#table tbody tr')].map(r => r.innerText)")
    assert len(shown) == sum(row.protocol == "grpc" for row in RunResults.of(everything).rows)
    assert all("grpc" in line for line in shown)
    assert browser.complaints() == []


def test_a_model_called_like_a_script_does_nothing(browser: Browser, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    of = cell(model=evil, batch=1, parameters=(("<img src=x onerror=alert(2)>", "1"),))
    study = Study(
        cells=(of, cell(model=evil, batch=8)), name=evil, world=World(error_share=0.1), weights=evil,
        failed={cell(model=evil, batch=8).key: evil},
    )  # fmt: skip
    browser.open(page.write(RunResults.of(synthetic.write(tmp_path / "run", study))))
    browser.run("location.hash = '#cell-0'")
    browser.until(lambda: browser.run("return document.getElementById('cell').open"))
    with pytest.raises(NoAlertPresentException):
        _ = browser.driver.switch_to.alert
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.text("h1") == evil
    assert browser.complaints() == []


@pytest.mark.parametrize("kind", ["one-cell", "nothing-measured", "two-runs", "open-loop"])
def test_odd_runs_are_shown_without_a_complaint(browser: Browser, tmp_path: Path, kind: str) -> None:
    of = cell()
    made = {
        "one-cell": [Study(cells=(cell(instances=None),), repeats=1)],
        "nothing-measured": [Study(cells=(of,), failed={of.key: "no"})],
        "two-runs": [Study(cells=grid(), repeats=1, name=name, created_at=name) for name in ("2026", "2027")],
        "open-loop": [Study(cells=grid(levels=(), rates_per_s=(5.0, 10.0)), repeats=1, slo="p90=50ms")],
    }[kind]
    folders = [synthetic.write(tmp_path / f"{i}", study) for i, study in enumerate(made)]
    path = tmp_path / "report.html"
    path.write_text(page.render([RunResults.of(folder) for folder in folders]), encoding="utf-8")
    browser.open(path)
    assert browser.complaints() == []
    assert browser.requests() == [path.as_uri()]


def test_sixty_cells_open_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    of = grid(batches=(1, 4, 8, 16, 32), levels=(1, 4, 16))
    study = Study(cells=of, repeats=1, world=World(gpu=True))
    path = page.write(RunResults.of(synthetic.write(tmp_path / "run", study)))
    browser.open(path)  # in how long is `python -m benchmarks report`
    assert browser.complaints() == []


def test_tab_goes_from_top_to_bottom_and_shows_where_it_is(browser: Browser, everything: RunFolder) -> None:
    browser.open(everything.path / "report.html")
    seen = []
    for _ in range(24):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        seen.append(
            browser.run(
                "const e = document.activeElement, r = e.getBoundingClientRect(), s = getComputedStyle(e);"
                "return [e.id || e.textContent, s.outlineStyle, r.width * r.height > 0]"
            )
        )
    assert seen[0][0] == "Skip to the answer"
    wanted = ["download-csv", "theme", "percent", "bound", "no-limit"]
    assert [name for name, _, _ in seen if name in wanted] == wanted
    assert all(outline != "none" and visible for _, outline, visible in seen)


def test_paper_gets_every_chart_in_the_width_of_a_sheet_and_the_screen_gets_its_own_back(
    browser: Browser, everything: RunFolder
) -> None:
    browser.open(everything.path / "report.html", dark=True)
    widths = "return [...document.querySelectorAll('.js-plotly-plot .main-svg')].map(e => e.clientWidth)"
    before = browser.run(widths)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert set(browser.run(widths)) == {680}
    assert browser.run("return document.documentElement.dataset.theme") == "light"
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run(widths) == before
    assert browser.run("return document.documentElement.dataset.theme") == "dark"
    assert browser.run("return document.querySelectorAll('#trust details[open]').length") == 0
    assert browser.complaints() == []
