"""What happened to the GPU during a trial: throttled, out of memory, broken, or gone."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator

from bench.analysis.summary import TrialSummary, readings
from bench.core.cuda_messages import CUDA_FAULT, CUDA_MEMORY
from bench.core.findings import Finding, Severity
from bench.core.trial import Trial

# Clocks rise at the start of a load, and a single reading may then show a reason: up to this share is normal.
THROTTLED_SHARE = 0.05
# NVML's reasons that cost speed. Idle, application clocks and display clocks are reasons too, and cost none.
THROTTLING = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
# Sensors are read ten times a second, the slowest once a second: two seconds without a reading is silence.
SILENT_NS = 2_000_000_000


def throttled(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    mask = functools.reduce(operator.or_, THROTTLING)
    for name in trial.machine:
        known = [int(v) & mask for v in readings(trial, name)] if "_throttle_reasons" in name else []
        slowed = [bits for bits in known if bits]
        if known and len(slowed) > THROTTLED_SHARE * len(known):
            reasons = [why for bit, why in THROTTLING.items() if any(bits & bit for bits in slowed)]
            yield Finding(
                "gpu-throttled",
                Severity.WARNING,
                f"{name.partition('_')[0]} was throttled {len(slowed) / len(known):.0%} of the time.",
                f"NVML's reasons: {', '.join(reasons)}.",
                "Let the GPU cool or raise its limit; or take the figure as what it does under this load.",
            )


def memory(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    for message in _messages(trial, CUDA_MEMORY):
        yield Finding(
            "gpu-out-of-memory",
            Severity.INVALID,
            f"Requests failed because the GPU had no memory left: {message}",
            "All instances share it, and so does whatever else runs on the GPU; a larger batch takes more.",
            "Use fewer instances, a smaller --batch or --max-batch, or bf16.",
        )


def fault(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    for message in _messages(trial, CUDA_FAULT):
        yield Finding(
            "gpu-fault",
            Severity.INVALID,
            f"The GPU failed under the server: {message}",
            "After such an error the model's process answers nothing more until it is loaded again.",
            "Look for Xid lines in the kernel log of the server's host (dmesg); Xid 79: the GPU fell off the "
            "bus.",
        )


def gone(trial: Trial, _: TrialSummary) -> Iterator[Finding]:
    """A GPU that gave readings in the window, and then no more, while other sensors went on."""
    ends = [rows[-1][0] for name, rows in trial.machine.items() if rows and not name.startswith("gpu")]
    last_ns = min(max(ends, default=0), trial.window.end_ns)
    for gpu in sorted({name.partition("_")[0] for name in trial.machine if name.startswith("gpu")}):
        seen = max(rows[-1][0] for name, rows in trial.machine.items() if name.startswith(f"{gpu}_") and rows)
        if seen < last_ns - SILENT_NS:
            yield Finding(
                "gpu-gone",
                Severity.WARNING,
                f"{gpu} gave its last reading {(last_ns - seen) / 1e9:.0f} s before the end of the window.",
                "The GPU, its driver, or the server that reports its readings went away.",
                "Look for Xid lines in the kernel log (dmesg), and whether nvidia-smi still lists the GPU.",
            )


def _messages(trial: Trial, pattern: str) -> Iterator[str]:
    """The first error that matches, as the server put it, on one line."""
    matching = (message for message in trial.errors if re.search(pattern, message))
    for message in list(matching)[:1]:
        yield " ".join(message.split())[:300].rstrip(". ") + "."


CHECKS = (throttled, memory, fault, gone)
