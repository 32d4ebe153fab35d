"""What a service must hold: bounds on percentiles of response time, and on the share of errors."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from bench.core.units import PERCENTILES, parse_duration_s, parse_percent, plain_number, significant


@dataclass(frozen=True, slots=True)
class Slo:
    """Bounds a service must hold: percentiles of response time, and the share of errors."""

    latencies: tuple[tuple[float, int], ...] = ()  # (percentile, at most so many ns)
    error_fraction: float = 0.0  # at most

    def __bool__(self) -> bool:
        return bool(self.latencies)

    def __str__(self) -> str:
        """As `parse_slo` reads it."""
        terms = [f"p{p:g}={plain_number(Decimal(bound).scaleb(-6))}ms" for p, bound in self.latencies]
        errors = [f"errors={significant(self.error_fraction * 100, 6)}%"] if self.error_fraction else []
        return ",".join(terms + errors)


def parse_slo(text: str) -> Slo:
    """`p99=100ms,errors=0.1%` -> Slo. At least one percentile."""
    allowed = "give terms such as p99=100ms,errors=0.1%; percentiles: p50, p90, p95, p99, p99.9"
    latencies: dict[float, int] = {}
    errors: float | None = None
    for term in text.split(","):
        name, equals, value = (part.strip() for part in term.partition("="))
        if not equals:
            raise ValueError(allowed)
        try:
            if name == "errors" and errors is None:
                errors = parse_percent(value)
                continue
            percentile = float(name.removeprefix("p"))
            bound = round(parse_duration_s(value) * 1e9)
        except ValueError:
            raise ValueError(allowed) from None
        if not name.startswith("p") or percentile not in PERCENTILES or percentile in latencies or bound <= 0:
            raise ValueError(allowed)
        latencies[percentile] = bound
    if not latencies:
        raise ValueError(allowed)
    return Slo(tuple(sorted(latencies.items())), errors or 0.0)
