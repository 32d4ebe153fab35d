"""Load-testing and benchmarking suite for models served on Triton."""

from importlib.metadata import PackageNotFoundError, version

from bench.core.paths import LOCUSTFILE, MANIFESTS, MODEL_REPOSITORY

__all__ = ["LOCUSTFILE", "MANIFESTS", "MODEL_REPOSITORY", "__version__"]

try:
    __version__ = version("triton-bench")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"
