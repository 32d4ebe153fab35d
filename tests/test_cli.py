"""The command: wrong use ends with 2, every mistake named and nothing started; other failures with 4."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from bench import cli
from bench.embedded import EmbeddedTriton

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


@pytest.mark.usefixtures("nothing_starts")
def test_resume_without_a_run_is_refused(bench: Run) -> None:
    code, _, err = bench("sweep", "--name", "none", "--resume")
    assert code == 2
    assert "--resume" in err


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
    *cells, total = out.splitlines()
    assert len(cells) == len(set(cells)) == 8
    assert re.fullmatch(r"8 cells, 2 model loads, \d+ trials, about [\d.]+ min", total)
    assert list(tmp_path.iterdir()) == []


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
