"""What a report costs, in a process of its own: `python -m benchmarks.report_cost RUN_FOLDER` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.analysis import cell_table
from bench.analysis.results import RunResults
from bench.core.run_folder import RunFolder
from bench.report import page


def main(path: Path) -> None:
    before_bytes = _peak_bytes()
    began = time.monotonic()
    results = RunResults.of(RunFolder.open(path))
    cell_table.write_csv(results.rows, path / "cells.csv")
    read = time.monotonic()
    written = page.write(results)
    ended = time.monotonic()
    found = {
        "csv_s": read - began,
        "page_s": ended - read,
        "page_bytes": written.stat().st_size,
        "peak_bytes": _peak_bytes(),
        "imports_bytes": before_bytes,
    }
    print(json.dumps(found))


def _peak_bytes() -> int:
    """Of this program alone: `ru_maxrss` would start at what the process that started it had."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
