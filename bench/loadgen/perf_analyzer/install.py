"""Find a perf_analyzer that really runs here, or set one up without root.

The binary is wanted, never pip's entry point of that name, which exits 0 whatever happened. What is set
up, and why that version, is argued in docs/perf_analyzer.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench.core.child import dies_with_us
from bench.core.errors import ToolError
from bench.server.embedded import cache_folder

_NEXT_STEP = "Run `bench setup perf-analyzer` (no root needed), or name a binary with --perf-analyzer."
_PIP_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """A wheel that carries a binary; `libraries`: soname -> how its file begins in nvidia-pytriton."""

    package: str
    version: str
    sha256: str  # of the wheel
    member: str  # the binary, as the wheel's paths end
    glibc: tuple[int, int]
    libraries: tuple[tuple[str, str], ...] = ()


RECIPES = (
    Recipe(
        "perf-analyzer",
        "2.60.0",
        "23ef56b107ae9233e5cf09fbdf508dd9b936a52f1bae2f63f53c8117087b3f25",
        "perf_analyzer/bin/perf_analyzer",
        (2, 38),
    ),
    Recipe(
        "tritonclient",
        "2.43.0",
        "a6ce7c1b170db4cc05f81c3bde1726ec65da8646f65dab9e0674eb9d564bec36",
        ".data/data/bin/perf_analyzer",
        (2, 34),
        (("libb64.so.0d", "libb64-"), ("libcudart.so.12", "libcudart-")),
    ),
)
_LIBRARY_PACKAGE = "nvidia-pytriton"
_LIBRARY_VERSION = "0.7.0"
_LIBRARY_SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
_LIBRARY_FOLDER = "nvidia_pytriton.libs"


def find(explicit: Path | None = None) -> PerfAnalyzer:
    """`--perf-analyzer`, then $PATH, then the perf-analyzer wheel, then what `bench setup` made.

    Raises ToolError telling why each of them is not it.
    """
    if explicit is not None:
        return _given(explicit)
    reasons = []
    for place in (_on_path, _in_wheel, _in_cache):
        try:
            return place()
        except ToolError as error:
            reasons.append(str(error))
    raise ToolError(f"No perf_analyzer that runs here: {'; '.join(reasons)}. {_NEXT_STEP}")


def setup(progress: Callable[[str], None], *, version: str | None = None) -> PerfAnalyzer:
    """The copy in the user's cache, made if it is not there. Safe when two processes do it at once.

    `version`: one of RECIPES instead of the newest that this machine's C library carries.
    Raises ToolError when none fits, or pip cannot get it.
    """
    recipe = fitting_recipe(glibc(), version)
    folder = _store() / recipe.version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent):
        try:
            return _cached(folder)
        except ToolError:
            progress(f"getting perf_analyzer {recipe.version} ({recipe.package} wheel) with pip")
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as scratch:
            made = _make(recipe, Path(scratch), progress)
            shutil.rmtree(folder, ignore_errors=True)  # there but broken
            made.rename(folder)
        return _cached(folder)


def fitting_recipe(
    libc: tuple[int, int] | None, version: str | None = None, machine: str | None = None
) -> Recipe:
    """The newest that the C library carries, or the version asked for. Raises ToolError."""
    machine = machine or platform.machine()
    if libc is None or machine != "x86_64":
        raise ToolError(
            "perf_analyzer is published for Linux on x86_64 with glibc only: build it from source here, "
            "and name it with --perf-analyzer."
        )
    wanted = [r for r in RECIPES if version in (None, r.version)]
    if not wanted:
        known = ", ".join(r.version for r in RECIPES)
        raise ToolError(f"perf_analyzer {version} is none that can be set up: take one of {known}.")
    for recipe in wanted:
        if libc >= recipe.glibc:
            return recipe
    least = min(r.glibc for r in wanted)
    raise ToolError(
        f"perf_analyzer needs glibc {dotted(least)}, this machine has {dotted(libc)}: build it from source "
        "and name it with --perf-analyzer."
    )


def _given(path: Path) -> PerfAnalyzer:
    if not path.is_file():
        raise ToolError(f"--perf-analyzer {path}: there is no such file. Name the binary itself.")
    try:
        return tried(path.resolve(), None, None, "given with --perf-analyzer")
    except ToolError as error:
        raise ToolError(f"--perf-analyzer {path}: {error}. {_NEXT_STEP}") from None


def _on_path() -> PerfAnalyzer:
    found = shutil.which("perf_analyzer")
    if found is None:
        raise ToolError("none on $PATH")
    return tried(Path(found).resolve(), None, None, f"found on $PATH as {found}")


def _in_wheel() -> PerfAnalyzer:
    try:
        distribution = metadata.distribution("perf-analyzer")
    except metadata.PackageNotFoundError:
        raise ToolError("the perf-analyzer wheel is not installed") from None
    inside = [f for f in distribution.files or () if str(f).endswith(RECIPES[0].member)]
    if not inside:
        raise ToolError(
            f"the installed perf-analyzer wheel {distribution.version} is a placeholder without a binary "
            "(pip takes it where glibc is older than 2.38)"
        )
    binary = Path(str(distribution.locate_file(inside[0])))
    return tried(binary, None, distribution.version, f"the perf-analyzer {distribution.version} wheel")


def _in_cache() -> PerfAnalyzer:
    reasons = []
    for recipe in RECIPES:
        try:
            return _cached(_store() / recipe.version)
        except ToolError as error:
            reasons.append(str(error))
    raise ToolError(reasons[-1])


def _cached(folder: Path) -> PerfAnalyzer:
    try:
        record = json.loads((folder / "origin.json").read_text())
        version, origin, sha256 = (str(record[key]) for key in ("version", "origin", "sha256"))
    except (OSError, ValueError, KeyError, TypeError):
        raise ToolError("none set up in the user's cache") from None
    libraries = folder / "lib" if (folder / "lib").is_dir() else None
    tool = tried(folder / "perf_analyzer", libraries, version, f"{origin}, set up in {folder}")
    if tool.sha256 != sha256:
        raise ToolError(f"{tool.binary} is not the file that was set up (its sha256 differs)")
    return tool


def _store() -> Path:
    return cache_folder() / "perf_analyzer"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process, however it ends."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(recipe: Recipe, scratch: Path, progress: Callable[[str], None]) -> Path:
    """A complete folder below `scratch`, whose binary has run."""
    folder = scratch / "made"
    folder.mkdir()
    wheel = _download(recipe.package, recipe.version, recipe.sha256, scratch / "wheel")
    binary = folder / "perf_analyzer"
    _extract(wheel, lambda name: name.endswith(recipe.member), binary)
    binary.chmod(0o755)
    if recipe.libraries:
        (folder / "lib").mkdir()
        _libraries(recipe, folder / "lib", scratch, progress)
    libraries = folder / "lib" if recipe.libraries else None
    origin = f"{recipe.package} {recipe.version} wheel"
    tool = tried(binary, libraries, recipe.version, origin)
    record = {"version": tool.version, "origin": origin, "wheel": wheel.name, "sha256": tool.sha256}
    (folder / "origin.json").write_text(json.dumps(record, indent=1))
    return folder


def _libraries(recipe: Recipe, into: Path, scratch: Path, progress: Callable[[str], None]) -> None:
    """Copies, not links: the cache outlives the environment it was made from."""
    installed = Path(sysconfig.get_path("purelib")) / _LIBRARY_FOLDER
    if all(any(installed.glob(f"{begin}*")) for _, begin in recipe.libraries):
        for soname, begin in recipe.libraries:
            shutil.copyfile(next(iter(sorted(installed.glob(f"{begin}*")))), into / soname)
        return
    progress(f"getting {', '.join(soname for soname, _ in recipe.libraries)} ({_LIBRARY_PACKAGE} wheel)")
    wheel = _download(_LIBRARY_PACKAGE, _LIBRARY_VERSION, _LIBRARY_SHA256, scratch / "libraries")
    for soname, begin in recipe.libraries:
        prefix = f"{_LIBRARY_FOLDER}/{begin}"
        _extract(wheel, lambda name, prefix=prefix: name.startswith(prefix), into / soname)  # type: ignore[misc]  # a default binds the loop's value


def _download(package: str, version: str, sha256: str, into: Path) -> Path:
    """The wheel, through the user's own pip configuration. Raises ToolError for one of another content."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(into), f"{package}=={version}"]
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S,
            preexec_fn=dies_with_us(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ToolError(f"pip did not get {package} within {_PIP_TIMEOUT_S:g} s: try again.") from None
    wheels = sorted(into.glob("*.whl")) if into.is_dir() else []
    if ended.returncode != 0 or not wheels:
        said = [line for line in ended.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        raise ToolError(
            f"pip could not get {package} {version}: {' '.join(said[-2:]) or 'it gave no wheel'}. "
            "Check pip's index (`pip config list`), or name a binary with --perf-analyzer."
        )
    with wheels[0].open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ToolError(
            f"{wheels[0].name} is not the file that was published: its SHA-256 is {found}, not {sha256}. "
            "Check pip's index (`pip config list`), or name a binary with --perf-analyzer."
        )
    return wheels[0]


def _extract(wheel: Path, is_it: Callable[[str], bool], to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = [name for name in archive.namelist() if is_it(name)]
        if not inside:
            raise ToolError(f"{wheel.name} does not hold {to.name}: report this, with the wheel's name.")
        with archive.open(inside[0]) as source, to.open("wb") as sink:
            shutil.copyfileobj(source, sink)


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
