"""Versions of what a measurement rests on, for the run's record."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from bench import __version__

_PACKAGES = (
    "locust",
    "tritonclient",
    "gevent",
    "numpy",
    "torch",
    "transformers",
    "plotly",
    "nvidia-pytriton",
)


def installed() -> dict[str, str]:
    """Those that are not installed are left out."""
    found = {"bench": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
