"""Parse and format lists, rates, durations, bytes, percentages and SLO terms.

Parsers raise ValueError with a sentence that says what is allowed; whoever read the flag adds its name.
"""

from __future__ import annotations

import re
from decimal import Decimal

_DURATIONS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
# A number with more digits than these is taken for a mistake.
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?|\.[0-9]{1,15})"
PERCENTILES = (50, 90, 95, 99, 99.9)
# No client sends more requests per second, and a tape of a minute would have half a gigabyte.
MOST_PER_S = 1_000_000


def parse_integers(text: str, *, low: int, high: int) -> tuple[int, ...]:
    """`1,8,32` -> (1, 8, 32), each once."""
    allowed = f"give whole numbers from {low} to {high}, separated by commas, each once"
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[+-]?[0-9]{1,15}", part) for part in parts):
        raise ValueError(allowed)
    values = tuple(int(part) for part in parts)
    if not all(low <= value <= high for value in values) or len(set(values)) < len(values):
        raise ValueError(allowed)
    return values


def parse_rates(text: str) -> tuple[float, ...]:
    """`50/s,100/s` (or /min, or a bare number a second) -> requests a second, each once."""
    allowed = (
        f"give rates above 0 such as 50/s or 90/min, at most {count(MOST_PER_S)}/s, separated by commas, "
        "each once (rates equal to six digits are duplicates)"
    )
    rates = []
    for part in text.split(","):
        found = re.fullmatch(rf"{_NUMBER}(?:/(s|min))?", part.strip())
        if not found or float(found[1]) <= 0:
            raise ValueError(allowed)
        rates.append(float(found[1]) / (60 if found[2] == "min" else 1))
    # Cells are named by six digits of their rate.
    if len({f"{rate:g}" for rate in rates}) < len(rates) or max(rates) > MOST_PER_S:
        raise ValueError(allowed)
    return tuple(rates)


def parse_duration_s(text: str) -> float:
    """`30s`, `500ms`, `2m`, `100us` -> seconds; `0` needs no unit."""
    found = re.fullmatch(rf"{_NUMBER}\s*([a-z]*)", text.strip())
    if not found or (found[2] not in _DURATIONS_S and float(found[1]) != 0):
        raise ValueError("give a duration with its unit, such as 500ms, 30s or 2m")
    return float(found[1]) * _DURATIONS_S.get(found[2], 1.0)


def parse_percent(text: str) -> float:
    """`0.1%` -> 0.001."""
    found = re.fullmatch(rf"{_NUMBER}\s*%", text.strip())
    if not found:
        raise ValueError("give a percentage such as 1% or 0.1%")
    return float(found[1]) / 100


_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_LARGEST_SIZE = 1 << 30


def parse_size(text: str) -> int:
    """`64MiB`, `512KiB`, `1GiB` or plain bytes -> bytes, at most 1 GiB."""
    allowed = "give a size such as 64MiB, from 1KiB to 1GiB"
    found = re.fullmatch(r"([0-9]{1,10})\s*([A-Za-z]*)", text.strip())
    size = int(found[1]) * _SIZES.get(found[2], 0) if found else 0
    if not 1 << 10 <= size <= _LARGEST_SIZE:
        raise ValueError(allowed)
    return size


def exact_size(size: int) -> str:
    """67108864 -> 64MiB: the text that `parse_size` reads as this size."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size % _SIZES[unit] == 0)
    return f"{size // _SIZES[unit]}{unit}"


def significant(value: float, digits: int = 3) -> str:
    """Three significant digits, never in scientific notation: 0.0123, 1.23, 123, 12300."""
    return plain_number(Decimal(f"{value:.{digits}g}"))


def duration(ns: float) -> str:
    """1234567 -> 1.23 ms."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(_rounded(ns)) >= scale:
            return f"{significant(ns / scale)} {unit}"
    return f"{significant(ns)} ns"


def queue_delay(us: int) -> str:
    """Of the dynamic batcher, which -1 switches off: queue delay 1 ms."""
    return "no dynamic batching" if us == -1 else f"queue delay {duration(us * 1e3) if us else 0}"


def rate(per_s: float) -> str:
    """1234.5 -> 1230/s."""
    return f"{significant(per_s)}/s"


def percent(fraction: float) -> str:
    """0.0123 -> 1.23%."""
    return f"{significant(fraction * 100)}%"


def count(number: int) -> str:
    """Exact, with separators: 12345 -> 12,345."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """1 request, 12,345 requests."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def bytes_text(number: float) -> str:
    """1536 -> 1.5 KiB."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(number) >= scale:
            return f"{significant(number / scale)} {unit}"
    return f"{significant(number)} B"


def plain_number(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _rounded(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")
