"""`bench setup`: tools that pip cannot install by itself."""

from __future__ import annotations

from bench.cli.values import Values
from bench.core.errors import EXIT_OK
from bench.loadgen.perf_analyzer.install import setup
from bench.report.publish import TALK


def perf_analyzer(values: Values) -> int:
    """`bench setup perf-analyzer`."""
    quiet = values["quiet"]
    tool = setup((lambda _: None) if quiet else TALK.print)
    if not quiet:
        print(f"{tool.binary} ({tool.version}; {tool.origin})")
    return EXIT_OK
