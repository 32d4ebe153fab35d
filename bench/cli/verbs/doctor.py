"""Can this machine do each part of the work, and if not, what to do about it. One line a part."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from bench.cli.values import Values
from bench.core.errors import EXIT_FAILED, EXIT_OK, BenchError
from bench.sensors import environment, nvml
from bench.sensors import host as machine

_SHM = Path("/dev/shm")
# The Python backend keeps 1 MiB a stub and grows with the tensors: a batch of 32 images is 19 MB each way.
_SHM_WANTED_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Line:
    part: str
    ok: bool
    found: str
    next_step: str = ""
    needed: bool = False  # without it nothing can be measured on an embedded server


def examine(tritonserver: Path | None, perf_analyzer: Path | None) -> tuple[Line, ...]:
    """Look at everything; takes a second or two, starts nothing that stays."""
    return (
        _python(),
        _clients(),
        _guard("tritonserver", lambda: _tritonserver(tritonserver), needed=True),
        _stub(),
        _torch(),
        _guard("perf_analyzer", lambda: _perf_analyzer(perf_analyzer)),
        _gpu(),
        _guard("cluster", _cluster),
        _shared_memory(),
        _cores(),
    )


def _cores() -> Line:
    cores = machine.usable_cores()
    step = "" if cores > 1 else "Server and load share one core: expect client-bound cells."
    return Line("cores", cores > 1, f"{cores} usable", step)


def run(values: Values) -> int:
    """`bench doctor`: 4 where something is missing without which nothing can be measured."""
    values.mistakes.check()
    lines = examine(values["tritonserver"], values["perf_analyzer"])
    if values["as_json"]:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        Console().print(_table(lines))
    return EXIT_FAILED if any(line.needed and not line.ok for line in lines) else EXIT_OK


def _table(lines: tuple[Line, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        mark = "[green]ok[/]" if line.ok else ("[red]missing[/]" if line.needed else "[yellow]no[/]")
        table.add_row(line.part, mark, line.found, line.next_step)
    return table


def _guard(part: str, look: Callable[[], Line], *, needed: bool = False) -> Line:
    try:
        return look()
    except BenchError as error:
        return Line(part, False, str(error), needed=needed)


def _python() -> Line:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    step = "" if supported else "Use Python 3.11, 3.12 or 3.13."
    return Line("python", supported, sys.version.split()[0], step, needed=True)


def _clients() -> Line:
    names = ("locust", "tritonclient", "gevent", "grpcio", "plotly", "kubernetes")
    try:
        found = ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        return Line(
            "clients", False, f"{error.name} is not installed", "Install triton-bench again.", needed=True
        )
    return Line("clients", True, found, needed=True)


def _tritonserver(explicit: Path | None) -> Line:
    from bench.server.embedded import find_tritonserver

    server = find_tritonserver(explicit)
    return Line("tritonserver", True, f"{server.binary} ({server.origin})", needed=True)


def _stub() -> Line:
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED"))
    step = (
        "The Python backend's stub needs libpython: use a Python built with --enable-shared, or --url."
        if not shared
        else ""
    )
    return Line(
        "python stub", shared, "libpython is shared" if shared else "this Python has no libpython", step
    )


def _torch() -> Line:
    if find_spec("torch") is None or find_spec("transformers") is None:
        return Line(
            "torch", False, "not installed", "pip install 'triton-bench[serve]' to serve the ViT here."
        )
    device = "a GPU is seen" if nvml.count() else "on the CPU"
    return Line("torch", True, f"torch {version('torch')}, transformers {version('transformers')}, {device}")


def _perf_analyzer(explicit: Path | None) -> Line:
    from bench.loadgen.perf_analyzer.install import find

    tool = find(explicit)
    return Line("perf_analyzer", True, f"{tool.version}, runs; {tool.origin}")


def _gpu() -> Line:
    found = environment.gpus()
    if not found:
        return Line("gpu", False, "no NVIDIA driver answers", "CPU figures only; the suite works without.")
    return Line("gpu", True, "; ".join(found.values()))


def _cluster() -> Line:
    from kubernetes import config

    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Line("cluster", True, "inside one (service account)")
    try:
        _, active = config.list_kube_config_contexts()
    except config.ConfigException:
        return Line("cluster", False, "no kubeconfig", "Needed for --mlservice and --deploy only.")
    except (yaml.YAMLError, OSError, KeyError, TypeError, AttributeError, ValueError):
        # The library walks the file as if it were sound.
        return Line(
            "cluster", False, "a kubeconfig that cannot be read as one", "Name another in $KUBECONFIG."
        )
    return Line("cluster", True, f"context {active['name']}")


def _shared_memory() -> Line:
    if not _SHM.is_dir():
        return Line(
            "/dev/shm", False, "missing", "Mount a tmpfs there: the Python backend needs it.", needed=True
        )
    free = shutil.disk_usage(_SHM).free
    enough = free >= _SHM_WANTED_BYTES
    step = "" if enough else "Enlarge it (docker: --shm-size=1g), or keep to small batches."
    return Line("/dev/shm", enough, f"{free >> 20} MiB free", step)
