"""A binary that really runs is found, in a fixed order, or made in the user's cache; no root, no network
but pip's. Fake binaries are scripts that answer `--version` as perf_analyzer does, on stderr."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import pytest

from bench.core.errors import ToolError
from bench.loadgen.perf_analyzer import install as subject
from bench.loadgen.perf_analyzer.install import (
    RECIPES,
    PerfAnalyzer,
    environment,
    find,
    fitting_recipe,
    setup,
    tried,
)

RUNS = "#!/bin/sh\necho 'Perf Analyzer Version 2.43.0 (commit 48fa444)' >&2\n"
NEEDS_NEWER_GLIBC = "#!/bin/sh\necho \"x: /lib/libc.so.6: version 'GLIBC_2.38' not found\" >&2\nexit 1\n"
NEEDS_LIBRARY = (
    "#!/bin/sh\necho 'x: error while loading shared libraries: libb64.so.0d: "
    "cannot open shared object file: No such file or directory' >&2\nexit 127\n"
)
PIPS_SCRIPT = "#!/usr/bin/python3\nfrom perf_analyzer.cli import main\nmain()\n"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No perf_analyzer anywhere: an empty cache, an empty $PATH, no wheel."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")

    def none(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    monkeypatch.setattr(subject, "glibc", lambda: (2, 36))


def fake_pip(monkeypatch: pytest.MonkeyPatch, binary: str = RUNS, log: Path | None = None) -> None:
    """pip gives wheels that hold `binary`, and the two libraries."""

    def download(package: str, version: str, _sha256: str, into: Path) -> Path:
        if log is not None:
            with log.open("a") as file:
                file.write(f"{package}\n")
        into.mkdir(parents=True)
        wheel = into / f"{package}-{version}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            if package == "nvidia-pytriton":
                archive.writestr("nvidia_pytriton.libs/libb64-98cb.so.0d", b"b64")
                archive.writestr("nvidia_pytriton.libs/libcudart-0952.so.12.6", b"cudart")
            else:
                archive.writestr(f"tritonclient-{version}.data/data/bin/perf_analyzer", binary)
        return wheel

    monkeypatch.setattr(subject, "_download", download)


class Wheel:
    """An installed perf-analyzer distribution."""

    def __init__(self, version: str, root: Path, files: list[str]) -> None:
        self.version, self._root, self.files = version, root, files

    def locate_file(self, path: str) -> Path:
        return self._root / path


def install_wheel(monkeypatch: pytest.MonkeyPatch, root: Path, version: str, text: str | None) -> None:
    files = ["perf_analyzer/__init__.py"]
    if text is not None:
        files.append("perf_analyzer/bin/perf_analyzer")
        script(root / files[-1], text)
    monkeypatch.setattr(metadata, "distribution", lambda _: Wheel(version, root, files))


def test_nothing_there_says_what_was_tried_and_what_to_do() -> None:
    with pytest.raises(ToolError) as caught:
        find()
    for words in ("$PATH", "wheel is not installed", "cache", "bench setup perf-analyzer", "--perf-analyzer"):
        assert words in str(caught.value)


def test_each_place_comes_before_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pip(monkeypatch)
    setup(lambda _: None)
    assert "wheel, set up in" in find().origin
    install_wheel(monkeypatch, tmp_path / "site", "2.60.0", RUNS)
    assert find().origin == "the perf-analyzer 2.60.0 wheel"
    script(tmp_path / "path" / "perf_analyzer", RUNS)
    assert "$PATH" in find().origin
    assert "--perf-analyzer" in find(script(tmp_path / "mine", RUNS)).origin


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NEEDS_NEWER_GLIBC, "it needs glibc 2.38, this machine has"),
        (NEEDS_LIBRARY, "the library libb64.so.0d is missing"),
        (PIPS_SCRIPT, "pip's script, which always exits 0"),
        ("#!/bin/sh\nexit 3\n", "it ended with code 3"),
        ("\x7fELF no program", "does not run"),
    ],
)
def test_one_that_does_not_run_is_passed_over_and_the_reason_told(
    tmp_path: Path, text: str, words: str
) -> None:
    script(tmp_path / "path" / "perf_analyzer", text)
    with pytest.raises(ToolError) as caught:
        find()
    assert words in str(caught.value)


def test_an_explicit_one_that_does_not_run_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(monkeypatch)
    setup(lambda _: None)
    with pytest.raises(ToolError, match=r"libb64\.so\.0d is missing"):
        find(script(tmp_path / "mine", NEEDS_LIBRARY))
    with pytest.raises(ToolError, match="no such file"):
        find(tmp_path / "absent")


def test_the_placeholder_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_wheel(monkeypatch, tmp_path / "site", "0.1.0", None)
    with pytest.raises(ToolError, match=r"wheel 0\.1\.0 is a placeholder without a binary"):
        find()


def test_a_wheels_version_is_believed_and_the_binarys_own_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """2.60.0 calls itself 0.0.0."""
    install_wheel(monkeypatch, tmp_path / "site", "2.60.0", RUNS.replace("2.43.0", "0.0.0"))
    assert find().version == "2.60.0"


@pytest.mark.parametrize(
    ("libc", "version", "package"),
    [((2, 34), "2.43.0", "tritonclient"), ((2, 36), "2.43.0", "tritonclient"), ((2, 38), "2.60.0", None)],
)
def test_the_newest_that_the_c_library_carries_is_taken(
    libc: tuple[int, int], version: str, package: str | None
) -> None:
    recipe = fitting_recipe(libc, machine="x86_64")
    assert recipe.version == version
    assert recipe.package == (package or "perf-analyzer")


@pytest.mark.parametrize(
    ("libc", "machine", "version", "words"),
    [
        ((2, 31), "x86_64", None, "needs glibc 2.34, this machine has 2.31"),
        ((2, 36), "x86_64", "2.60.0", "needs glibc 2.38"),
        ((2, 36), "x86_64", "9.9", "take one of 2.60.0, 2.43.0"),
        ((2, 36), "aarch64", None, "x86_64 with glibc only"),
        (None, "x86_64", None, "x86_64 with glibc only"),
    ],
)
def test_where_none_fits_the_reason_is_told(
    libc: tuple[int, int] | None, machine: str, version: str | None, words: str
) -> None:
    with pytest.raises(ToolError, match=words):
        fitting_recipe(libc, version, machine)


def test_set_up_keeps_origin_and_checksum_and_its_own_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    fake_pip(monkeypatch)
    tool = setup(said.append)
    record = json.loads((tool.binary.parent / "origin.json").read_text())
    assert record["origin"] == "tritonclient 2.43.0 wheel"
    assert record["sha256"] == tool.sha256 == hashlib.sha256(RUNS.encode()).hexdigest()
    assert tool.libraries is not None
    assert sorted(path.name for path in tool.libraries.iterdir()) == ["libb64.so.0d", "libcudart.so.12"]
    assert not any(path.is_symlink() for path in tool.libraries.iterdir())  # outlives the environment
    assert len(said) >= 1


def test_a_second_time_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    fake_pip(monkeypatch, log=log)
    first, fetched = setup(lambda _: None), log.read_text()
    assert setup(lambda _: None) == first == find()
    assert log.read_text() == fetched


def test_a_broken_copy_is_not_used_and_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch)
    tool = setup(lambda _: None)
    tool.binary.write_text(RUNS + "# changed\n")
    with pytest.raises(ToolError, match="sha256 differs"):
        find()
    assert setup(lambda _: None) == tool


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"version": 1}'])
def test_a_broken_record_is_made_anew(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    fake_pip(monkeypatch)
    tool = setup(lambda _: None)
    (tool.binary.parent / "origin.json").write_text(broken)
    assert setup(lambda _: None) == tool


def test_what_did_not_run_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_pip(monkeypatch, NEEDS_LIBRARY)
    with pytest.raises(ToolError):
        setup(lambda _: None)
    store = tmp_path / "cache" / "triton-bench" / "perf_analyzer"
    assert [path.name for path in store.iterdir()] == [".lock"]


def _set_up(answers: multiprocessing.SimpleQueue[PerfAnalyzer]) -> None:
    answers.put(setup(lambda _: None))


def test_two_processes_at_once_make_one_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    fake_pip(monkeypatch, log=log)
    fork = multiprocessing.get_context("fork")  # children inherit the fakes
    answers = fork.SimpleQueue()
    processes = [fork.Process(target=_set_up, args=(answers,)) for _ in range(3)]
    for process in processes:
        process.start()
    tools = [answers.get() for _ in processes]
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    assert tools[0] == tools[1] == tools[2]
    assert log.read_text().splitlines().count("tritonclient") == 1


@pytest.mark.parametrize(
    ("version", "keeps"),
    [
        ("2.43.0", False),
        ("2.41.1", False),
        ("2.44.0", True),
        ("2.60.0", True),
        ("0.0.0", True),
        ("unknown", True),
    ],
)
def test_versions_that_keep_every_tensor_are_known(version: str, keeps: bool) -> None:
    assert PerfAnalyzer(Path("x"), None, version, "", "").keeps_bodies is keeps


def test_its_libraries_come_before_others_and_hide_none() -> None:
    base = {"LD_LIBRARY_PATH": "/cuda", "HOME": "/h"}
    assert environment(Path("/own"), base) == {"LD_LIBRARY_PATH": "/own:/cuda", "HOME": "/h"}
    assert environment(Path("/own"), {}) == {"LD_LIBRARY_PATH": "/own"}
    assert environment(None, base) == base


def failing_pip(said: str) -> Callable[..., object]:
    class Ended:
        returncode, stdout, stderr = 1, "", said

    return lambda *_, **__: Ended()


@pytest.mark.parametrize("content", [b"as published", b"something else"])
def test_a_wheel_of_another_content_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    def pip(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        (folder / "x-1-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    sha256 = hashlib.sha256(b"as published").hexdigest()
    if content == b"as published":
        assert subject._download("x", "1", sha256, tmp_path / "wheel").read_bytes() == content
    else:
        with pytest.raises(ToolError, match=r"x-1-py3-none-any\.whl is not the file that was published"):
            subject._download("x", "1", sha256, tmp_path / "wheel")


def test_every_recipe_names_its_wheels_checksum() -> None:
    assert all(re.fullmatch("[0-9a-f]{64}", recipe.sha256) for recipe in subject.RECIPES)


def test_what_pip_says_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = "WARNING: x\nERROR: No matching distribution found for tritonclient==2.43.0\n"
    monkeypatch.setattr(subprocess, "run", failing_pip(said))
    with pytest.raises(ToolError, match=r"No matching distribution.*pip config list"):
        subject._download("tritonclient", "2.43.0", "0" * 64, tmp_path / "wheel")


@pytest.mark.e2e
def test_the_real_thing_is_set_up_here_and_runs(tmp_path: Path) -> None:
    tool = setup(lambda _: None)
    assert tool.version in {recipe.version for recipe in RECIPES}
    assert tool.binary.read_bytes().startswith(b"\x7fELF")
    assert tried(tool.binary, tool.libraries, tool.version, tool.origin) == tool
    assert find() == tool
    assert tool.binary.is_relative_to(tmp_path)
