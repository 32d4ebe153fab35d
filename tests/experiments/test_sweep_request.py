"""A sweep from Python: a frozen request and a provider give a run folder; nothing is printed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.core.errors import RunFolderError, WrongUse
from bench.core.spec import SweepSpec
from bench.experiments.run_setup import Output
from bench.experiments.sweep_request import SweepRequest, run
from bench.server.embedded import EmbeddedTriton
from bench.server.provider import AddressProvider
from bench.server.repository import Repository
from bench.server.session import Say, Session
from tests.support import synthetic

SPEC = SweepSpec(
    model="null_small", batches=(1, 2), concurrencies=(1,), repeats=1, duration_s=0.3, warmup_s=0.1
)


@dataclass
class Closed:
    """A provider of a server of ours that nobody may open."""

    repository: Repository = field(default_factory=Repository)
    cost: str = ""

    @contextmanager
    def open(self, model: str, say: Say, log: Path) -> Iterator[Session]:
        raise AssertionError(f"opened {model}, {say}, {log}")
        yield


def test_every_mistake_is_raised_before_the_target_is_opened(tmp_path: Path) -> None:
    spec = SweepSpec(model="delay", batches=(1, 65), parameters=(("delay_mss", ("1",)),), concurrencies=(1,))
    with pytest.raises(WrongUse) as caught:
        run(SweepRequest(spec=spec, output=Output(tmp_path / "run")), Closed())
    assert [mistake.partition(":")[0] for mistake in caught.value.mistakes] == [
        "--parameter delay_mss=1", "--batch 65",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_another_run_is_left_as_it_is(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", synthetic.Study(cells=(synthetic.cell(),), repeats=1))
    before = folder.record
    with pytest.raises(RunFolderError, match="already holds a run"):
        run(SweepRequest(spec=SPEC, output=Output(folder.path)), Closed())
    assert folder.record == before


@pytest.mark.e2e
def test_a_run_is_measured_and_nothing_is_printed(
    triton: EmbeddedTriton, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    request = SweepRequest(spec=SPEC, output=Output(tmp_path / "run"), slo="p99=10s")
    folder = run(request, AddressProvider(triton.target))
    assert capfd.readouterr() == ("", "")
    assert [trial.cell.load.batch for trial in folder.trials()] == [1, 2]
    assert folder.record.finished_at
    assert folder.record.slo == "p99=10s"
