"""The command: wrong use ends with 2, every mistake named and nothing started; other failures with 4."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from bench.cli import main as cli
from bench.cli.progress import ConsoleProgress
from bench.cli.verbs import doctor, sweep
from bench.core.errors import RunFolderError, Unreachable
from bench.core.run_folder import RunFolder
from bench.core.spec import SweepSpec
from bench.experiments.run_setup import Output, new_folder
from bench.experiments.sweep import Sweep
from bench.server.embedded import EmbeddedTriton
from bench.server.session import Session
from tests.support import synthetic
from tests.support.synthetic import Study, cell

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        code = 0  # --help and --version return
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any process, from here on, is a failure of the test."""

    def refuse(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def verbs() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in cli.bench.commands.items():
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        found += [(f"{name} {sub}".strip(), leaf) for sub, leaf in inner.items()]
    return found


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--batch 0", ["--batch 0:"]),
        ("--batch 8,8", ["--batch 8,8:"]),
        ("--batch 1,x", ["--batch 1,x:"]),
        ("--instances -1", ["--instances -1:"]),
        ("--batch 1,65", ["--batch 65: over the model's maximum of 64"]),
        ("--protocol rest", ["--protocol rest:"]),
        ("--model resnet", ["--model resnet:"]),
        ("--repeats 0", ["--repeats 0:"]),
        ("--repeats few", ["--repeats few:"]),
        ("--slo p98=1s", ["--slo p98=1s:"]),
        ("--url ftp://host", ["--url ftp://host:"]),
        ("--url 127.0.0.1:notaport", ["--url 127.0.0.1:notaport:"]),
        ("--url 127.0.0.1:8000 --header secret", ["--header NAME:VALUE:"]),
        ("--grpc-url 127.0.0.1:8001", ["--grpc-url 127.0.0.1:8001: goes with --url"]),
        ("--repository .", ["--model python_vit:"]),
        ("--name a/b", ["--name a/b:"]),
        ("--model delay --parameter delay_mss=10,20", ["--parameter delay_mss=10,20: delay has no such"]),
        ("--scenario single-stream --batch 8", ["--batch 8: --scenario single-stream"]),
        ("--scenario server --rate 5/s --arrival constant", ["--arrival constant:"]),
        ("--load-image i", ["--load-image i: goes with --in-cluster"]),
        ("--anyway", ["--anyway: goes with --against RUN"]),
        ("--quick --repeats 2", ["--quick: goes without --repeats"]),
        ("--force --resume", ["--force --resume:"]),
        (
            "--batch 0 --instances -1 --protocol rest --model resnet --slo fast --duration 0s",
            ["--batch", "--instances", "--protocol", "--duration", "--slo", "--model"],
        ),
        ("--unheard-of", ["--unheard-of"]),
    ],
)
@pytest.mark.usefixtures("nothing_starts")
def test_wrong_use_ends_with_2_every_mistake_named_and_nothing_started(
    bench: Run, tmp_path: Path, words: str, named: list[str]
) -> None:
    code, out, err = bench("sweep", *words.split())
    assert code == 2
    assert out == ""
    mistakes = [line for line in err.splitlines() if line.startswith(("error: ", "Error: "))]
    assert len(mistakes) == len(named)
    for mistake, part in zip(mistakes, named, strict=True):
        assert part in mistake
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_starts")
def test_a_folder_with_another_run_is_refused_with_the_flags_that_help(bench: Run, tmp_path: Path) -> None:
    (tmp_path / "reports" / "mine").mkdir(parents=True)
    (tmp_path / "reports" / "mine" / "run.json").write_text("{}")
    code, _, err = bench("sweep", "--name", "mine")
    assert code == 2
    assert all(flag in err for flag in ("--name", "--out", "--resume", "--force"))
    code, _, err = bench("search", "--slo", "p99=1s", "--name", "mine")
    assert code == 2
    assert "--force" in err
    assert "--resume" not in err  # which it does not have
    assert (tmp_path / "reports" / "mine" / "run.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda out: out.write_text("mine"), "is a file"),
        (lambda out: (out.mkdir(), (out / "thesis.txt").write_text("mine")), "not empty"),
    ],
)
@pytest.mark.usefixtures("nothing_starts")
def test_somebody_elses_folder_is_refused_before_anything_starts(
    bench: Run, tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "out")
    code, _, err = bench("sweep", "--out", "out")
    assert code == 2
    assert says in err
    assert [path.name for path in tmp_path.rglob("*")] in (["out"], ["out", "thesis.txt"])


class FakeTriton:
    def server(self) -> dict[str, str]:
        return {"version": "2.51.0"}


def folder_of(path: Path, *, slo: str, **how: bool) -> RunFolder:
    """As a verb makes it, of a server that nobody asks anything but its version."""
    session = Session(FakeTriton(), None, "a server")  # type: ignore[arg-type]  # nothing else is used
    spec = SweepSpec(model="m", batches=(1,), concurrencies=(1,))
    return new_folder(
        Output(path, **how), spec, session, command=("bench", "sweep"), slo=slo, planned=spec.cells()
    )


def test_force_leaves_nothing_of_the_run_before_that_a_page_would_show(tmp_path: Path) -> None:
    folder_of(tmp_path / "run", slo="")
    before = ("search.json", "tune.json", "ceiling.json", "config.pbtxt", "configmap.yaml", "cells.csv")
    for name in before:
        (tmp_path / "run" / name).write_text("{}")
    folder_of(tmp_path / "run", slo="", force=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["run.json", "trials"]


def test_resume_under_another_slo_is_refused_since_it_would_be_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path / "run", slo="p99=1s")
    assert folder_of(tmp_path / "run", slo="p99=1s", resume=True).record.slo == "p99=1s"
    with pytest.raises(RunFolderError, match="differs from the run there in slo"):
        folder_of(tmp_path / "run", slo="p99=2s", resume=True)


def test_a_sweep_whose_target_is_gone_says_where_the_rest_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Sweep) -> None:
        raise Unreachable("Nothing answers.")

    monkeypatch.setattr(Sweep, "run", gone)
    folder = folder_of(tmp_path / "run", slo="")
    runner: Any = SimpleNamespace(folder=folder)
    experiment = Sweep(runner)
    with pytest.raises(Unreachable):
        sweep.measure(experiment, ConsoleProgress(), as_json=False)
    assert "--resume goes on" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_starts")
def test_resume_without_a_run_is_refused(bench: Run) -> None:
    code, _, err = bench("sweep", "--name", "none", "--resume")
    assert code == 2
    assert err == ("error: --resume: reports/none holds no run to go on with; --name or --out says which.\n")


@pytest.mark.parametrize("verb", ["sweep", "infer"])
@pytest.mark.usefixtures("nothing_starts")
def test_a_target_that_does_not_answer_ends_with_4(bench: Run, tmp_path: Path, verb: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        code, out, err = bench(verb, "--url", address, "--model", "delay")
    assert code == 4
    assert out == ""
    assert address in err
    assert "connection refused" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_starts")
def test_a_tritonserver_that_is_none_ends_with_4(bench: Run) -> None:
    code, _, err = bench("sweep", "--model", "delay", "--tritonserver", "/none")
    assert code == 4
    assert "--tritonserver /none" in err


@pytest.mark.usefixtures("nothing_starts")
def test_a_dry_run_prints_cells_reloads_and_time_and_starts_nothing(bench: Run, tmp_path: Path) -> None:
    code, out, _ = bench("sweep", "--dry-run", "--batch", "1,8", "--instances", "1,2", "--protocol", "both")
    assert code == 0
    cells, total, fresh, about, *gates = out.splitlines()[:8], *out.splitlines()[8:]
    assert len(set(cells)) == 8
    assert fresh == "Includes 3 fresh trials of the best cell; --no-confirm leaves them out."
    assert about.startswith(
        "Compared, this run against another like it, with 3 repeats, a luck of 3% a start"
    )
    assert [line.partition(":")[0] for line in gates] == ["throughput<-5%", "p50>+5%"]
    assert all("spread by 2% (assumed; --assume-spread says another)" in line for line in gates)
    assert re.match(r"8 cells, 2 model loads, \d+ trials, about [\d.]+ min; windows of 5 s \(grows", total)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_ours_ends_with_4_since_1_says_that_a_gate_was_missed(
    bench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.cli.verbs.report.report", lambda *_: 1 / 0)
    code, _, err = bench("report", "any")
    assert code == 4
    assert "ZeroDivisionError" in err
    assert err.splitlines()[-1].startswith("error: this is a mistake in bench")


def test_a_page_that_cannot_be_written_ends_with_2_and_names_the_path(bench: Run, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "run", Study(cells=(cell(),), repeats=1))
    for out in ("none/page.html", "run", "run/run.json/page.html"):
        code, _, err = bench("report", "run", "--out", out)
        assert code == 2
        assert err.startswith(f"error: {out} cannot be written (")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_full_disk_ends_with_4_and_no_traceback(bench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.cli.verbs.report.report", full)
    code, _, err = bench("report", "any")
    assert code == 4
    assert re.fullmatch(r"error: No space left on device: see to .*\(TMPDIR\).*\n", err)


def test_a_kubeconfig_that_is_none_is_a_line_of_the_doctors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    for name, text in (("words", "some words"), ("list", "[]"), ("broken", "a: ["), ("folder", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / name))
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / name)
        )
        assert doctor._cluster().ok is False, name


@pytest.mark.usefixtures("nothing_starts")
def test_a_folder_below_a_file_is_refused_before_anything_starts(bench: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in ((), ("--variant", "a=", "--variant", "b=")):
        code, _, err = bench("sweep", "--model", "delay", *words, "--out", "file/run")
        assert code == 2
        assert "file is a file: choose another" in err


@pytest.mark.usefixtures("nothing_starts")
def test_a_name_that_is_no_name_of_a_folder_is_refused(bench: Run) -> None:
    for name in ("a/b", "..", "x" * 300):
        code, _, err = bench("sweep", "--model", "delay", "--name", name)
        assert code == 2
        assert err.startswith(f"error: --name {name}: ")


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("words", ["--vit base", "--tritonserver /t", "--repository /r"])
def test_flags_of_a_server_started_here_are_refused_of_one_that_runs_already(bench: Run, words: str) -> None:
    code, _, err = bench("sweep", "--url", "127.0.0.1:1", *words.split())
    assert code == 2
    assert f"error: {words}: goes without --url" in err


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(
    "words", ["--workers 2", "--locust-master 10.0.0.1", "--in-cluster", "--load-image i", "--ceiling"]
)
def test_what_turns_cannot_do_is_refused_and_not_left_out(bench: Run, words: str) -> None:
    code, _, err = bench("sweep", "--model", "delay", "--variant", "a=", "--variant", "b=", *words.split())
    assert code == 2
    assert f"error: {words}: goes without --against and --variant" in err


@pytest.mark.parametrize("words", ["--seconds 0", "--threads -2"])
@pytest.mark.usefixtures("nothing_starts")
def test_a_ceiling_of_no_time_or_no_threads_is_refused(bench: Run, words: str) -> None:
    code, _, err = bench("ceiling", *words.split())
    assert code == 2
    assert words.split()[0] in err


@pytest.mark.parametrize(
    "words", ["--http-port 70000", "--grpc-port -1", "--metrics-port x", "--instances 0"]
)
@pytest.mark.usefixtures("nothing_starts")
def test_a_port_or_a_count_that_cannot_be_is_refused(bench: Run, words: str) -> None:
    code, _, err = bench("serve", "--model", "delay", *words.split())
    assert code == 2
    assert words.split()[0] in err


@pytest.mark.usefixtures("nothing_starts")
def test_everything_wrong_about_one_request_is_said_at_once(bench: Run) -> None:
    words = ("--timeout", "0", "--image", "~no-such-user/x", "--protocol", "rest", "--model", "nope")
    code, _, err = bench("infer", *words)
    assert code == 2
    flags = [line.split()[1] for line in err.splitlines()]
    assert flags == ["--protocol", "--timeout", "--image", "--model"]
    assert bench("infer", "--model", "delay", "--image", "x" * 300)[0] == 2


def test_a_dry_run_tells_all_cells_apart(bench: Run) -> None:
    axes = ("--max-batch", "8,32", "--max-queue-delay", "off,0,1ms", "--shared-memory", "none,system")
    code, out, _ = bench("sweep", "--dry-run", "--model", "delay", "--batch", "1", *axes)
    assert code == 0
    cells, total = out.splitlines()[:12], out.splitlines()[12]
    assert len(set(cells)) == 12
    assert total.startswith("12 cells")


def test_a_dry_run_says_what_the_plan_would_see_and_how_many_repeats_a_change_needs(bench: Run) -> None:
    words = (
        "--model",
        "delay",
        "--batch",
        "1",
        "--dry-run",
        "--reload",
        "repeat",
        "--repeats",
        "5",
        "--json",
    )
    plans = {}
    for spread in ("2%", "10%"):
        code, out, _ = bench("sweep", *words, "--assume-spread", spread, "--detect", "10%")
        assert code == 0
        said = json.loads(out)
        assert (said["trials"], said["model_loads"]) == (5, 5)
        plans[spread] = said["power"][0]
    quiet, noisy = plans["2%"], plans["10%"]
    assert quiet["gate"] == "throughput<-5%"
    assert 0.05 < quiet["smallest_change"] < 0.1 < noisy["smallest_change"]
    assert quiet["repeats_to_detect"] <= 5 < noisy["repeats_to_detect"]
    code, out, _ = bench(
        "sweep", *words[:-1], "--variant", "a=", "--variant", "b=delay_ms=40", "--detect", "3%"
    )
    assert code == 0
    assert "a model load for each repeat" in out
    assert "A change of 3% is allowed by this gate." in out


@pytest.mark.parametrize("words", ["report none", "compare none none"])
def test_what_is_no_run_ends_with_2(bench: Run, words: str) -> None:
    code, _, err = bench(*words.split())
    assert code == 2
    assert "holds no run" in err


@pytest.mark.parametrize(("name", "command"), verbs(), ids=[name for name, _ in verbs()])
def test_help_ends_with_examples_that_the_verb_understands(
    bench: Run, name: str, command: click.Command
) -> None:
    code, out, _ = bench(*name.split(), "--help")
    assert code == 0
    _, _, examples = out.partition("Examples:\n")
    lines = examples.rstrip().splitlines()
    assert lines
    for line in lines:
        program, *words = shlex.split(line.partition(" | ")[0])
        assert program == "bench"
        assert words[: len(name.split())] == name.split()
        command.make_context(name, words[len(name.split()) :])  # raises what a wrong flag raises


def test_the_same_flag_means_the_same_in_every_verb() -> None:
    helps: dict[str, dict[str, str]] = {}
    for verb, command in verbs():
        for option in command.params:
            if isinstance(option, click.Option) and option.help:
                helps.setdefault(option.opts[0], {})[verb] = option.help
    for flag in ("--url", "--grpc-url", "--metrics-url", "--header", "--model", "--vit", "--timeout"):
        assert len(set(helps[flag].values())) == 1, flag


def test_python_m_bench_is_the_same_command() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "bench", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert asked.stdout.startswith("bench, version")


@pytest.mark.e2e
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_infer_prints_the_tensor_its_shape_and_the_time(
    bench: Run, triton: EmbeddedTriton, protocol: str
) -> None:
    address = triton.target.http_url.removeprefix("http://")  # --url without a scheme is accepted
    words = ["infer", "--url", address, "--grpc-url", triton.target.grpc_address or "", "--model", "delay"]
    code, out, err = bench(*words, "--protocol", protocol)
    assert code == 0, err
    assert "(1, 16)" in out
    assert re.search(r"\d ms$", out.strip())
    code, out, _ = bench(*words, "--protocol", protocol, "--json")
    assert json.loads(out)["outputs"] == {"y": [1, 16]}


@pytest.mark.e2e
def test_a_model_that_a_remote_server_lacks_ends_with_2(
    bench: Run, triton: EmbeddedTriton, tmp_path: Path
) -> None:
    code, _, err = bench("sweep", "--url", triton.target.http_url, "--model", "resnet")
    assert code == 2
    assert "--model resnet" in err
    assert "delay" in err  # what it has
    code, _, err = bench("sweep", "--url", triton.target.http_url, "--model", "delay", "--batch", "1,65")
    assert code == 2
    assert "--batch 65" in err
    assert list(tmp_path.iterdir()) == []
