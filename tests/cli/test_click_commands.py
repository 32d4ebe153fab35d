"""Help and completion, as they derive from the table; a verb's function is imported when it is called."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from bench.cli.commands import SEARCH, SWEEP, TUNE, VERBS, Verb
from bench.cli.main import bench
from bench.core.options import OPTIONS, Option, Scope
from tests.support.command import values_of


def offered(*words: str) -> list[str]:
    """What a shell offers behind `bench WORDS`, the last of which is begun."""
    complete = ShellComplete(bench, {}, "bench", "_BENCH_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


ENUMERATED = [option for option in OPTIONS.values() if option.kind.words]


def verb_with(option: Option) -> Verb:
    return next(verb for verb in VERBS if any(own.name == option.name for own in verb.options))


@pytest.mark.parametrize("option", ENUMERATED, ids=[option.name for option in ENUMERATED])
def test_every_word_is_completed(option: Option) -> None:
    verb = verb_with(option).name.split()
    assert set(option.kind.words) <= set(offered(*verb, option.long, ""))
    first = option.kind.words[0]
    assert first in offered(*verb, option.long, first[:1])
    if option.kind.is_list:
        rest = offered(*verb, option.long, f"{first},")
        others = [word for word in option.kind.words if word not in (first, "both")]
        assert [value for value in rest if not value.endswith("both")] == [
            f"{first},{word}" for word in others
        ]


def test_what_cannot_stand_beside_another_is_not_offered() -> None:
    assert offered("sweep", "--protocol", "http,") == ["http,grpc"]
    assert offered("sweep", "--output", "pooler_output,b") == ["pooler_output,both"]


def test_models_and_run_folders_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "other"):
        (tmp_path / "reports" / name).mkdir(parents=True)
        (tmp_path / "reports" / name / "run.json").write_text("{}")
    assert offered("sweep", "--model", "py") == ["python_vit"]
    assert offered("report", "reports/m") == ["reports/mine"]
    assert offered("sweep", "--against", "") == ["reports/mine", "reports/other"]


def help_of(verb: Verb, flag: str) -> str:
    result = CliRunner().invoke(bench, [*verb.name.split(), flag], terminal_width=110)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("verb", [SWEEP, SEARCH, TUNE], ids=lambda verb: verb.name)
def test_help_shows_what_most_people_need_and_how_many_more_there_are(verb: Verb) -> None:
    text = help_of(verb, "--help")
    shown = [option for option in verb.options if f" {option.long} " in text.partition("Examples")[0]]
    assert 8 <= len([option for option in shown if option.is_common or option.required]) <= 16
    hidden = [option for option in verb.options if not (option.is_common or option.required)]
    assert f"--help-all lists {len(hidden)} more." in text


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb.is_long], ids=lambda verb: verb.name)
def test_help_all_has_one_line_for_each_option_under_a_heading(verb: Verb) -> None:
    text = help_of(verb, "--help-all").partition("Examples")[0]
    headings = {scope.heading for scope in Scope}
    _, _, options = text.partition(f"{Scope.SERVER.heading}:\n")
    lines = [line for line in options.splitlines() if line.strip() and line[:-1] not in headings]
    assert [line for line in lines if not line.startswith("  -")] == []
    assert len(lines) == len(verb.options)
    for option in verb.options:
        assert any(option.long in line and option.help in line for line in lines)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_option_of_a_verb_is_one_of_its_flags(verb: Verb) -> None:
    group: click.Command = bench
    for word in verb.name.split():
        assert isinstance(group, click.Group)
        group = group.commands[word]
    flags = {flag for parameter in group.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {flag for option in verb.options if not option.is_argument for flag in option.flags} <= flags


def test_everything_that_is_missing_is_told_with_everything_that_is_wrong() -> None:
    values = values_of("search", "--batch", "0", "--protocol", "rest")
    said = [mistake.partition(":")[0] for mistake in values.mistakes.mistakes]
    assert said == ["--batch 0", "--protocol rest", "--slo"]
    assert values_of("compare").mistakes.mistakes == [
        "BASE: is missing: give RUN", "NEW: is missing: give RUN",
    ]  # fmt: skip


def test_a_verb_without_an_option_has_its_default() -> None:
    assert values_of("search", "--slo", "p99=1s")["engine"] == OPTIONS["engine"].parse("locust")
    assert values_of("deploy", "--image", "i").mistakes.mistakes == []


def test_an_environment_variable_stands_for_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    assert values_of("deploy").mistakes.mistakes == ["--image: is missing: give IMAGE"]
    monkeypatch.setenv("BENCH_TRITON_IMAGE", "registry/vit:1")
    values = values_of("deploy")
    assert (values["service_image"], values.mistakes.mistakes) == ("registry/vit:1", [])
    assert values_of("sweep").mistakes.mistakes == []  # it goes with --deploy, and was not typed


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help-all"], ["tune", "--help"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = ("numpy", "gevent", "kubernetes", "pandas", "rich", "locust", "grpc", "torch", "plotly")
    script = (
        "import sys\nfrom bench.cli.main import bench\n"
        f"bench.main({words}, standalone_mode=False)\n"
        f"print('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_ctrl_c_while_a_verb_is_imported_ends_quietly(tmp_path: Path) -> None:
    """The module that is imported sends the signal itself, so nothing has to be waited for."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nrun = None\n")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom bench.cli.click_commands import load\n"
    done = subprocess.run([sys.executable, "-c", f"{script}load('slow:run')"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
