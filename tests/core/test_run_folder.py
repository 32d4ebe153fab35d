"""The run folder: written after every trial, read back equal, refused when it is not ours."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.cell import Cell, Load, Protocol, ServerConfiguration
from bench.core.errors import RunFolderError
from bench.core.findings import Finding, Severity
from bench.core.run_folder import RunFolder, RunRecord, Unreadable
from bench.core.samples import COLUMNS, Outcome, Samples, Window
from bench.core.trial import Counters, Generator, Plan, Trial


def record(**changes: object) -> RunRecord:
    base = RunRecord(
        name="r", created_at="2026-01-01T00:00:00Z", command=("bench", "sweep"), seed=1,
        spec={"batch": [1, 8]}, machine={"cpu": "x"}, versions={"python": "3"}, target="embedded",
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]  # names are RunRecord's own


def trial(model: str = "m", repeat: int = 0) -> Trial:
    load = Load(protocol=Protocol.GRPC, batch=8, rate_per_s=5.5)
    server = ServerConfiguration(model=model, instances=2, parameters=(("precision", "bf16"),))
    plan = Plan(cell=Cell(server=server, load=load), repeat=repeat, seed=3, warmup_s=1, duration_s=2)
    return Trial(
        plan=plan,
        window=Window(10, 20),
        samples=Samples.of([(1, 2, 3, Outcome.OK), (4, 5, 6, Outcome.TIMEOUT)]),
        errors={"timed out": 1},
        generator=Generator(workers=1, cpu_s=(0.5,), max_rss_bytes=7),
        counters=Counters(
            inference_count=8,
            execution_count=1,
            success_count=1,
            fail_count=0,
            success_ns=9,
            queue_ns=1,
            compute_input_ns=1,
            compute_infer_ns=6,
            compute_output_ns=1,
            batches={8: (1, 6)},
        ),
        machine={"cpu": ((1, 0.5), (2, 0.75))},
        findings=(Finding("x", Severity.NOTE, "a", "b", "c"),),
        engine={"version": "1"},
    )


def test_a_trial_comes_back_equal(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    written = trial()
    folder.write_trial(written)
    (read,) = folder.trials()
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(read.samples, name), getattr(written.samples, name))
    assert dataclasses.replace(read, samples=written.samples) == written


def test_a_trial_without_its_json_does_not_exist(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    folder.write_trial(trial(repeat=0))
    folder.write_trial(trial(repeat=1))
    cell = trial().cell.key
    next((tmp_path / "run" / "trials").glob("*/1.json")).unlink()
    assert folder.has_trial(cell, 0)
    assert not folder.has_trial(cell, 1)
    assert len(list(folder.trials())) == 1


def test_the_record_comes_back_equal(tmp_path: Path) -> None:
    served = {"m-i2": {"max_batch_size": 64, "instance_group": [{"count": 2}]}}
    written = record(served=served, planned=(trial().cell,), failed={"b": "no memory"})
    assert RunFolder.create(tmp_path, written).record == written


def test_a_folder_with_another_run_is_refused_with_the_flags_that_help(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, record())
    with pytest.raises(RunFolderError, match=r"--resume.*--force"):
        RunFolder.create(tmp_path, record())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "holds no run"),
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"schema_version": 99}', "has schema 99"),
        ('{"schema_version": 1, "name": 5}', "not what this bench writes"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"schema_version": 1' + "0" * 5000 + "}", "cannot be read"),
    ],
)
def test_what_is_not_a_run_is_refused_with_a_sentence(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match=says):
        RunFolder.open(tmp_path)


def test_a_models_name_never_leaves_the_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    folder.write_trial(trial(model="../../evil/<b>"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len(list(folder.trials())) == 1


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 cut short"])
def test_samples_that_are_gone_or_broken_are_a_sentence(tmp_path: Path, content: bytes | None) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    folder.write_trial(trial())
    (samples,) = folder.path.rglob("*.npz")
    if content is None:
        samples.unlink()
    else:
        samples.write_bytes(content)
    assert list(folder.trials()) == []
    (unreadable,) = folder.read_trials()
    assert isinstance(unreadable, Unreadable)
    assert re.search(r"0\.npz .*--resume measure it again", unreadable.reason)


def packed(**columns: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **columns)  # type: ignore[arg-type]  # numpy's stub takes every keyword for a flag
    return file.getvalue()


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({name: np.zeros(3 + (name == "outcome"), np.int64) for name in COLUMNS}, "unequal length"),
        ({name: np.zeros(3) for name in COLUMNS}, "no array of whole numbers"),
        ({name: np.zeros((2, 2), np.int64) for name in COLUMNS}, "no array of whole numbers"),
        ({name: np.array(["x", None]) for name in COLUMNS}, "no array of whole numbers"),
        ({name: np.zeros(3, np.int64) for name in COLUMNS[1:]}, "no archive of samples"),
        ({name: np.full(2, 99) for name in COLUMNS}, "an outcome is unknown"),
        ({name: np.full(2, -(1 << 63)) for name in COLUMNS}, "beyond what a clock shows"),
    ],
)
def test_samples_of_another_make_are_a_sentence(
    tmp_path: Path, columns: dict[str, NDArray[Any]], says: str
) -> None:
    folder = RunFolder.create(tmp_path / "run", record())
    folder.write_trial(trial())
    next(folder.path.rglob("*.npz")).write_bytes(packed(**columns))
    (unreadable,) = folder.read_trials()
    assert isinstance(unreadable, Unreadable)
    assert says in unreadable.reason


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "0.npz"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name in COLUMNS:
            with archive.open(f"{name}.npy", "w") as entry:
                for _ in range(20):
                    entry.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="far larger than samples of this file's size"):
        Samples.load(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_torn_trial_is_set_aside_before_anything_is_measured_again(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", record(planned=(trial().cell,)))
    for repeat in range(3):
        folder.write_trial(trial(repeat=repeat))
    torn = next(folder.path.rglob("1.npz"))
    damaged = torn.read_bytes()[:100]
    torn.write_bytes(damaged)
    part = torn.with_name(".2.npz.4711")
    part.write_bytes(b"half of it")
    (lost,) = folder.mend()
    assert (lost.cell, lost.repeat) == (trial().cell.key, "1")
    assert [folder.has_trial(trial().cell.key, repeat) for repeat in range(3)] == [True, False, True]
    assert not part.exists()
    assert torn.with_name("1.npz.unreadable").read_bytes() == damaged
    assert folder.mend() == []


def test_a_full_disk_names_the_path_and_what_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path / "run", record())

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"0\.npz cannot be written \(No space left.*--resume goes on"):
        folder.write_trial(trial())
    assert [path.name for path in folder.path.rglob("*") if path.is_file()] == ["run.json"]


def test_names_of_any_language_are_written_and_read_whatever_the_locale(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from bench.core.files import write_json;"
        "from bench.core.run_folder import _read_json;"
        "path = Path(sys.argv[1]); write_json(path, {'name': 'm\\xfcnchen'}); print(ascii(_read_json(path)))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.json")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "{'name': 'm\\xfcnchen'}\n", done.stderr
