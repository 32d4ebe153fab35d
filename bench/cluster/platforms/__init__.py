"""The platforms that `--platform` offers. A new one is a file beside these and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from bench.cluster.platforms.base import Platform
from bench.cluster.platforms.deployment import Deployment
from bench.cluster.platforms.kserve import KServe
from bench.cluster.platforms.mlservice import MLService

PLATFORMS: dict[str, Platform] = {one.name: one for one in (MLService(), KServe(), Deployment())}


def register(platform: Platform) -> None:
    """Offer a platform under its name."""
    PLATFORMS[platform.name] = platform


def platform_kinds() -> Mapping[str, tuple[str, str]]:
    """Kind -> (API, plural) of all platforms: what a service is made of, each service's own kind first."""
    return {kind: api for platform in PLATFORMS.values() for kind, api in platform.kinds.items()}
