"""One perf_analyzer binary: does it run here, which version is it, what does it need around it."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import ToolError

_RUN_TIMEOUT_S = 20.0
# From 2.44 on the profile export holds every answer, from 2.48 on every request too, all of it in memory.
_KEEPS_BODIES_FROM = (2, 44)


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """A binary that ran here, and where it came from. `libraries` None: the system's are enough."""

    binary: Path
    libraries: Path | None
    version: str
    origin: str
    sha256: str

    @property
    def keeps_bodies(self) -> bool:
        """Whether it holds the tensors of all requests in memory (unknown versions: yes)."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        known = (int(found[1]), int(found[2])) if found else (0, 0)
        return known == (0, 0) or known >= _KEEPS_BODIES_FROM

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with its libraries before any others."""
        return environment(self.libraries, os.environ)


def environment(libraries: Path | None, base: Mapping[str, str]) -> dict[str, str]:
    if libraries is None:
        return dict(base)
    others = base.get("LD_LIBRARY_PATH")
    return {**base, "LD_LIBRARY_PATH": f"{libraries}:{others}" if others else str(libraries)}


def glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if name == "glibc" and found else None


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def tried(binary: Path, libraries: Path | None, version: str | None, origin: str) -> PerfAnalyzer:
    """Run it once; `version` None: as it says itself.

    Raises ToolError with a reason that can stand inside a sentence.
    """
    try:
        content = binary.read_bytes()
    except OSError as error:
        raise ToolError(f"{binary} cannot be read ({error.strerror})") from None
    if content.startswith(b"#!") and b"perf_analyzer.cli" in content:
        raise ToolError(f"{binary} is pip's script, which always exits 0: the binary itself is needed")
    said = _first_run(binary, libraries)
    stated = re.search(r"Version (\d\S*)", said)
    return PerfAnalyzer(
        binary=binary,
        libraries=libraries,
        version=version or (stated[1] if stated else "unknown"),
        origin=origin,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _first_run(binary: Path, libraries: Path | None) -> str:
    try:
        ended = subprocess.run(
            [str(binary), "--version"],
            env=environment(libraries, os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{binary} does not run ({error})") from None
    said = ended.stdout + ended.stderr  # --version goes to stderr
    if ended.returncode != 0 or "Perf Analyzer" not in said:
        raise ToolError(f"{binary} does not run ({_why(said, ended.returncode)})")
    return said


def _why(said: str, code: int) -> str:
    if found := re.search(r"GLIBC_(\d[\d.]*)' not found", said):
        return f"it needs glibc {found[1]}, this machine has {dotted(glibc() or (0, 0))}"
    if found := re.search(r"(lib\S+): cannot open shared object", said):
        return f"the library {found[1]} is missing"
    lines = said.strip().splitlines()
    return lines[-1] if lines else f"it ended with code {code}"
