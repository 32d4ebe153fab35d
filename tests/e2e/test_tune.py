"""`bench tune`: what it looks through, what it refuses, and once on a real Triton."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli.main import bench
from bench.core.cell import Arrival
from bench.core.errors import WrongUse
from bench.core.run_folder import RunFolder
from bench.core.spec import SweepSpec
from bench.experiments.tune.answer import describe, sentences
from bench.experiments.tune.history import Point, Tuned
from bench.experiments.tune.space import cell_of, instances_for, space_of, with_defaults
from bench.report.sections import tuning
from bench.server import model_config


def dry(*words: str) -> str:
    result = CliRunner().invoke(
        bench, ["tune", "--dry-run", "--model", "delay", *words], catch_exceptions=False
    )
    assert result.exit_code == 0
    return result.output


def test_without_axes_it_looks_through_what_the_machine_and_the_model_allow() -> None:
    said = dry("--slo", "p99=50ms")
    assert "max batch: 8, 32, 64\n" in said
    assert "queue delay: off, 0, 1 ms\n" in said
    assert "users: 1, 2, 4, 8, 16, 32, 64\n" in said
    assert "cells in the grid; at most" in said


@pytest.mark.parametrize(
    ("cores", "gpus", "instances"),
    [(1, 0, (1,)), (2, 0, (1, 2)), (6, 0, (1, 2, 4)), (64, 0, (1, 2, 4, 8)), (2, 1, (1, 2, 4))],
)
def test_instances_go_up_to_the_cores_or_what_a_gpu_shares(
    cores: int, gpus: int, instances: tuple[int, ...]
) -> None:
    assert instances_for(cores, gpus) == instances


def test_a_model_that_does_not_batch_has_neither_max_batch_nor_queue_delay() -> None:
    spec = with_defaults(
        SweepSpec(model="m", batches=(1,), concurrencies=(1,)), (), {"max_batch_size": 0}, (1, 2)
    )
    assert (spec.instances, spec.max_batches, spec.queue_delays_us) == ((1, 2), (None,), (None,))


def test_max_batches_hold_the_largest_request_and_stay_within_the_model() -> None:
    spec = with_defaults(
        SweepSpec(model="m", batches=(1, 16), concurrencies=(1,)), (), {"max_batch_size": 24}, (1,)
    )
    assert spec.max_batches == (24,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--slo nonsense", "--slo nonsense"),
        ("--slo p99=1s --concurrency 1 --rate 5/s", "goes without --concurrency"),
        ("--slo p99=1s --protocol http,grpc", "give one"),
        ("--slo p99=1s --budget soon", "a number of measurements, or a time"),
        ("--slo p99=1s --budget 2", "at least 3"),
        ("--slo p99=1s --parameter batch=1,2", "named as an axis"),
        ("--slo p99=1s --mlservice vit --replicas 1,2", "--replicas 1,2: give one"),
        ("--slo p99=1s --mlservice vit --via pod,platform", "--via pod,platform: give one"),
        ("--slo p99=1s --namespace demo", "--namespace demo: goes with --mlservice"),
        ("--slo p99=1s --batch 16 --max-batch 8", "over the model's maximum"),
    ],
)
def test_wrong_use_is_named_before_anything_starts(words: str, said: str) -> None:
    with pytest.raises(WrongUse, match=said):
        CliRunner().invoke(bench, ["tune", "--model", "delay", *words.split()], catch_exceptions=False)


def test_a_point_is_a_cell_with_the_axes_it_names() -> None:
    spec = SweepSpec(model="m", batches=(4,), instances=(2, 1), max_batches=(8,), queue_delays_us=(1000, -1),
                     parameters=(("precision", ("fp32", "bf16")),), rates_per_s=(20.0, 10.0))  # fmt: skip
    space = space_of(spec)
    assert space.levels == (10.0, 20.0)
    cell = cell_of(space, spec, Point(("bf16", 1, 8, -1, 4), 1))
    assert cell.key == "m-i1-m8-q-1us-precision=bf16-http-b4-r20p-locust"
    assert cell.load.arrival is Arrival.POISSON
    words = "precision bf16, 1 instance, max batch 8, no dynamic batching, batch 4"
    assert describe(space, ("bf16", 1, 8, -1, 4)) == words


def test_no_answer_is_a_sentence_too() -> None:
    space = space_of(SweepSpec(model="m", batches=(1,), concurrencies=(1, 2)))
    nothing: Any = dict.fromkeys(
        ("best", "runner_up", "throughput", "runner_up_throughput", "apart", "confirmed", "change")
    )
    found = Tuned(
        **nothing, proved=False, steps=(), cells=2, cost=0, untried=(), at_limit=(), out_of_budget=True
    )
    assert sentences(space, found, "p99=1ms")[0] == "No measured configuration meets p99=1ms."


@pytest.mark.e2e
def test_a_real_triton_is_tuned_and_the_answer_is_deployable(tmp_path: Path) -> None:
    """Two instances that sleep 20 ms serve twice what one does; 50 ms a request that is too slow is left."""
    out = tmp_path / "run"
    words = (
        "tune --model delay --slo p90=250ms --instances 1,2 --max-batch 8 --max-queue-delay off "
        "--parameter delay_ms=20,60 --concurrency 4 --duration 0.5s --warmup 0.1s --longest-trial 1s "
        f"--budget 8 --json --out {out}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words.split()],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    # Windows of a second may be too short for a proof: then the answer is likely, and the exit code 3.
    assert done.returncode in (0, 3), done.stderr
    found = json.loads(done.stdout)
    assert found["proved"] is (done.returncode == 0)
    assert found["best"]["configuration"]["instances"] == 2
    assert found["best"]["configuration"]["delay_ms"] == "20"
    assert found["measurements"] <= 8
    folder = RunFolder.open(out)
    assert len(list(folder.trials())) == found["measurements"]
    written = model_config.served(model_config.read(out / "config.pbtxt"))
    assert (written.instances, written.parameters["delay_ms"]) == (2, "20")
    assert tuning.render(folder)
    assert 'id="tuning"' in (out / "report.html").read_text()
    again = subprocess.run(
        [sys.executable, "-m", "bench", *words.split(), "--resume"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert again.returncode == done.returncode, again.stderr
    assert json.loads(again.stdout) == found  # nothing had to be measured again
    assert len(list(folder.trials())) == found["measurements"]


@pytest.mark.e2e
def test_a_configuration_the_server_dies_of_is_an_answer_and_the_tuning_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = (
        "tune --model faulty --slo p90=250ms --instances 1 --max-batch 8 --max-queue-delay off "
        "--parameter mode=crash,gpu_full --concurrency 1,2 --duration 0.3s --warmup 0s --longest-trial 0.6s "
        f"--budget 6 --json --out {out}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words.split()],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    found = json.loads(done.stdout)
    assert found["best"]["configuration"]["mode"] == "gpu_full"
    record = RunFolder.open(out).record
    assert 1 <= len(record.crashes) <= 2
    assert any("SIGSEGV" in step["why"] for step in found["steps"])


def test_preferred_batches_are_asked_of_every_point_that_batches() -> None:
    spec = SweepSpec(model="m", batches=(1,), instances=(1,), max_batches=(8,), queue_delays_us=(-1, 0),
                     preferred_batches=(4, 8), concurrencies=(1, 2))  # fmt: skip
    space = space_of(spec)
    servers = {delay: cell_of(space, spec, Point((1, 8, delay, 1), 0)).server for delay in (-1, 0)}
    assert servers[0].preferred_batches == (4, 8)
    assert servers[-1].preferred_batches == ()  # preferring would switch the batcher on again
