"""What happened to the GPU during a trial: gone, out of memory, or broken. Throttling is in `checks`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.analysis.summary import TrialSummary
from bench.core.cuda_messages import CUDA_FAULT, CUDA_MEMORY
from bench.core.findings import Finding, Severity
from bench.core.trial import Trial

SILENT_NS = 2_000_000_000  # a sensor is read ten times a second, its slowest neighbour once


def memory(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    for message in _messages(trial, CUDA_MEMORY):
        yield Finding(
            "gpu-out-of-memory",
            Severity.INVALID,
            f"Requests failed for want of the GPU's memory: {message}",
            "All instances, and whatever else runs on the card, share it; a larger batch takes more.",
            "Fewer instances, a smaller --batch or --max-batch, or bf16.",
        )


def fault(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    for message in _messages(trial, CUDA_FAULT):
        yield Finding(
            "gpu-fault",
            Severity.INVALID,
            f"The GPU failed under the server: {message}",
            "After such an error the model's process answers nothing more until it is loaded again.",
            "Look for Xid lines in the server's kernel log (dmesg); Xid 79: the card fell off the bus.",
        )


def gone(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    """A card that answered in the window, and then no more, while other sensors went on."""
    ends = [rows[-1][0] for name, rows in trial.machine.items() if rows and not name.startswith("gpu")]
    last_ns = min(max(ends, default=0), trial.window.end_ns)
    for gpu in sorted({name.partition("_")[0] for name in trial.machine if name.startswith("gpu")}):
        seen = max(rows[-1][0] for name, rows in trial.machine.items() if name.startswith(f"{gpu}_") and rows)
        if seen < last_ns - SILENT_NS:
            yield Finding(
                "gpu-gone",
                Severity.WARNING,
                f"{gpu} gave no reading any more {(last_ns - seen) / 1e9:.0f} s before the window's end.",
                "The card, its driver, or the server that tells of it went away.",
                "Look for Xid lines in its kernel log (dmesg), and whether nvidia-smi still lists the card.",
            )


def _messages(trial: Trial, pattern: str) -> Iterator[str]:
    """The first that matches, as the server put it, on one line."""
    found = (m for m in trial.errors if re.search(pattern, m))
    for message in list(found)[:1]:
        yield " ".join(message.split())[:300].rstrip(". ") + "."


CHECKS = (memory, fault, gone)
