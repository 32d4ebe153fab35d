"""Why a tritonserver did not start, or a model did not load: one sentence from a log."""

from __future__ import annotations

import re

# The first that matches names the cause; groups fill the sentence.
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"Socket '(?P<a>[^']+)' already in use|failed to bind|Address already in use",
        "A port is taken ({a}): choose others with --http-port, --grpc-port and --metrics-port, "
        "or 0 for any free one.",
    ),
    (
        r"ModuleNotFoundError: No module named '(?P<a>[^']+)'",
        "The model imports {a}, which is not installed in the server's environment: pip install it there.",
    ),
    (
        r"ImportError: (?P<a>[^\n\"]+)",
        "The model's imports failed ({a}): repair the server's Python environment.",
    ),
    (
        r"libpython(?P<a>[\d.]+)\S*: cannot open shared object|undefined symbol: _?Py",
        "The Python backend's stub finds no matching libpython: use a Python built with --enable-shared.",
    ),
    (
        r"Unable to initialize shared memory key|No space left on device|"
        r"Failed to increase the shared memory|Failed to initialize Python stub: .*shared memory",
        "Shared memory is full: free or enlarge /dev/shm (docker: --shm-size=1g).",
    ),
    (r"CUDA out of memory[^\n\"]*", "The GPU's memory is full: fewer instances, or a smaller max batch."),
    (
        r"error while loading shared libraries: (?P<a>[^:\s]+)",
        "tritonserver lacks the library {a}: install it, or put its folder on LD_LIBRARY_PATH.",
    ),
    (
        r"GLIBC_(?P<a>[\d.]+)' not found",
        "tritonserver needs glibc {a} or newer: use --url with one that runs elsewhere.",
    ),
    (
        r"failed to open the file[^\n]*|failed to stat file (?P<a>\S+)|Failed to load all models[^\n]*",
        "The model repository cannot be read: check --repository.",
    ),
    (r"(?P<a>(?:TritonModelException|Exception|\w+Error): [^\n\"]+)", "The model failed to start: {a}."),
)


def explain(log: str, code: int | None = None) -> str:
    """The likely cause in a sentence with the next step; the log's last error where none is known."""
    for pattern, sentence in _CAUSES:
        found = re.search(pattern, log)
        if found:
            groups = {"a": "", **{k: v or "" for k, v in found.groupdict().items()}}
            return sentence.format(**groups).replace(" ()", "")
    errors = [line for line in log.splitlines() if line.startswith("E") or "error" in line.lower()]
    last = errors[-1].strip() if errors else "it said nothing"
    ended = "" if code is None else f" with code {code}"
    return f"tritonserver ended{ended}: {last}."
