"""The bare model's throughput, as a run folder keeps it: what the same network does without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cattrs

from bench.analysis.roofline import Measured, Shape, limit_per_s, peak_of
from bench.analysis.stats import Interval, geometric
from bench.core.errors import RunFolderError
from bench.core.run_folder import RunFolder

CEILING_FILE = "ceiling.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """One variant of the network at one batch, and what it reached: a sample an element, images a second."""

    weights: str
    precision: str
    compile: str
    output: str
    batch: int
    images_per_s: tuple[float, ...]

    @property
    def interval(self) -> Interval:
        interval = geometric(self.images_per_s)
        assert interval is not None  # there is a sample at least, and none is zero
        return interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """All that was measured on one device."""

    device: str
    threads: int
    torch: str
    shape: Shape
    rates: Mapping[str, Measured] = field(default_factory=dict)  # precision -> what a large product reached
    bare: tuple[Bare, ...] = ()

    def of(self, variant: Mapping[str, str], weights: str | None, batch: int) -> Bare | None:
        """What a cell's network reached without a server; None where that was not measured.

        `weights` None: the run has one kind.
        """
        wanted = (variant.get("precision"), variant.get("compile"), variant.get("output"), batch)
        fits = (bare for bare in self.bare if weights in (None, bare.weights))
        return next((bare for bare in fits if _variant(bare)[1:] == wanted), None)

    def roofline_per_s(self, bare: Bare) -> tuple[float, str] | None:
        """Images a second at most, and by whose rates; None where none are known."""
        peak = peak_of(self.device)
        pooled = bare.output == "pooler_output"
        for rates, source in (
            (peak, peak.source if peak else ""),
            (self.rates.get(bare.precision), "measured here"),
        ):
            limit = rates and limit_per_s(self.shape, bare.precision, bare.batch, rates, pooled=pooled)
            if limit:
                return limit, source
        return None


def _variant(bare: Bare) -> tuple[str | int, ...]:
    return bare.weights, bare.precision, bare.compile, bare.output, bare.batch


def write_ceiling(ceiling: Ceiling, folder: RunFolder) -> Path:
    """Write a ceiling into a run's folder, beside what was measured there of other variants."""
    before = read_ceiling(folder)
    if before is not None and (before.device, before.shape) == (ceiling.device, ceiling.shape):
        again = {_variant(bare) for bare in ceiling.bare}
        kept = tuple(bare for bare in before.bare if _variant(bare) not in again)
        ceiling = replace(ceiling, bare=(*kept, *ceiling.bare), rates={**before.rates, **ceiling.rates})
    return folder.write_json(CEILING_FILE, cattrs.unstructure(ceiling))


def read_ceiling(folder: RunFolder) -> Ceiling | None:
    """A run's ceiling; None where none was measured. Raises RunFolderError for a file that is none."""
    data = folder.read_json(CEILING_FILE)
    if data is None:
        return None
    try:
        return cattrs.structure(data, Ceiling)
    except (ValueError, KeyError, TypeError, cattrs.BaseValidationError) as error:
        raise RunFolderError(
            f"{folder.path / CEILING_FILE} cannot be read ({error}): remove it, or measure again."
        ) from error
