"""What a start of the command costs, and that what is imported is declared, and what is declared imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"gevent", "kubernetes", "torch", "plotly", "pandas", "locust"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def imported_after(statement: str) -> set[str]:
    """Top-level modules in a new interpreter, after `statement`."""
    tell = "import sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    ran = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{tell}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stderr.split())


def test_import_bench_is_light() -> None:
    assert not imported_after("import bench") & HEAVY


@pytest.mark.parametrize("words", [("--help",), ("--version",)])
def test_the_help_of_the_command_is_light(words: tuple[str, ...]) -> None:
    ask = f"from bench.cli.main import bench; bench.main({list(words)}, standalone_mode=False)"
    assert not imported_after(ask) & {*HEAVY, "numpy", "grpc", "requests", "rich"}


def test_every_imported_distribution_is_declared() -> None:
    serve = PROJECT["optional-dependencies"]["serve"]
    imported = distributions(ROOT / "bench") | distributions(ROOT / "locustfiles")
    assert imported <= names(PROJECT["dependencies"]) | names(serve)


def test_every_declared_distribution_is_imported() -> None:
    assert names(PROJECT["dependencies"]) <= distributions(ROOT / "bench")


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(folder: Path) -> set[str]:
    """Of the modules that the files of `folder` import, at their top or in a function."""
    owners = packages_distributions()
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            for module in modules:
                found |= {normal(owner) for owner in owners.get(module.partition(".")[0], ())}
    return found - {"triton-bench"}
