"""No page ever dies of a number: counters and series of any kind are shown, left out or labelled."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.results import RunResults
from bench.core.run_folder import RunFolder
from bench.core.trial import Counters, Trial
from bench.report import page
from bench.report.exports import EXPORTERS
from tests.support import synthetic
from tests.support.synthetic import Study, World, cell

_HUGE = 2**70
counts = st.integers(-_HUGE, _HUGE) | st.sampled_from([0, 1, -1, 2**63, 10**30])
values = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -1.0, 1e308, -1e308])
counters = st.builds(
    Counters,
    **dict.fromkeys(
        (
            *("inference_count", "execution_count", "success_count", "fail_count", "success_ns", "queue_ns"),
            *("compute_input_ns", "compute_infer_ns", "compute_output_ns", "executing_ns"),
        ),
        counts,
    ),
    batches=st.dictionaries(st.integers(-1, 2**40), st.tuples(counts, counts), max_size=3),
    uncertain_ns=counts,
)
_NAMES = (
    *("gpu0_utilisation_percent", "gpu0_power_w", "gpu0_energy_j", "gpu0_memory_used_bytes"),
    *("gpu0_sm_clock_mhz", "gpu0_throttle_reasons", "cpu_busy_percent", "server_cpu_cores"),
)
series = st.dictionaries(st.sampled_from(_NAMES), st.lists(values, max_size=30), max_size=4)


def spoiled(of: Trial, counted: Counters, seen: dict[str, list[float]]) -> Trial:
    step_ns = (of.window.end_ns - of.window.start_ns) // 30
    rows = {
        name: tuple((of.window.start_ns + n * step_ns, v) for n, v in enumerate(some))
        for name, some in seen.items()
    }
    return dataclasses.replace(of, counters=counted, machine={**of.machine, **rows})


@given(first=counters, second=counters, seen=series)
@settings(max_examples=15)
def test_a_run_with_any_counters_and_series_is_shown(
    first: Counters, second: Counters, seen: dict[str, list[float]]
) -> None:
    cells = (cell(batch=1), cell(batch=8))
    world = World(requests=60, gpu=True)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", synthetic.record(Study(cells=cells)))
        for of, counted in zip(cells, (first, second), strict=True):
            for repeat in range(2):
                run.write_trial(spoiled(synthetic.trial(of, repeat, world, duration_s=2.0), counted, seen))
        results = RunResults.of(run)
        assert "NaN" not in page.render([results]).partition('id="data">')[2].partition("</script>")[0]
        for export in EXPORTERS.values():
            export([results])
