"""The bare model beside a run: kept, matched to cells, and what ends each cell's throughput."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.analysis import aggregate
from bench.analysis.bottleneck import bottleneck, busy_share, with_bottlenecks
from bench.analysis.ceiling import Bare, Ceiling, read_ceiling, write_ceiling
from bench.analysis.cell_row import COLUMNS, CellRow
from bench.analysis.roofline import Measured, Shape
from bench.core.errors import RunFolderError, ToolError
from bench.core.run_folder import RunFolder
from bench.core.trial import Counters, Trial, total
from bench.experiments.ceiling import measure as ceiling
from tests.support import simulation
from tests.support.simulation import Server, always

TINY = Shape(192, 768, 12, 197, 768, 5_561_472)
WEIGHTS = "random:tiny:seed=0"


def bare(batch: int = 8, precision: str = "fp32", rates: tuple[float, ...] = (99.0, 100.0, 101.0)) -> Bare:
    return Bare(
        weights=WEIGHTS, precision=precision, compile="none", output="last_hidden_state", batch=batch,
        images_per_s=rates,
    )  # fmt: skip


def found(*of: Bare) -> Ceiling:
    rates = {"fp32": Measured(1e12, 1e11)}
    return Ceiling(device="cpu", threads=2, torch="2", shape=TINY, rates=rates, bare=of)


def row(**known: Any) -> CellRow:
    """8 images a request, 4 users, one instance that executes 80 ms of each 100."""
    base: dict[str, Any] = {
        "cell": "a", "model": "python_vit", "protocol": "http", "batch": 8, "instances": 1, "concurrency": 4,
        "shared_memory": "none", "engine": "locust", "precision": "fp32", "compile": "none", "wire": "fp32",
        "output": "last_hidden_state", "throughput_img_per_s": 80.0, "latency_mean_ms": 100.0,
        "server_queue_ms": 0.0, "server_compute_input_ms": 1.0, "server_compute_infer_ms": 60.0,
        "server_compute_output_ms": 1.0, "executed_batch_mean": 8.0, "wire_in_bytes_per_s": 40e6,
        "wire_out_bytes_per_s": 40e6, "verdict": "VALID", "findings": "", "repeats": 1, "requests": 9,
        "errors": 0, "latency_n": 9,
    }  # fmt: skip
    base["busy"] = {**base, **known}["throughput_img_per_s"] / 8 * 0.062
    return CellRow(**{**dict.fromkeys(COLUMNS), **base, **known})


def test_efficiency_is_served_over_bare_of_that_precision_and_batch() -> None:
    rows = [row(), row(cell="b", batch=1), row(cell="c", precision="bf16"), row(cell="d", precision=None)]
    known = with_bottlenecks(rows, found(bare(), bare(batch=1, rates=(50.0, 50.0, 50.0))))
    assert [r.efficiency for r in known] == [pytest.approx(0.8, rel=1e-3), pytest.approx(1.6), None, None]
    assert known[0].roofline_img_per_s == pytest.approx(1e12 / TINY.flop_per_image, rel=0.01)


def test_without_a_ceiling_there_is_no_efficiency() -> None:
    assert with_bottlenecks([row()], None)[0].efficiency is None


def test_a_ceiling_is_kept_with_the_run_and_later_variants_join_it(tmp_path: Path) -> None:
    assert read_ceiling(RunFolder(tmp_path)) is None
    write_ceiling(found(bare(), bare(batch=1)), RunFolder(tmp_path))
    write_ceiling(found(bare(rates=(7.0,)), bare(precision="bf16")), RunFolder(tmp_path))
    known = read_ceiling(RunFolder(tmp_path))
    assert known is not None
    assert sorted((b.batch, b.precision, len(b.images_per_s)) for b in known.bare) == [
        (1, "fp32", 3),
        (8, "bf16", 3),
        (8, "fp32", 1),
    ]
    assert known.rates == found().rates


def test_a_broken_ceiling_is_named(tmp_path: Path) -> None:
    (tmp_path / "ceiling.json").write_text("{}")
    with pytest.raises(RunFolderError, match="remove it, or measure again"):
        read_ceiling(RunFolder(tmp_path))


WALLS = (
    # why, what differs, the wall
    ("instances execute all the time", {"throughput_img_per_s": 125.0}, "compute"),
    ("half of a request is outside the server",
     {"throughput_img_per_s": 64.0, "latency_mean_ms": 120.0}, "wire"),
    ("the same, but no tensor travels",
     {"throughput_img_per_s": 64.0, "latency_mean_ms": 120.0, "shared_memory": "system"}, "client"),
    ("the generator is at its limit", {"findings": "client-bound"}, "client"),
    ("an open loop asks for less", {"rate_per_s": 8.0, "concurrency": None}, "load"),
    ("requests wait for idle instances",
     {"server_queue_ms": 60.0, "latency_mean_ms": 130.0, "throughput_img_per_s": 60.0}, "queue"),
    ("one user cannot fill it", {"latency_mean_ms": 70.0, "throughput_img_per_s": 90.0}, "load"),
)  # fmt: skip


@pytest.mark.parametrize(("differs", "word"), [w[1:] for w in WALLS], ids=[w[0] for w in WALLS])
def test_the_wall_is_named(differs: dict[str, Any], word: str) -> None:
    said = bottleneck(row(**differs))
    assert said is not None
    assert said[0] == word
    assert said[1].endswith(".")


def counted(pods: int, batches: dict[int, tuple[int, int]], **more: int) -> Trial:
    """A trial of 10 s on pods that all counted the same. `batches`: size -> (executions, ms of each)."""
    one = Counters(
        inference_count=sum(size * n for size, (n, _) in batches.items()),
        execution_count=sum(n for n, _ in batches.values()),
        success_count=sum(size * n for size, (n, _) in batches.items()),
        fail_count=0, success_ns=0, queue_ns=0, compute_input_ns=0, compute_output_ns=0,
        # Every request is charged the time of its whole batch.
        compute_infer_ns=sum(size * n * ms for size, (n, ms) in batches.items()) * 1_000_000,
        batches={size: (n, n * ms * 1_000_000) for size, (n, ms) in batches.items()},
        executing_ns=more.get("executing_ns", sum(n * ms for n, ms in batches.values()) * 1_000_000),
    )  # fmt: skip
    like = simulation.trial(Server(always(10)), simulation.cell(concurrency=1), seconds=10)
    counters = replace(total([one] * pods), pods={str(i): one for i in range(pods)}) if pods > 1 else one
    return replace(like, counters=counters)


def test_pods_as_found_share_the_work() -> None:
    """Three pods that execute 30 % of the time are not one that executes 91 %."""
    share = busy_share([counted(3, {1: (300, 10)})], instances=1)
    assert share == pytest.approx(0.30)
    said = bottleneck(row(busy=share))
    assert said is not None
    assert said[0] != "compute"
    assert "30%" in said[1]


def test_large_batches_do_not_weigh_more() -> None:
    """By means per request, 93 % busy read as 109 %."""
    mixed = {1: (500, 6), 8: (420, 15)}
    for executing in ({}, {"executing_ns": 0}):  # as recorded, and as older runs have it
        assert busy_share([counted(1, mixed, **executing)], instances=1) == pytest.approx(0.93)


def test_busy_counts_every_instance_and_every_repeat() -> None:
    assert busy_share([counted(1, {1: (300, 10)})], instances=2) == pytest.approx(0.15)
    two = [counted(1, {1: (300, 10)}), counted(1, {1: (500, 10)})]
    assert busy_share(two, instances=None) == pytest.approx(0.40)
    assert busy_share([], instances=1) is None


def test_nothing_is_said_where_the_server_does_not_tell() -> None:
    assert bottleneck(row(busy=None)) is None


def test_shared_memory_tells_bytes_from_the_rest() -> None:
    slow = {"throughput_img_per_s": 64.0, "latency_mean_ms": 120.0}
    http = row(**slow)
    fast = replace(row(cell="b", shared_memory="system"), throughput_img_per_s=110.0)
    assert with_bottlenecks([http, fast], None)[0].wall == "wire"
    assert "1.72 x as fast" in with_bottlenecks([http, fast], None)[0].wall_reason
    same = replace(fast, throughput_img_per_s=64.0)
    assert with_bottlenecks([http, same], None)[0].wall == "client"


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ({"name": "image", "data_type": "TYPE_FP32", "dims": [-1, -1, -1]}, 602_112),
        ({"name": "image", "data_type": "TYPE_UINT8", "dims": ["-1", "-1", "-1"]}, 150_528),
        ({"name": "image", "data_type": "TYPE_UINT8", "dims": [-1]}, None),
        ({"name": "last_hidden_state", "data_type": "TYPE_FP32", "dims": [197, 768]}, 605_184),
        ({"name": "text", "data_type": "TYPE_STRING", "dims": [1]}, None),
    ],
)
def test_bytes_of_an_image_follow_from_shapes(entry: dict[str, Any], size: int | None) -> None:
    assert aggregate.image_bytes({"input": [entry]}, 224, 224) == (size, None)


def test_the_bare_model_runs_here() -> None:
    pytest.importorskip("torch")
    with ceiling.Process(WEIGHTS, threads=1) as process:
        rates = process.images_per_s(2, seconds=0.05, samples=2)
        shape = Shape(**process.about["shape"])
    assert len(rates) == 2
    assert min(rates) > 0
    assert replace(shape, parameters=0) == replace(TINY, parameters=0)


def test_weights_that_are_not_here_are_named() -> None:
    pytest.importorskip("torch")
    with pytest.raises(ToolError, match="cannot be measured here"):
        ceiling.Process("random:huge:seed=0")
