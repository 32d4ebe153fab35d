"""The script for a GPU machine, where there is none: what it would run is well-formed, and fits its time."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.cli.spec import sweep_spec
from bench.cli.values import Values
from bench.cli.verbs.ceiling import refuse_weights
from bench.core.spec import SweepSpec
from bench.experiments.preconditions import Host, check_against, refuse_variants
from bench.server import model_config
from bench.server.repository import SHIPPED
from tests.support.command import values_of

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "h200.sh"
LOAD_S = 12.0  # An instance on a GPU takes so long to load: torch, the weights and every bucket.
BUDGET_S = 9 * 60


@pytest.fixture(scope="module")
def stages() -> dict[str, list[str]]:
    """Name -> command, as a dry run prints them."""
    printed = subprocess.run([SCRIPT, "--dry-run"], capture_output=True, text=True, check=True).stdout
    parts = [line.partition(": ") for line in printed.splitlines()]
    return {name: shlex.split(command) for name, _, command in parts}


def values(words: list[str]) -> Values:
    return values_of(words[3], *words[4:])


def spec_of(words: list[str]) -> SweepSpec:
    asked = values(words)
    spec, mistakes = sweep_spec(asked), asked.mistakes
    config = model_config.read(SHIPPED / "python_vit" / "config.pbtxt")
    check_against(spec, ("python_vit",), int(config["max_batch_size"]), mistakes)
    refuse_variants(spec, config, mistakes, Host(has_gpu=True, has_compiler=True))
    assert mistakes.mistakes == [], words
    return spec


def test_a_gpu_machine_takes_every_command(stages: dict[str, list[str]]) -> None:
    """And each ceiling belongs to a run that was swept."""
    sweeps = [words for words in stages.values() if "sweep" in words]
    ceilings = [words for words in stages.values() if "ceiling" in words]
    assert all(spec_of(words).cells() for words in sweeps)
    for words in ceilings:
        asked = values(words)
        refuse_weights(asked)
        assert asked.mistakes.mistakes == []
    assert {values(words)["run"] for words in ceilings} <= {values(words)["out"] for words in sweeps}


def test_the_first_stages_fit_the_time(stages: dict[str, list[str]]) -> None:
    """The last ones take what is left, and stop when it is over."""
    needed_s = sum(spec_of(stages[name]).estimate_s(LOAD_S) for name in ("goals", "precision"))
    assert needed_s < BUDGET_S * 0.75


PLAYED = """#!/bin/bash
echo "$*" >>"$PLAYED"
case "$*" in *tf32*) echo "FAILED: precision tf32 needs a GPU" ;; esac
"""


@pytest.mark.parametrize(("printed", "goes_on"), [("tf32 needs a\n  GPU", False), ("1,200 img/s", True)])
def test_a_server_that_finds_no_gpu_ends_it_at_once(printed: str, goes_on: bool, tmp_path: Path) -> None:
    """KIND_AUTO would go to the CPU, and nine minutes with it."""
    python, log = tmp_path / "python", tmp_path / "commands"
    python.write_text(PLAYED.replace("precision tf32 needs a GPU", printed))
    python.chmod(0o755)
    played = {"PYTHON": str(python), "WHEELS": str(tmp_path / "none"), "PLAYED": str(log)}
    done = subprocess.run(
        [SCRIPT, tmp_path / "out"],
        env={**os.environ, **played}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == (0 if goes_on else 4), done.stdout
    assert ("max-autotune" in log.read_text()) is goes_on
