"""The wheel, installed into an empty environment outside any checkout, does what the README says.

The libraries are those of the environment that runs the tests, lent by a line in a .pth file. Such a line
adds the modules that lie there, and leaves out the hook of the editable install beside them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from bench.core.cell import ServerConfiguration
from bench.server.embedded import EmbeddedTriton
from tests.support.calibration import serve

ROOT = Path(__file__).parents[2]
SHIPPED = ("model_repository", "locustfiles", "manifests")


@dataclass(frozen=True, slots=True)
class Installed:
    programs: Path
    outside: Path  # the working folder: nothing of a checkout in it or above

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return _run(str(self.programs / program), *words, at=self.outside)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    environment, outside = folder / "environment", folder / "outside"
    outside.mkdir()
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment), at=folder)
    python = environment / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
    ]
    _run(*pip, str(wheel), at=folder)
    lent = environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (lent / "lent.pth").write_text(sysconfig.get_path("purelib"))
    return Installed(environment / "bin", outside)


def test_a_wheel_has_what_the_checkout_has_and_an_sdist_makes_the_same(wheel: Path, tmp_path: Path) -> None:
    make = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    _run(sys.executable, "-c", make, str(tmp_path), at=ROOT)
    (sdist,) = tmp_path.glob("*.tar.gz")
    names = _names(wheel)
    assert names == _names(_wheel(sdist, tmp_path))
    package = {str(path.relative_to(ROOT)) for path in _files(ROOT / "bench")}
    data = {f"bench/data/{path.relative_to(ROOT)}" for name in SHIPPED for path in _files(ROOT / name)}
    assert {name for name in names if ".dist-info/" not in name} == package | data


def test_bench_is_the_installed_one(installed: Installed) -> None:
    shown = installed.run("python", "-c", "import bench, sys; print(bench.__file__, bench.LOCUSTFILE)").stdout
    module, locustfile = map(Path, shown.split())
    assert module.is_relative_to(installed.programs.parent)
    assert locustfile.is_relative_to(module.parent)


@pytest.mark.e2e
def test_sweep(installed: Installed) -> None:
    installed.run(
        "bench", "sweep", "--batch", "2", "--vit", "tiny", "--quick", "--concurrency", "1",
        "--protocol", "http", "--duration", "300ms", "--warmup", "0s", "--name", "small",
    )  # fmt: skip
    run = installed.outside / "reports" / "small"
    assert len((run / "cells.csv").read_text().splitlines()) == 1 + 1
    assert "plotly" in (run / "report.html").read_text()
    assert len(list((run / "trials").rglob("*.npz"))) == 1


@pytest.mark.e2e
def test_ceiling(installed: Installed) -> None:
    words = ("--batch", "2", "--vit", "tiny", "--seconds", "50ms", "--samples", "1", "--json")
    printed = json.loads(installed.run("bench", "ceiling", *words).stdout)
    assert [bare["batch"] for bare in printed["bare"]] == [2]


def test_deploy_dry_run(installed: Installed) -> None:
    printed = installed.run("bench", "deploy", "--dry-run", "--image", "registry/vit:1").stdout
    assert {"MLServiceRuntime", "MLService"} <= {item["kind"] for item in yaml.safe_load_all(printed)}


@pytest.mark.e2e
def test_the_locustfile(installed: Installed, triton: EmbeddedTriton) -> None:
    serve(triton, ServerConfiguration(model="delay"))
    locustfile = installed.run("python", "-c", "import bench; print(bench.LOCUSTFILE)").stdout.strip()
    ran = installed.run(
        "python", "-m", "locust", "-f", locustfile, "--headless", "-u", "2", "-t", "1s", "--model", "delay",
        "-H", triton.target.http_url, "--grpc-host", triton.target.grpc_address or "",
    )  # fmt: skip
    assert "delay batch 1" in ran.stdout + ran.stderr


def test_a_part_that_is_missing_is_named(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path, [name for name in packed.namelist() if "/model_repository/" not in name])
    ran = _run(sys.executable, "-m", "bench", "ceiling", at=tmp_path, check=False)
    assert ran.returncode == 4
    assert f"{tmp_path}/bench/data/model_repository is missing" in ran.stderr
    assert "install the package again" in ran.stderr


def _wheel(source: Path, folder: Path) -> Path:
    _run(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", str(folder), str(source), at=folder,
    )  # fmt: skip
    (made,) = folder.glob("*.whl")
    return made


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as packed:
        return set(packed.namelist())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def _run(*command: str, at: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        command, cwd=at, env=environment, capture_output=True, text=True, check=False, timeout=150
    )
    assert not check or ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran
