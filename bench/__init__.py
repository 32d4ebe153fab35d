"""Load-testing and benchmarking suite for models served on Triton.

    import bench

    run = bench.load("reports/example")    # open a run folder
    run.cells                              # one row per cell, a pandas DataFrame
    run.figure("throughput").show()        # a Plotly figure
    bench.sweep(batch=[1, 8, 32])          # measure

`bench.load`, `bench.sweep`, `bench.Run` and `bench.Comparison` are the public API. Modules are private.
"""

from typing import TYPE_CHECKING, Any

from bench.core.paths import LOCUSTFILE, MANIFESTS, MODEL_REPOSITORY
from bench.core.version import __version__

if TYPE_CHECKING:
    from bench.api import Comparison, Run, load, sweep

__all__ = [
    "LOCUSTFILE",
    "MANIFESTS",
    "MODEL_REPOSITORY",
    "Comparison",
    "Run",
    "__version__",
    "load",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """The API, imported when it is first used, so that `import bench` and `bench --help` stay fast."""
    if name in ("Comparison", "Run", "load", "sweep"):
        from bench import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
