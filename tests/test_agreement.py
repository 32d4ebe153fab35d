"""Two engines agree within 10 %, differ beyond it when intervals are apart, and else nothing is decided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.agreement import Agreeing, Witness, agree, finding, likely_reason
from bench.cell import Cell, Engine, Load, Protocol, ServerConfiguration, SharedMemory


@pytest.mark.parametrize(
    ("a", "b", "verdict", "because"),
    [
        ([100, 101, 99], [102, 103, 101], Agreeing.AGREE, "2 % apart"),
        ([100, 101, 99], [109, 110, 108], Agreeing.AGREE, "9 % apart, though intervals are apart too"),
        ([100, 101, 99], [150, 151, 149], Agreeing.DIFFER, "half as much again, and sharply"),
        ([100, 101, 99], [66, 67, 68], Agreeing.DIFFER, "a third less"),
        ([60, 100, 160], [100, 160, 260], Agreeing.INDICATIVE, "far apart, but each all over the place"),
        ([100, 101], [200, 201], Agreeing.INDICATIVE, "two repeats give no interval"),
        ([], [1, 2, 3], Agreeing.INDICATIVE, "one engine failed"),
        ([0, 0, 0], [1, 2, 3], Agreeing.INDICATIVE, "one engine measured nothing"),
        ([100, 101, 99, 100], [150, 151, 149], Agreeing.DIFFER, "one engine lost a repeat"),
    ],
)
def test_verdicts(a: list[float], b: list[float], verdict: Agreeing, because: str) -> None:
    assert agree(a, b).verdict is verdict, because


repeats = st.lists(st.floats(0.1, 1e6), min_size=3, max_size=8)


@given(repeats, repeats)
def test_the_order_of_engines_turns_the_ratio_over_and_nothing_else(a: list[float], b: list[float]) -> None:
    one, other = agree(a, b), agree(b, a)
    assert one.verdict is other.verdict
    assert one.ratio is not None
    assert other.ratio is not None
    assert one.ratio * other.ratio == pytest.approx(1)


@given(repeats)
def test_an_engine_agrees_with_itself(a: list[float]) -> None:
    assert agree(a, a).verdict is Agreeing.AGREE


@given(repeats, repeats)
def test_only_a_difference_is_a_finding(a: list[float], b: list[float]) -> None:
    found = agree(a, b, "copies")
    assert (finding("throughput", found) is not None) == (found.verdict is Agreeing.DIFFER)


def _cell(batch: int = 1, memory: SharedMemory = SharedMemory.NONE, rate_per_s: float | None = None) -> Cell:
    load = Load(
        protocol=Protocol.GRPC,
        batch=batch,
        concurrency=None if rate_per_s else 2,
        rate_per_s=rate_per_s,
        shared_memory=memory,
    )
    return Cell(server=ServerConfiguration(model="m"), load=load)


def _witness(engine: Engine, cores: float = 0.1, size: int = 64, lateness_ns: float = 0.0) -> Witness:
    return Witness(engine=engine, busiest_cores=cores, request_bytes=size, lateness_ns=lateness_ns)


@pytest.mark.parametrize(
    ("cell", "cores", "size", "reason"),
    [
        (_cell(rate_per_s=5.0), 0.99, 602_112, "time origin"),
        (_cell(), 0.99, 602_112, "client CPU: perf_analyzer used 99% of a core"),
        (_cell(), 0.1, 602_112, "copies: each engine moves 0.602 MB"),
        (_cell(memory=SharedMemory.SYSTEM), 0.1, 602_112, "protocol stack"),
        (_cell(), 0.1, 64, "protocol stack: perf_analyzer uses gRPC C++"),
    ],
)
def test_the_likeliest_reason_comes_first(cell: Cell, cores: float, size: int, reason: str) -> None:
    a, b = _witness(Engine.LOCUST, size=size), _witness(Engine.PERF_ANALYZER, cores, size)
    assert likely_reason(cell, a, b).startswith(reason)


def test_lateness_is_named_where_it_matters() -> None:
    late = _witness(Engine.LOCUST, lateness_ns=25e6)
    assert likely_reason(_cell(rate_per_s=5.0), late, _witness(Engine.PERF_ANALYZER)).endswith(
        "25 ms earlier"
    )


def test_a_finding_says_ratio_interval_and_reason() -> None:
    found = finding("throughput", agree([100, 101, 99], [150, 151, 149], "client CPU: x"))
    assert found is not None
    assert found.code == "engines-differ"
    assert "1.5 times" in found.seen
    assert "client CPU" in found.cause
