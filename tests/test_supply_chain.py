"""What is installed is what was locked: every package by the hash of its files."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_every_locked_package_has_hashes() -> None:
    packages = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) > 100
    for package in packages:
        assert re.match(r"\S+==\S+", package)
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", package, flags=re.MULTILINE), package


def test_the_environment_is_installed_by_hash() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes --requirement requirements.lock" in recipe
    assert "--generate-hashes" in recipe
