"""The script for a GPU machine, where there is none: what it would run is well-formed, and fits its time."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
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

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "h200.sh"
LOAD_S = 12.0  # of an instance on a GPU: torch, weights, every bucket
MINUTES = 9
REPORT_S = 15.0  # of several runs together


def stages() -> dict[str, list[str]]:
    """Name -> command."""
    told = subprocess.run(
        [SCRIPT, "--dry-run"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    parts = [line.partition(": ") for line in told.splitlines()]
    return {name: shlex.split(command) for name, _, command in parts}


def values(words: list[str]) -> Values:
    return values_of(words[3], *words[4:])


SWEEPS = {name: words for name, words in stages().items() if "sweep" in words}


def spec_of(name: str) -> SweepSpec:
    asked = values(SWEEPS[name])
    spec, flags = sweep_spec(asked), asked.mistakes
    config = model_config.read(SHIPPED / "python_vit" / "config.pbtxt")
    check_against(spec, ("python_vit",), int(config["max_batch_size"]), flags)
    refuse_variants(spec, config, flags, Host(has_gpu=True, has_compiler=True))
    assert flags.mistakes == []
    return spec


@pytest.mark.parametrize("name", [name for name, words in stages().items() if "ceiling" in words])
def test_every_ceiling_is_one_that_its_run_takes(name: str) -> None:
    asked = values(stages()[name])
    refuse_weights(asked)
    assert asked.mistakes.mistakes == []


@pytest.mark.parametrize("name", list(SWEEPS))
def test_every_sweep_is_one_that_a_gpu_machine_takes(name: str) -> None:
    assert spec_of(name).cells()


def test_what_the_goals_need_is_measured() -> None:
    spec = spec_of("goals")
    asked = dict(spec.parameters)
    assert (asked["precision"], asked["wire"], asked["output"]) == (("bf16",), ("uint8",), ("pooler_output",))
    assert {1, 8, 32, 64} <= set(spec.batches)
    assert {1, 2, 4} <= set(spec.instances)
    assert len(spec.protocols) == len(spec.shared_memory) == 2


def test_the_first_stages_fit_the_time() -> None:
    """The last ones take what is left, and stop when it is over."""
    needed_s = sum(spec_of(name).estimate_s(LOAD_S) for name in ("goals", "precision"))
    assert needed_s < MINUTES * 60 * 0.75


def test_ceilings_are_of_the_runs() -> None:
    for name, words in stages().items():
        if "ceiling" in words:
            run = values(words)["run"]
            assert str(run) in {str(values(sweep)["out"]) for sweep in SWEEPS.values()}, name


def test_nothing_is_fetched_while_measuring() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if "pip install" in line]
    assert lines
    assert all("--no-index" in line for line in lines)


def test_the_packages_to_carry_are_locked() -> None:
    script = SCRIPT.read_text()
    packages = script.split('PACKAGES="')[1].split('"')[0].split()
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert set(packages) <= locked


def closure(statement: str) -> set[str]:
    """The distributions of all that a statement imports."""
    tell = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    told = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{tell}"],
        capture_output=True, text=True, check=True, timeout=60, cwd=ROOT,
    ).stdout  # fmt: skip
    owners = packages_distributions()
    return {normal(name) for module in told.split() for name in owners.get(module, ())}


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def needed_by(names: set[str]) -> set[str]:
    """With what they need in turn, as far as it is installed here."""
    found: set[str] = set()
    todo = {normal(name) for name in names}
    while todo:
        name = todo.pop()
        found.add(name)
        with contextlib.suppress(PackageNotFoundError):
            lines = [line for line in requires(name) or () if "extra ==" not in line]
            todo |= {normal(re.split(r"[^A-Za-z0-9_.-]", line)[0]) for line in lines} - found
    return found


def variable(name: str) -> list[str]:
    return SCRIPT.read_text().split(f'{name}="')[1].split('"')[0].split()


@pytest.mark.parametrize("statement", ["IMPORTS", "WORKER"])
def test_all_that_is_imported_is_carried_or_there(statement: str) -> None:
    """`socks` is urllib3's to try."""
    imported = closure(" ".join(variable(statement)).replace("torch, transformers, ", ""))
    known = {normal(name) for name in variable("PACKAGES")} | needed_by(set(variable("THERE")))
    assert imported - known - {"triton-bench", "pysocks"} == set()


def test_the_carried_wheel_keeps_the_server_and_the_stub_of_its_python(tmp_path: Path) -> None:
    """More than a quarter is for other Pythons; the stub takes libpython from its machine."""
    wheel = tmp_path / "nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl"
    stubs, libraries = "pytriton/tritonserver/python_backend_stubs", "nvidia_pytriton.libs"
    kept = {f"{stubs}/3.12/stub", f"{libraries}/libb64-98.so", "pytriton/tritonserver/bin/tritonserver"}
    with zipfile.ZipFile(wheel, "w") as whole:
        for name in (*kept, f"{stubs}/3.11/stub", f"{libraries}/libpython3-41.13.so.1.0"):
            whole.writestr(name, b"x")
    code = SCRIPT.read_text().split("<<'STRIP'")[1].partition("\n")[2].split("\nSTRIP\n")[0]
    subprocess.run([sys.executable, "-", tmp_path], input=code, text=True, check=True, timeout=30)
    with zipfile.ZipFile(wheel) as stripped:
        assert set(stripped.namelist()) == kept


def test_what_generated_code_is_particular_about_is_carried() -> None:
    """tritonclient refuses a protobuf or a grpcio older than those its code was generated with."""
    assert {"protobuf", "grpcio"} <= set(variable("PACKAGES"))


def test_the_whole_ends_in_time_also_when_the_last_stage_has_to_be_killed() -> None:
    script = SCRIPT.read_text()
    budget_s = int(script.split("BUDGET_S:-")[1].split("}")[0])
    grace_s = int(script.split("--kill-after=")[1].split()[0])
    assert budget_s + grace_s + REPORT_S <= MINUTES * 60


PLAYED = """#!/bin/bash
echo "$*" >>"$PLAYED"
case "$*" in *tf32*) echo "FAILED: precision tf32 needs a GPU" ;; esac
"""


@pytest.mark.parametrize(("said", "goes_on"), [("tf32 needs a\n  GPU", False), ("1,200 img/s", True)])
def test_a_server_that_finds_no_gpu_ends_it_at_once(said: str, goes_on: bool, tmp_path: Path) -> None:
    """KIND_AUTO would go to the CPU, and nine minutes with it."""
    python, log = tmp_path / "python", tmp_path / "commands"
    python.write_text(PLAYED.replace("precision tf32 needs a GPU", said))
    python.chmod(0o755)
    played = {"PYTHON": str(python), "WHEELS": str(tmp_path / "none"), "PLAYED": str(log)}
    done = subprocess.run(
        [SCRIPT, tmp_path / "out"],
        env={**os.environ, **played}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == (0 if goes_on else 4), done.stdout
    assert ("max-autotune" in log.read_text()) is goes_on


def test_it_is_a_script() -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False, timeout=30).returncode == 0
